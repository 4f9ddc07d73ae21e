"""The report as one HTML file without scripts or network access."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from fingerpost.evaluation import formatting
from fingerpost.evaluation.report import charts, sentences
from fingerpost.evaluation.results import DataReport, Report

MISTAKES = 60


def render(report: Report) -> str:
    """The whole page. Texts of users are escaped."""
    environment = Environment(
        loader=PackageLoader("fingerpost.evaluation", "report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html.jinja").render(
        report=report,
        parts=[
            DataReport(source="all test rows", n=report.n, models=report.models, pairs=report.pairs),
            *report.by_source,
        ],
        student=report.student,
        teacher=report.teacher,
        headline=_headline(report),
        charts={name: Markup(svg) for name, svg in charts.draw(report).items()},
        sentences=sentences,
        formatting=formatting,
        shown=MISTAKES,
    )


def _headline(report: Report) -> str:
    """The result in one sentence."""
    students = [model for model in report.students if model.accuracy is not None]
    if not students:
        return f"There are no human labels: only the agreement with the teacher is measured, on {report.n:,} rows."
    best = max(students, key=lambda model: model.accuracy or 0.0)
    teacher = report.teacher
    text = f"{best.name} is right on {best.accuracy:.1%} of {best.n:,} test rows"
    if teacher is None:
        return text + "."
    pair = next(pair for pair in report.pairs if {pair.a, pair.b} == {best.name, teacher.name})
    gap = 100 * ((best.accuracy or 0.0) - (teacher.accuracy or 0.0))
    caveat = "" if pair.p_holm < 0.05 else ", which may be chance"
    return f"{text}, its teacher on {teacher.accuracy:.1%}: {gap:+.1f} points ({formatting.p_value(pair.p)}, McNemar){caveat}."
