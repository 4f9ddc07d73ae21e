"""The report's charts as SVG, so that the page needs no script and no network."""

from __future__ import annotations

import textwrap
from typing import Any

import altair as alt
import vl_convert

from fingerpost.core.printable import printable
from fingerpost.evaluation.formatting import milliseconds
from fingerpost.evaluation.results import DataReport, ModelReport, Report

COLOURS = {"base": "#9aa5b1", "baseline": "#57606a", "teacher": "#d9822b", "student": "#1f6feb", "cascade": "#8250df"}
FONT = "Helvetica, Arial, sans-serif"
MANY_LABELS = 25
WIDTH = 28
"""Characters of a model's name in a line of a chart."""
ROW = 28
"""Height of a model's row in a chart, in pixels."""


def draw(report: Report) -> dict[str, str]:
    """SVG by chart name. Charts without data are left out."""
    students = [model for model in report.models if model.role == "student"]
    charts = {
        "accuracy": _accuracy(report),
        "cost": _cost(report.models),
        "confusion": _confusion(students[0], report.labels) if students else None,
        "reliability": _reliability(report.models),
        "coverage": _coverage(report),
        "curve": _curve(report),
    }
    drawn = {name: _svg(chart) for name, chart in charts.items() if chart is not None}
    return {**drawn, "cost_varies": "yes"} if cost_varies(report.models) else drawn


def _svg(chart: Any) -> str:
    styled = (
        chart.configure(font=FONT, background="transparent")
        .configure_view(stroke=None)
        .configure_axis(
            grid=True,
            gridColor="#eceff3",
            domainColor="#c5ccd5",
            tickColor="#c5ccd5",
            labelFontSize=12,
            titleFontSize=12,
            titleFontWeight="normal",
            titleColor="#57606a",
            labelLimit=240,
        )
        .configure_legend(labelFontSize=12, title=None, orient="top")
        .configure_header(labelFontSize=13, title=None)
    )
    return str(vl_convert.vegalite_to_svg(_printable_texts(styled.to_dict())))


def _printable_texts(value: Any) -> Any:
    """A chart whose texts can stand in SVG: on control characters in a label, the converter ends the process."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {_printable_texts(key): _printable_texts(part) for key, part in value.items()}
    return [_printable_texts(part) for part in value] if isinstance(value, list) else value


def _colour(models: list[ModelReport], legend: bool = False) -> Any:
    return alt.Color(
        "model:N",
        scale=alt.Scale(domain=[_wrapped(model.name) for model in models], range=_range(models)),
        legend=alt.Legend(symbolType="circle", labelLimit=0, columns=2, labelExpr="split(datum.label, '\\n')")
        if legend
        else None,
    )


def _range(models: list[ModelReport]) -> list[str]:
    """One colour for each model; the first student is blue."""
    further = iter(["#1f6feb", "#2da44e", "#8250df", "#0a7ea4", "#bf3989"])
    return [next(further, "#1f6feb") if model.role == "student" else COLOURS[model.role] for model in models]


def _accuracy(report: Report) -> Any:
    if report.models[0].accuracy is None:
        return None
    parts = [DataReport(source="all", n=report.n, models=report.models, pairs=[]), *report.by_source]
    rows = [
        {
            "model": _wrapped(model.name),
            "rows": f"{part.source}, n = {part.n:,}",
            "accuracy": model.accuracy,
            "low": model.accuracy_low,
            "high": model.accuracy_high,
            "text": f"{model.accuracy:.3f}",
        }
        for part in parts
        for model in part.models
    ]
    order = [_wrapped(model.name) for model in report.models]
    scale = alt.Scale(domain=[0, 1])
    y = alt.Y("model:N", sort=order, title=None, axis=_model_axis())
    base = alt.Chart(alt.Data(values=rows)).encode(y=y)
    bars = base.mark_bar(height=18, cornerRadiusEnd=3).encode(
        x=alt.X("accuracy:Q", scale=scale, title="accuracy, with 95 % interval"), color=_colour(report.models)
    )
    lines = base.mark_rule(strokeWidth=1.6, color="#24292f").encode(x="low:Q", x2="high:Q")
    texts = base.mark_text(align="left", dx=6, fontSize=12).encode(x="high:Q", text="text:N")
    return (
        (bars + lines + texts)
        .properties(width=520, height=ROW * _lines(order) * len(order))
        .facet(
            row=alt.Row(
                "rows:N",
                sort=[f"{part.source}, n = {part.n:,}" for part in parts],
                header=alt.Header(labelAngle=0, labelAlign="left", labelOrient="top"),
            ),
            spacing=14,
        )
    )


def cost_varies(models: list[ModelReport]) -> bool:
    """Whether the models' costs are known and differ, so that a chart of them says something."""
    return len({model.cost_per_1000_usd for model in models if model.cost_per_1000_usd is not None}) > 1


