"""A tone of voice: an author's texts, requests written by a local teacher, a tuned model, and how well its texts can be told apart.

    python benchmarks/tone.py BASE TEACHER.gguf TEXTS [--count 150] [--max-samples 60] [--folder FOLDER]

TEXTS is a folder of text files, or the file Rdata.rdb of the Debian package r-cran-janeaustenr (Jane Austen's novels, public domain).
Passages of 60 to 130 words are drawn at random from all of them. With --folder, an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import random
import re
import time
import zlib
from pathlib import Path
from tempfile import mkdtemp

from fingerpost.cli.tone import _show_report
from fingerpost.core.types import Progress
from fingerpost.tone.judge import write_page
from fingerpost.tone.project import ToneProject, create
from fingerpost.tone.requests import ask, pairs
from fingerpost.tone.texts import lint, read_texts
from fingerpost.tone.train import evaluate, train

LEAST, MOST = 60, 130
INSTRUCTIONS = "You write like Jane Austen, in the English of about 1810."


def paragraphs_of(path: Path) -> list[str]:
    """All paragraphs of an author."""
    if path.is_dir():
        whole = [file.read_text(encoding="utf-8") for file in sorted(path.rglob("*.txt"))]
    else:
        whole = list(novels_in(path.read_bytes()))
    found = [re.sub(r"\s+", " ", part).strip() for text in whole for part in re.split(r"\n\s*\n", text)]
    return [part for part in found if part]


def novels_in(data: bytes) -> list[str]:
    """The character vectors in an R database: zlib streams of XDR objects, each string with its length before it."""
    novels = []
    for start in (match.start() for match in re.finditer(rb"\x78[\x01\x5e\x9c\xda]", data)):
        try:
            content = zlib.decompressobj().decompress(data[start:])
        except zlib.error:
            continue
        strings = re.finditer(rb"\x00[\x00-\x0f][\x00-\xff]\x09(....)", content, re.DOTALL)
        lines = []
        for match in strings:
            length = int.from_bytes(match[1], "big", signed=True)
            if 0 <= length < 500:
                lines.append(content[match.end() : match.end() + length].decode("utf-8", errors="replace"))
        if len(lines) > 1_000:
            novels.append("\n".join(lines))
    return novels


def passages(paragraphs: list[str], count: int, seed: int) -> list[str]:
    """Paragraphs of a fitting length, drawn at random."""
    fitting = [part for part in paragraphs if LEAST <= len(part.split()) <= MOST and part[-1] in '.!?"']
    return random.Random(seed).sample(fitting, min(count, len(fitting)))


def show(progress: Progress) -> None:
    if progress.message:
        print(f"    {progress.message}", flush=True)
    elif progress.done % 20 == 0 and progress.done:
        print(f"    {progress.step} {progress.done}/{progress.total} {progress.detail}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("teacher", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--count", type=int, default=150)
    parser.add_argument("--max-samples", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--test", type=float, default=0.3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--until", choices=["requests", "train", "evaluate"], default="evaluate")
    options = parser.parse_args()
    folder = options.folder or Path(mkdtemp())
    texts = folder / "texts"
    if not texts.is_dir():
        texts.mkdir(parents=True)
        for number, passage in enumerate(passages(paragraphs_of(options.texts), options.count, options.seed)):
            (texts / f"{number:04}.txt").write_text(passage + "\n", encoding="utf-8")
        file = create(folder, texts, options.base, INSTRUCTIONS)
        teacher = f'[teacher]\nmodel = "local"\ngguf = "{options.teacher.resolve()}"\n'
        content = re.sub(r"\[teacher\].*?\n\n", teacher + "\n", file.read_text(), flags=re.DOTALL)
        settings = f"epochs = {options.epochs}\nseed = {options.seed}\n"
        file.write_text(content.replace("\n[teacher]", f"test_share = {options.test}\n\n[teacher]", 1) + settings)
    project = ToneProject.open(folder)
    kept, findings = lint(read_texts(project.texts))
    print(f"{folder}: {len(kept)} passages, {len(findings)} left out", flush=True)
    at = time.perf_counter()
    with project.store() as store:
        ask(project, store, kept, on_progress=show)
        found = pairs(store, kept)
    print(f"{len(found)} requests in {time.perf_counter() - at:.0f} s, such as: {found[0].request}", flush=True)
    if options.until == "requests":
        return
    at = time.perf_counter()
    if not (project.model / "manifest.json").is_file():
        manifest = train(project, on_progress=show)
        training = manifest.training
        print(
            f"trained on {training['train_rows']} conversations in {time.perf_counter() - at:.0f} s: loss on held-out texts "
            f"{training['base_dev_loss']:.3f} before, {training['dev_loss']:.3f} after",
            flush=True,
        )
    if options.until == "train":
        return
    at = time.perf_counter()
    report, trained = evaluate(project, max_samples=options.max_samples, on_progress=show)
    _show_report(report)
    write_page(
        project.reports / "compare.html", report.samples, [pair.text.content for pair in trained[:2]], options.seed
    )
    print(
        f"measured in {time.perf_counter() - at:.0f} s; {project.reports / 'compare.html'} compares them blindly",
        flush=True,
    )
    for sample in report.samples[:3]:
        print(
            f"\n{sample.request}\n  prompted: {sample.prompted[:300]}\n  tuned: {sample.tuned[:300]}\n  author: {sample.author[:300]}"
        )


if __name__ == "__main__":
    main()
