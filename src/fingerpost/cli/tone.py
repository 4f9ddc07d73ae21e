"""The commands `tone …`: from a person's texts to a language model that writes in their voice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fingerpost.cli.console import console, next_step, say
from fingerpost.cli.exit_codes import BUDGET, INTERRUPTED
from fingerpost.cli.help import epilog
from fingerpost.cli.options import Budget, Yes
from fingerpost.cli.progress import showing_progress
from fingerpost.core.errors import InputError
from fingerpost.core.utils import require_extra

if TYPE_CHECKING:
    from fingerpost.tone.evaluate import ToneReport
    from fingerpost.tone.texts import Finding

SHOWN = 3
"""Findings, pairs or copies that are printed."""
FEW_TEXTS = 50
tone = typer.Typer(
    help="Train a language model to write in a person's voice.",
    epilog=epilog("tone"),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
ProjectFolder = Annotated[Path, typer.Argument(metavar="PROJECT", help="The project's folder.")]


@tone.command()
def init(
    project: ProjectFolder,
    texts: Annotated[Path, typer.Option(help="The folder of the author's texts: .txt and .md files.")],
    base: Annotated[str, typer.Option(help="The base language model: a GGUF file, a folder, or a hub name.")],
    instructions: Annotated[str | None, typer.Option(help="The system prompt that asks for the voice.")] = None,
) -> None:
    """Write a commented task.toml."""
    from fingerpost.tone.project import create

    print(f"{create(project, texts, base, instructions)}: check the system prompt and the teacher")
    next_step(f"fingerpost tone check {project}", f"fingerpost tone requests {project} --budget 5")


@tone.command()
def check(project: ProjectFolder) -> None:
    """Show which texts would teach something else than the voice. They are left out."""
    require_extra("train", "checking texts")
    from fingerpost.tone.project import ToneProject
    from fingerpost.tone.texts import lint, read_texts

    opened = ToneProject.open(project)
    texts = read_texts(opened.texts)
    kept, findings = lint(texts, opened.task.excluded_names)
    _show_findings(findings)
    words = sum(len(text.content.split()) for text in kept)
    print(f"{len(kept):,} of {len(texts):,} texts to learn from, {words:,} words")
    if len(kept) < FEW_TEXTS:
        print(f"fewer than {FEW_TEXTS} texts show a voice poorly; add more texts")
    next_step(f"fingerpost tone requests {project} --budget 5")


def _show_findings(findings: list[Finding]) -> None:
    from fingerpost.tone.texts import KINDS

    for kind, count in Counter(finding.kind for finding in findings).most_common():
        say(f"left out, {kind}: {count:,} ({KINDS[kind]})")
        for finding in [finding for finding in findings if finding.kind == kind][:SHOWN]:
            say(f"  {finding.name}: {finding.shown}")


@tone.command()
def requests(project: ProjectFolder, budget: float | None = Budget, yes: bool = Yes) -> None:
    """Have the teacher write the request that each text answers."""
    require_extra("train", "checking texts")
    from fingerpost.cli.console import confirm_teacher_price
    from fingerpost.tone.project import ToneProject
    from fingerpost.tone.requests import as_line, ask, pairs, plan, shown
    from fingerpost.tone.texts import lint, read_texts

    opened = ToneProject.open(project)
    kept, findings = lint(read_texts(opened.texts), opened.task.excluded_names)
    if findings:
        print(f"{len(findings):,} texts are left out; 'fingerpost tone check {project}' says why")
    with opened.store() as store:
        planned = plan(opened, store, kept)
        if planned.open and opened.task.teacher is not None:
            print(f"{len(planned.open):,} requests to write")
            confirm_teacher_price(opened.task.teacher, None, planned.at_most_usd, budget, yes)
        with showing_progress("requests") as show:
            progress = ask(opened, store, kept, budget_usd=budget, on_progress=show)
        found = pairs(store, kept)
    file = opened.folder / "pairs.jsonl"
    file.write_text("".join(as_line(opened.task.instructions, pair) for pair in found), encoding="utf-8")
    for pair in found[:SHOWN]:
        say(shown(pair))
    unusable = (
        "" if progress is None or not progress.unusable else f", {progress.unusable:,} replies without a usable request"
    )
    print(f"{file}: {len(found):,} of {len(kept):,} texts have a request{unusable}")
    if progress is not None and progress.stopped:
        print(
            "not finished: run the command again" + (", with a higher --budget" if progress.stopped == "budget" else "")
        )
        raise typer.Exit(BUDGET if progress.stopped == "budget" else INTERRUPTED)
    next_step(f"fingerpost tone train {project}")


@tone.command()
def train(project: ProjectFolder) -> None:
    """Train the language model on the pairs of request and text."""
    require_extra("lora", "training a language model")
    from fingerpost.tone.project import ToneProject
    from fingerpost.tone.train import train as train_tone

    opened = ToneProject.open(project)
    with showing_progress("train") as show:
        manifest = train_tone(opened, on_progress=show)
    training = manifest.training
    say(
        f"{opened.model}: {training['train_rows'] - training['general_rows']:,} texts and {training['general_rows']:,} general answers; "
        f"loss on held-out texts {training['dev_loss']:.3f}, {training['base_dev_loss']:.3f} before; {training['tuning_seconds']:.0f} s"
    )
    next_step(f"fingerpost tone evaluate {project}", f"fingerpost serve {opened.model}")


@tone.command()
def evaluate(
    project: ProjectFolder,
    max_samples: Annotated[
        int, typer.Option(min=10, help="At most so many test requests are answered by both models.")
    ] = 60,
) -> None:
    """Measure the voice on texts that were not trained on, and write a page for a blind comparison."""
    require_extra("lora", "measuring a language model")
    from fingerpost.tone.judge import FILE, write_page
    from fingerpost.tone.project import ToneProject
    from fingerpost.tone.train import evaluate as evaluate_tone

    opened = ToneProject.open(project)
    with showing_progress("evaluate") as show:
        report, trained = evaluate_tone(opened, max_samples=max_samples, on_progress=show)
    _show_report(report)
    page = opened.reports / FILE
    write_page(page, report.samples, [pair.text.content for pair in trained[:2]], opened.task.student.seed)
    print(f"{opened.reports / 'tone.json'}: all figures and texts")
    print(f"{page}: a blind comparison for people; open it in a browser")
    next_step(f"fingerpost tone count-choices {project} choices.json", f"fingerpost serve {opened.model}")


def _show_report(report: ToneReport) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("on texts that were not trained on", "prompted base", "tuned"):
        table.add_column(column, justify="left" if not table.columns else "right")
    table.add_row("loss on the author's texts, nats per token", f"{report.base_loss:.3f}", f"{report.tuned_loss:.3f}")
    told = [
        f"{100 * interval.value:.0f} % ({100 * interval.low:.0f} to {100 * interval.high:.0f})"
        for interval in (report.base_detection, report.tuned_detection)
    ]
    table.add_row("told from the author's by a classifier", *told)
    if report.general_before is not None and report.general_after is not None:
        table.add_row(
            "loss on general answers, nats per token", f"{report.general_before:.3f}", f"{report.general_after:.3f}"
        )
    table.add_row("near-copies of training texts", "", f"{len(report.copies)} of {report.tests}")
    console().print(table)
    print(f"the classifier saw {report.tests} texts of each; 50 % is chance")
    for text, shared in report.copies[:SHOWN]:
        say(f"near-copy, {shared} words in a row as in a training text: {' '.join(text.split())[:100]}")


@tone.command("count-choices")
def count_choices(
    project: ProjectFolder,
    files: Annotated[list[Path], typer.Argument(help="The files that the page saved.")],
) -> None:
    """Count the choices of a blind comparison, with the sign test."""
    require_extra("train", "the sign test")
    from fingerpost.tone.judge import judge
    from fingerpost.tone.project import ToneProject

    opened = ToneProject.open(project)
    report = opened.reports / "tone.json"
    if not report.is_file():
        raise InputError(f"there is no {report}; run 'fingerpost tone evaluate {project}' first")
    import json

    samples = json.loads(report.read_text(encoding="utf-8"))["samples"]
    found = judge(files, [sample["tuned"] for sample in samples], opened.task.student.seed)
    print(
        f"tuned {found.tuned:,}, prompted base {found.prompted:,}, no difference {found.ties:,}; "
        f"sign test p = {found.p_value:.4f}"
    )
