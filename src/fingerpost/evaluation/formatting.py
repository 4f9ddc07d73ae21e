"""Figures as text, with the same rounding in the terminal, on the page and in a notebook."""

from __future__ import annotations

MISSING = "–"


def ratio(value: float | None) -> str:
    """0.8423 as 0.842."""
    return MISSING if value is None else f"{value:.3f}"


def with_interval(value: float | None, low: float | None, high: float | None) -> str:
    """An estimate and its confidence interval, as 0.842 [0.821, 0.861]."""
    return MISSING if value is None or low is None or high is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def percent_with_interval(value: float | None, low: float | None, high: float | None) -> str:
    """The same in per cent, as 35% [24%, 47%]."""
    return MISSING if value is None or low is None or high is None else f"{value:.0%} [{low:.0%}, {high:.0%}]"


def milliseconds(value: float | None) -> str:
    """A latency."""
    if value is None:
        return MISSING
    return f"{value:.1f} ms" if value < 100 else f"{value:,.0f} ms"


def dollars(value: float | None) -> str:
    """A cost in US dollars; a student's is zero, because it runs on the user's own machine."""
    if value is None:
        return MISSING
    return "$0" if value == 0 else f"${value:.4f}" if value < 1 else f"${value:,.2f}"


def p_value(p: float) -> str:
    """The p-value of a test."""
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.4f}"
