"""What a newcomer waits for: a labelled CSV of 300 rows to a model with an honest score, and the first sign of life of
`import` and `predict` on 60,000 rows.

    python benchmarks/first_hour.py

Processor times are those of the command and all of its children. The sign of life is the time until the first character of
progress on a terminal, beside the time until `fingerpost --version` has ended, which is what starting Python takes.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import random
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
TASK = """
name = "first hour"
[labels]
a = "one"
b = "two"
"""


def labelled_rows(count: int) -> list[tuple[str, str]]:
    """(message, human label) of the example."""
    sys.path.insert(0, str(ROOT / "tests"))
    from journeys.files import rows

    found = rows()
    random.Random(0).shuffle(found)
    assert len(found) >= count, len(found)
    return found[:count]


def train(count: int) -> dict[str, float | str]:
    """Train on a file of so many rows, from the command to the printed score."""
    from journeys.files import write

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "tickets.csv", labelled_rows(count), ("text", "label"))
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "fingerpost", "train", "tickets.csv"],
            cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        printed = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, printed
        score = next(line for line in printed.splitlines() if line.startswith("tickets "))
        return {
            "rows": count,
            "processor_s": round(usage.ru_utime + usage.ru_stime, 1),
            "wall_s": round(time.perf_counter() - began, 1),
            "score": " ".join(score.split()[:4]),
        }


def first_sign(arguments: list[str], folder: Path) -> tuple[float, float]:
    """Seconds until something stands on standard error, a terminal; and until the end."""
    ours, theirs = pty.openpty()
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "fingerpost", *arguments], cwd=folder, stdout=subprocess.DEVNULL, stderr=theirs
    )
    os.close(theirs)
    first = None
    while process.poll() is None:
        if select.select([ours], [], [], 0.05)[0]:
            try:
                seen = os.read(ours, 4_096)
            except OSError:
                break
            first = first or (time.perf_counter() - began if seen else None)
    process.wait()
    os.close(ours)
    assert process.returncode == 0 and first is not None
    return first, time.perf_counter() - began


def signs(count: int, model: Path) -> dict[str, dict[str, float]]:
    """The first sign of life of both commands, medians of 3 runs, beside an empty command in the same run."""
    found: dict[str, list[tuple[float, float, float]]] = {"import": [], "predict": []}
    for _ in range(3):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "task.toml").write_text(TASK)
            draw = random.Random(1)
            words = ["".join(draw.choices("abcdefghijklmnop", k=6)) for _ in range(3_000)]
            lines = (f"{' '.join(draw.choices(words, k=9))} {number}\n" for number in range(count))
            (folder / "texts.csv").write_text("text\n" + "".join(lines))
            commands = {
                "import": ["import", "texts.csv"],
                "predict": ["predict", str(model), "texts.csv", "-o", "out.csv"],
            }
            for step, arguments in commands.items():
                began = time.perf_counter()
                subprocess.run([sys.executable, "-m", "fingerpost", "--version"], stdout=subprocess.DEVNULL, check=True)
                found[step].append((time.perf_counter() - began, *first_sign(arguments, folder)))
    names = ("empty_command_s", "first_sign_s", "end_s")
    return {
        step: {name: round(sorted(run[i] for run in runs)[1], 2) for i, name in enumerate(names)}
        for step, runs in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--texts", type=int, default=60_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests"))
    from tiny_encoder import tiny_encoder_folder

    import fingerpost

    report: dict[str, object] = {"train": train(arguments.rows)}
    print(report["train"], flush=True)
    with tempfile.TemporaryDirectory() as name:
        model = Path(name) / "model"
        texts, labels = zip(*labelled_rows(200), strict=True)
        fingerpost.train(texts, labels, folder=model, encoder=str(tiny_encoder_folder()), epochs=0)
        report["signs"] = signs(arguments.texts, model)
    print(report["signs"])
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
