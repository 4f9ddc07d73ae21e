"""Numbers as words: the same rounding in the terminal and on the page."""

from __future__ import annotations

from fingerpost.evaluation.results import Interval, LabelQuality, ModelReport, Pair


def share(value: float | None) -> str:
    """0.8423 as 0.842."""
    return "–" if value is None else f"{value:.3f}"


def between(value: float | None, low: float | None, high: float | None) -> str:
    """An estimate and its interval."""
    return "–" if value is None or low is None or high is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def interval(given: Interval | None) -> str:
    return "–" if given is None else between(given.value, given.low, given.high)


def percent(given: Interval | None) -> str:
    """An error reduction and its interval, in per cent."""
    return "–" if given is None else f"{given.value:.0%} [{given.low:.0%}, {given.high:.0%}]"


def milliseconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1f} ms" if value < 100 else f"{value:,.0f} ms"


def dollars(model: ModelReport) -> str:
    """Cost per 1,000 answers; a student's is zero, as it runs on the user's own machine."""
    value = model.cost_per_1000_usd
    return "–" if value is None else "$0" if value == 0 else f"${value:.4f}" if value < 1 else f"${value:,.2f}"


def p_value(p: float) -> str:
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.4f}"


def labels(quality: LabelQuality) -> str:
    """How right the labels are that the student learnt from, as a sentence."""
    return (
        f"labels on {quality.n:,} test rows that taught nothing: the teacher's right on {interval(quality.teacher)}, "
        f"the consensus on {interval(quality.consensus)}; consensus alone right on {quality.only_consensus_right} rows, "
        f"the teacher alone on {quality.only_teacher_right}, {p_value(quality.p)}"
    )


def verdict(pair: Pair) -> str:
    """A paired test as a sentence."""
    better = pair.a if pair.only_a_right > pair.only_b_right else pair.b
    worse = pair.b if better == pair.a else pair.a
    more, fewer = max(pair.only_a_right, pair.only_b_right), min(pair.only_a_right, pair.only_b_right)
    if more == fewer:
        return f"{pair.a} and {pair.b}: right alone on {more} rows each of {pair.n:,}; {p_value(pair.p)}"
    sure = "is better than" if pair.p_holm < 0.05 else "is not surely better than"
    return (
        f"{better} {sure} {worse}: right alone on {more} rows against {fewer}, of {pair.n:,}; "
        f"{p_value(pair.p)}, corrected {p_value(pair.p_holm).removeprefix('p ').removeprefix('= ')}"
    )
