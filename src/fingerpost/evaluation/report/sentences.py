"""The report's findings as sentences, and its figures as table cells."""

from __future__ import annotations

from fingerpost.evaluation.formatting import p_value, percent_with_interval, ratio, with_interval
from fingerpost.evaluation.results import Interval, LabelQuality, ModelReport, Pair, Report


def interval(estimate: Interval | None) -> str:
    """An estimate and its confidence interval."""
    return ratio(None) if estimate is None else with_interval(estimate.value, estimate.low, estimate.high)


def percent(estimate: Interval | None) -> str:
    """An estimate and its confidence interval, in per cent."""
    return ratio(None) if estimate is None else percent_with_interval(estimate.value, estimate.low, estimate.high)


def accuracy(model: ModelReport) -> str:
    """A model's accuracy with its interval."""
    return with_interval(model.accuracy, model.accuracy_low, model.accuracy_high)


def macro_f1(model: ModelReport) -> str:
    """A model's macro F1 with its interval."""
    return with_interval(model.macro_f1, model.macro_f1_low, model.macro_f1_high)


def label_quality(quality: LabelQuality) -> str:
    """How accurate the training labels are."""
    return (
        f"training labels, measured on {quality.n:,} test rows that nothing was learnt from: the teacher's are right on "
        f"{interval(quality.teacher)}, the consensus on {interval(quality.consensus)}; only the consensus is right on "
        f"{quality.only_consensus_right} rows, only the teacher on {quality.only_teacher_right}, {p_value(quality.p)}"
    )


def comparison(pair: Pair) -> str:
    """A paired test of two models."""
    better = pair.a if pair.only_a_right > pair.only_b_right else pair.b
    worse = pair.b if better == pair.a else pair.a
    more, fewer = max(pair.only_a_right, pair.only_b_right), min(pair.only_a_right, pair.only_b_right)
    if more == fewer:
        return f"{pair.a} and {pair.b} are equally accurate: each alone is right on {more} of {pair.n:,} rows; {p_value(pair.p)}"
    significant = "is better than" if pair.p_holm < 0.05 else "is not significantly better than"
    return (
        f"{better} {significant} {worse}: only {better} is right on {more} rows, only {worse} on {fewer}, of {pair.n:,}; "
        f"{p_value(pair.p)}, corrected {p_value(pair.p_holm).removeprefix('p ').removeprefix('= ')}"
    )


def warnings(report: Report) -> list[str]:
    """One sentence for each cascade that is less accurate than its student, and each student that is not significantly better
    than the baseline.
    """
    return [*_harmful_cascades(report), *_no_better_than_baseline(report)]


def _harmful_cascades(report: Report) -> list[str]:
    found = []
    for model in report.models:
        student = next((other for other in report.students if model.name.startswith(f"{other.name}+")), None)
        if model.role != "cascade" or student is None or model.accuracy is None or student.accuracy is None:
            continue
        if model.accuracy < student.accuracy:
            found.append(
                f"{model.name} is less accurate than {student.name} alone: right on {round(model.accuracy * model.n):,} and "
                f"{round(student.accuracy * student.n):,} of {model.n:,} rows; on these rows, asking the teacher costs accuracy"
            )
    return found


def _no_better_than_baseline(report: Report) -> list[str]:
    baseline = report.baseline
    if baseline is None or baseline.accuracy is None:
        return []
    return [
        f"{student.name} is not significantly better than the baseline, {baseline.name}: accuracy "
        f"{ratio(student.accuracy)} and {ratio(baseline.accuracy)}"
        for student in report.students
        if not report.significant(student.name, baseline.name)
    ]


def tiers(model: ModelReport) -> str:
    """Share and accuracy of a student's tiers."""
    rest = f"; on the rest, all views: {interval(model.whole_accuracy)}" if model.whole_accuracy else ""
    share = model.fast_share.value if model.fast_share else 0.0
    return f"{model.name}: its fast tier answered {share:.0%} of rows, accuracy {interval(model.fast_accuracy)}{rest}"


def break_even(name: str, requests: int, spent_usd: float) -> str:
    """When a student has paid for its labels."""
    return f"{name} has saved what labelling cost (${spent_usd:.2f}) after {requests:,} requests"