def _cost(models: list[ModelReport]) -> Any:
    """Cost and latency; where costs are equal or not known, latency alone."""
    timed = [model for model in models if model.latency_p50_ms]
    if not timed:
        return None
    if not cost_varies(timed):
        return _latency(timed)
    rows = [
        {"model": _wrapped(model.name), "latency": model.latency_p50_ms, "cost": model.cost_per_1000_usd}
        for model in timed
        if model.cost_per_1000_usd is not None
    ]
    x = alt.X(
        "latency:Q",
        scale=alt.Scale(type="log", nice=True, padding=40),
        title="latency p50, milliseconds (log)",
    )
    y = alt.Y("cost:Q", scale=alt.Scale(nice=True, padding=10), title="US dollars per 1,000 answers")
    points = alt.Chart(alt.Data(values=rows)).mark_circle(size=160, opacity=1)
    return points.encode(x=x, y=y, color=_colour(timed, legend=True)).properties(width=440, height=240)


def _latency(models: list[ModelReport]) -> Any:
    rows = [
        {"model": _wrapped(model.name), "latency": model.latency_p50_ms, "text": milliseconds(model.latency_p50_ms)}
        for model in models
    ]
    order = [_wrapped(model.name) for model in models]
    base = alt.Chart(alt.Data(values=rows)).encode(y=alt.Y("model:N", sort=order, title=None, axis=_model_axis()))
    longest = max(model.latency_p50_ms or 0.0 for model in models)
    scale = alt.Scale(type="sqrt", domain=[0, 1.3 * longest], nice=False)
    x = alt.X("latency:Q", scale=scale, title="latency p50, milliseconds (root scale)")
    bars = base.mark_bar(height=18, cornerRadiusEnd=3).encode(x=x, color=_colour(models))
    texts = base.mark_text(align="left", dx=6, fontSize=12).encode(x=x, text="text:N")
    return (bars + texts).properties(width=360, height=ROW * _lines(order) * len(order))


def _wrapped(name: str) -> str:
    """A model's name in lines of at most WIDTH characters, so that charts show all of it."""
    return "\n".join(textwrap.wrap(name, WIDTH)) or name


def _lines(names: list[str]) -> float:
    """How much higher than one line the rows of a chart have to be."""
    return max(1.0, 0.65 * max(name.count("\n") + 1 for name in names))


def _model_axis() -> Any:
    return alt.Axis(labelExpr="split(datum.label, '\\n')", labelLimit=0)


