"""The report in the terminal."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fingerpost.core.printable import printable
from fingerpost.evaluation.formatting import dollars, milliseconds, ratio
from fingerpost.evaluation.report import sentences
from fingerpost.evaluation.results import KAPPA, MEAN_ERROR, CascadePoint, DataReport, ModelReport, Report

WIDTH = 140  # characters, where the output is not a terminal
STYLES = {"student": "bold", "cascade": "bold", "teacher": "", "base": "dim", "baseline": "dim"}
SHOWN_COVERAGE = 0.8


def show(report: Report) -> None:
    """Print one table for each source of rows, the paired tests and the notes."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    whole = DataReport(source="all test rows", n=report.n, models=report.models, pairs=report.pairs)
    for warning in sentences.warnings(report):
        console.print(_text(f"warning: {warning}", "bold"))
    for part in [whole, *report.by_source]:
        title = f"{report.task}: {part.source}, n = {part.n:,}, against {report.against}, 95 % intervals"
        console.print(_table(title, part.models, report.against == "human labels", report))
    for name, points in report.cascade_curve.items():
        console.print(_curve(name, points))
    for pair in report.pairs:
        console.print(_text(f"  {sentences.comparison(pair)}"))
    for name, count in report.break_even.items():
        console.print(_text(f"  {sentences.break_even(name, count, report.spent_usd)}"))
    for model in report.models:
        if model.role == "student" and model.coverage:
            console.print(_text(f"  {_confident_part(model)}"))
        if model.fast_accuracy:
            console.print(_text(f"  {sentences.tiers(model)}"))
    if report.label_quality is not None:
        console.print(_text(f"  {sentences.label_quality(report.label_quality)}"))
    for note in report.notes:
        console.print(_text(f"  note: {note}"))


def _text(text: str, style: str = "") -> Text:
    """Text without markup and control characters: labels, sources and models have names from outside."""
    return Text(printable(text), style=style)


def _table(title: str, models: list[ModelReport], human_labels: bool, report: Report) -> Table:
    cascade = any(model.role == "cascade" for model in models)
    table = Table(title=_text(title), title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    measured = ["exact match", "micro F1"] if report.multi else ["accuracy"]
    measured += [KAPPA, MEAN_ERROR] if report.ordinal else []
    for heading in ["model", *measured, "macro F1", "error reduction"] if human_labels else ["model"]:
        table.add_column(heading)
    headings = ["agreement", "calib. error", "p50", "per 1,000"]
    for heading in [*headings, "to teacher"] if cascade else headings:
        table.add_column(heading, justify="right")
    for model in models:
        cells: list[str | Text] = [_text(model.name, STYLES[model.role])]
        if human_labels:
            cells += [sentences.accuracy(model), *([sentences.interval(model.micro_f1)] if report.multi else [])]
            if report.ordinal:
                cells += [sentences.interval(model.kappa), sentences.interval(model.mean_absolute_error)]
            cells += [ratio(model.macro_f1), sentences.percent(model.error_reduction)]
        cells += [
            ratio(model.agreement.value if model.agreement else None),
            ratio(model.calibration_error.value if model.calibration_error else None),
            milliseconds(model.latency_p50_ms),
            dollars(model.cost_per_1000_usd),
        ]
        if cascade:
            cells.append(f"{model.teacher_share.value:.0%}" if model.teacher_share else ratio(None))
        table.add_row(*cells)
    return table


def _curve(name: str, points: list[CascadePoint]) -> Table:
    """What each cut-off of a cascade would bring."""
    title = _text(f"{name} with the teacher, by cut-off (to choose one, use dev rows: --accuracy or --agreement)")
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("--cutoff", "teacher asked", "accuracy", "per 1,000"):
        table.add_column(heading, justify="right")
    for point in points:
        table.add_row(
            f"{point.cutoff:.3f}",
            f"{point.asked:.0%}",
            sentences.interval(point.accuracy),
            dollars(point.cost_per_1000_usd),
        )
    return table


def _confident_part(model: ModelReport) -> str:
    """The accuracy on the rows that the model is most confident of."""
    part = min(model.coverage, key=lambda point: abs(point.coverage - SHOWN_COVERAGE))
    return (
        f"{model.name}, on the most confident {part.coverage:.0%} of rows (confidence from {part.cutoff:.2f}): "
        f"accuracy {sentences.interval(part.accuracy)}, n = {part.n:,}"
    )
