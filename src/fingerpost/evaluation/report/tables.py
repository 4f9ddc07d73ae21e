"""The report in the terminal."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fingerpost.evaluation.report import words
from fingerpost.evaluation.results import DataReport, ModelReport, Report

WIDTH = 132  # where the output is no terminal


def show(report: Report) -> None:
    """Print one table for each set of rows, the paired tests, and what is worth knowing besides."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    whole = DataReport(source="all test rows", n=report.n, models=report.models, pairs=report.pairs)
    for part in [whole, *report.by_source]:
        title = f"{report.task}: {part.source}, n = {part.n:,}, against {report.against}, 95 % intervals"
        console.print(_table(title, part.models, report.against == "human labels"))
    for pair in report.pairs:
        console.print(Text(f"  {words.verdict(pair)}"))
    for name, count in report.break_even.items():
        console.print(
            f"  {name} has paid for the labelling (${report.spent_usd:.2f}) after {count:,} requests that the teacher "
            "does not get"
        )
    for model in report.models:
        if model.role == "student" and model.coverage:
            console.print(Text(f"  {_cut_off(model)}"))
    if report.label_quality is not None:
        console.print(Text(f"  {words.labels(report.label_quality)}"))
    for note in report.notes:
        console.print(Text(f"  note: {note}"))


def _table(title: str, models: list[ModelReport], gold: bool) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ["model", "accuracy", "macro F1", "errors gone"] if gold else ["model"]:
        table.add_column(heading)
    for heading in ["agrees w. teacher", "calib. error", "p50", "per 1,000"]:
        table.add_column(heading, justify="right")
    for model in models:
        name = Text(model.name, style={"student": "bold", "teacher": "", "base": "dim"}[model.role])
        cells: list[str | Text] = [name]
        if gold:
            cells += [
                words.between(model.accuracy, model.accuracy_low, model.accuracy_high),
                words.share(model.macro_f1),
                words.percent(model.error_reduction),
            ]
        calibration = model.calibration_error.value if model.calibration_error else None
        agreement = model.agreement.value if model.agreement else None
        cells += [
            words.share(agreement),
            words.share(calibration),
            words.milliseconds(model.latency_p50_ms),
            words.dollars(model),
        ]
        table.add_row(*cells)
    return table


def _cut_off(model: ModelReport) -> str:
    """What the model reaches on the half that it is surest of."""
    half = min(model.coverage, key=lambda point: abs(point.coverage - 0.8))
    return (
        f"{model.name}, on the {half.coverage:.0%} it is surest of (confidence from {half.cutoff:.2f}): "
        f"accuracy {words.interval(half.accuracy)}, n = {half.n:,}"
    )