def _confusion(model: ModelReport, labels: list[str]) -> Any:
    if not model.confusion:
        return None
    columns = [*labels, "(none)"] if any(row[-1] for row in model.confusion) else labels
    rows = [
        {"gold": gold, "answer": answer, "n": count, "share": count / max(1, sum(counts))}
        for gold, counts in zip(labels, model.confusion, strict=True)
        for answer, count in zip(columns, counts, strict=False)
        if count
    ]
    step = 30 if len(labels) <= MANY_LABELS else 11
    size = 12 if len(labels) <= MANY_LABELS else 9
    axis = alt.Axis(labelFontSize=size, grid=False, labelOverlap=False)
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X(
            "answer:N",
            sort=columns,
            title="answer",
            axis=axis,
            scale=alt.Scale(domain=columns),
        ),
        y=alt.Y("gold:N", sort=labels, title="human label", axis=axis, scale=alt.Scale(domain=labels)),
    )
    heat = base.mark_rect().encode(
        color=alt.Color("share:Q", scale=alt.Scale(scheme="blues", domain=[0, 1]), legend=None)
    )
    chart = heat
    if len(labels) <= MANY_LABELS:
        chart = heat + base.mark_text(fontSize=11).encode(
            text="n:Q", color=alt.condition("datum.share > 0.5", alt.value("white"), alt.value("#24292f"))
        )
    return chart.properties(width=step * len(columns), height=step * len(labels))


def _reliability(models: list[ModelReport]) -> Any:
    rows = [
        {"model": _wrapped(model.name), "confidence": part.confidence, "accuracy": part.accuracy, "n": part.n}
        for model in models
        for part in model.reliability
    ]
    if not rows:
        return None
    line = (
        alt.Chart(alt.Data(values=[{"x": 0, "y": 0}, {"x": 1, "y": 1}]))
        .mark_line(color="#8c959f", strokeDash=[4, 4], strokeWidth=1)
        .encode(x="x:Q", y="y:Q")
    )
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("confidence:Q", scale=alt.Scale(domain=[0, 1]), title="mean confidence in the bin"),
        y=alt.Y("accuracy:Q", scale=alt.Scale(domain=[0, 1]), title="accuracy in the bin"),
        color=_colour(models, legend=True),
    )
    points = base.mark_circle(opacity=0.9).encode(size=alt.Size("n:Q", legend=None, scale=alt.Scale(range=[30, 300])))
    return (line + base.mark_line(strokeWidth=1.5) + points).properties(width=340, height=300)


def _coverage(report: Report) -> Any:
    rows = [
        {
            "model": _wrapped(model.name),
            "coverage": point.coverage,
            "accuracy": point.accuracy.value,
            "low": point.accuracy.low,
            "high": point.accuracy.high,
        }
        for model in report.models
        if model.role != "base"
        for point in model.coverage
    ]
    if not rows:
        return None
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X(
            "coverage:Q",
            scale=alt.Scale(domain=[0, 1]),
            axis=alt.Axis(format="%"),
            title="share of rows at or above the cut-off",
        ),
        color=_colour([model for model in report.models if model.role != "base"], legend=True),
    )
    band = base.mark_area(opacity=0.15).encode(
        y=alt.Y("low:Q", title="accuracy on these rows", scale=alt.Scale(zero=False)), y2="high:Q"
    )
    return (band + base.mark_line(strokeWidth=2).encode(y="accuracy:Q")).properties(width=380, height=300)


def _curve(report: Report) -> Any:
    if not report.learning_curve:
        return None
    rows = [
        {
            "n": point.n,
            "accuracy": point.accuracy.value,
            "low": point.accuracy.low,
            "high": point.accuracy.high,
        }
        for point in report.learning_curve
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X(
            "n:Q",
            scale=alt.Scale(type="log", nice=False, padding=12),
            title="training examples (log)",
            axis=alt.Axis(values=[row["n"] for row in rows], format=",d"),
        )
    )
    band = base.mark_area(opacity=0.15, color=COLOURS["student"]).encode(
        y=alt.Y("low:Q", scale=alt.Scale(zero=False), title="accuracy on the test rows"), y2="high:Q"
    )
    line = base.mark_line(point=True, color=COLOURS["student"]).encode(y="accuracy:Q")
    teachers = [{"y": model.accuracy, "name": model.name} for model in report.models if model.role == "teacher"]
    rule = alt.Chart(alt.Data(values=teachers)).mark_rule(color=COLOURS["teacher"], strokeDash=[5, 4]).encode(y="y:Q")
    return (band + line + rule).properties(width=440, height=280)
