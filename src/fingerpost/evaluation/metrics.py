"""Metrics with 95 % confidence intervals, from arrays. Needs the extra `train`.

Labels are integers, shape (rows,). In a model's answers, -1 means that it named no label; it is always wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from fingerpost.evaluation.results import CoveragePoint, Interval, LabelScore, Reliability

Labels = NDArray[np.int64]
Right = NDArray[np.bool_]
"""Whether a model is right, by row."""
Sets: TypeAlias = NDArray[np.bool_]
"""Which labels each row has, shape (rows, labels)."""
LEVEL = 0.95
RESAMPLES = 1_000
BINS = 10


def proportion(right: Right) -> Interval:
    """Fraction of True, with Wilson's score interval (Wilson 1927). Needs at least one row."""
    low, high = proportion_confint(int(right.sum()), len(right), alpha=1 - LEVEL, method="wilson")
    return Interval(value=float(right.mean()), low=float(low), high=float(high))


def prediction_powered(proxy: Right, proxy_judged: Right, judged: Right) -> Interval:
    """A rate on rows of which only a random sample was judged, with the help of a cheap proxy of the judgement on all rows.

    Source: power-tuned prediction-powered inference (Angelopoulos, Duchi and Zrnic 2023, "PPI++"), with a normal interval.

    Args:
        proxy: the proxy on the rows that were not judged, such as whether two models agree.
        proxy_judged, judged: the proxy, and the judgement, on the rows of the sample; at least two.
    """
    n, rest = len(judged), len(proxy)
    truth, known, other = judged.astype(float), proxy_judged.astype(float), proxy.astype(float)
    spread = float(np.concatenate([known, other]).var(ddof=1))
    weight = 0.0
    if rest > 1 and spread > 0:
        weight = float(np.clip(np.cov(truth, known)[0, 1] / (spread * (1 + n / rest)), 0, 1))
    value = float(truth.mean() + weight * ((other.mean() if rest else 0.0) - known.mean()))
    # A small sample may show no difference although there is one: no less variance than with two more rows of each kind
    # (Agresti and Coull 1998).
    differing, right = (truth != known).sum(), truth.sum()
    shares = [(count + 2) / (n + 4) for count in (differing, right)]
    least = weight * shares[0] * (1 - shares[0]) + (1 - weight) * shares[1] * (1 - shares[1])
    variance = max(float((truth - weight * known).var(ddof=1)), float(least)) / n
    variance += weight**2 * float(other.var(ddof=1)) / rest if rest > 1 else 0.0
    half = float(stats.norm.ppf((1 + LEVEL) / 2)) * variance**0.5
    return Interval(value=min(1.0, max(0.0, value)), low=max(0.0, value - half), high=min(1.0, value + half))


def confusion(gold: Labels, answers: Labels, labels: int) -> NDArray[np.int64]:
    """Confusion matrix, shape (labels, labels + 1): rows are gold labels, columns are answers, the last for "no label"."""
    columns = np.where(answers < 0, labels, answers)
    matrix: NDArray[np.int64] = confusion_matrix(gold, columns, labels=np.arange(labels + 1))[:labels]
    return matrix


def macro_f1(matrix: NDArray[np.int64], seed: int = 0) -> Interval:
    """Mean F1 over the labels with at least one gold row, with a bootstrap percentile interval.

    Resampling rows is the same as drawing the confusion matrix from a multinomial distribution, which is faster
    (Efron & Tibshirani 1993, chapter 13).

    Args:
        matrix: from `confusion`.
    """
    return _resampled(matrix, _f1, seed)


def _f1(matrices: NDArray[np.int64]) -> NDArray[np.float64]:
    size = matrices.shape[1]
    hits = matrices[:, np.arange(size), np.arange(size)]
    gold, answered = matrices.sum(2), matrices[:, :, :size].sum(1)
    f1 = 2 * hits / np.maximum(gold + answered, 1)
    occurs = gold > 0
    mean: NDArray[np.float64] = (f1 * occurs).sum(1) / np.maximum(occurs.sum(1), 1)
    return mean


def by_label(gold: Labels, answers: Labels, names: Sequence[str]) -> list[LabelScore]:
    """Precision, recall and F1 of each label, in the order of `names`; 0 where undefined."""
    scores = precision_recall_fscore_support(gold, answers, labels=np.arange(len(names)), zero_division=0.0)
    return [
        LabelScore(label=name, n=int(n), precision=float(p), recall=float(r), f1=float(f))
        for name, p, r, f, n in zip(names, *scores, strict=True)
    ]


def cohen_kappa(one: Labels, other: Labels, labels: int, seed: int = 0) -> Interval:
    """Cohen's kappa of two people who labelled the same rows (Cohen 1960), with a bootstrap percentile interval.

    Args:
        labels: number of labels.
    """
    matrix: NDArray[np.int64] = confusion_matrix(one, other, labels=np.arange(labels))
    total = int(matrix.sum())

    def kappa(matrices: NDArray[np.int64]) -> NDArray[np.float64]:
        agreed = np.trace(matrices, axis1=1, axis2=2) / total
        by_chance = (matrices.sum(2) * matrices.sum(1)).sum(1) / total**2
        result: NDArray[np.float64] = np.divide(
            agreed - by_chance, 1 - by_chance, out=np.ones(len(matrices)), where=by_chance < 1
        )
        return result

    return _resampled(matrix, kappa, seed)


def quadratic_kappa(matrix: NDArray[np.int64], seed: int = 0) -> Interval:
    """Quadratic weighted kappa (Cohen 1968) of ordered labels, with a bootstrap percentile interval.

    1 where all answers are right, 0 where they are as far off as by chance. A row without an answer counts as far off as
    possible.

    Args:
        matrix: from `confusion`.
    """
    total, size = int(matrix.sum()), len(matrix)
    weights = (_distances(size) / max(1, size - 1)) ** 2

    def kappa(matrices: NDArray[np.int64]) -> NDArray[np.float64]:
        expected = np.einsum("ri,rj->rij", matrices.sum(2), matrices.sum(1)) / total
        observed, by_chance = (weights * matrices).sum((1, 2)), (weights * expected).sum((1, 2))
        result: NDArray[np.float64] = 1 - np.divide(
            observed, by_chance, out=np.zeros_like(observed, dtype=np.float64), where=by_chance > 0
        )
        return result

    return _resampled(matrix, kappa, seed)


def mean_absolute_error(matrix: NDArray[np.int64], seed: int = 0) -> Interval:
    """The mean distance of ordered labels from the right ones, in levels, with a bootstrap percentile interval.

    A row without an answer counts as far off as possible.

    Args:
        matrix: from `confusion`.
    """
    total, distances = int(matrix.sum()), _distances(len(matrix))
    return _resampled(matrix, lambda drawn: (distances * drawn).sum((1, 2)) / total, seed)


def _distances(size: int) -> NDArray[np.float64]:
    """The distance of each answer, the last being "no label", from each right label; shape (size, size + 1)."""
    levels = np.arange(size)
    known = np.abs(levels[:, None] - levels[None, :])
    return np.concatenate([known, known.max(1, keepdims=True)], axis=1).astype(np.float64)


def _resampled(
    matrix: NDArray[np.int64], score: Callable[[NDArray[np.int64]], NDArray[np.float64]], seed: int
) -> Interval:
    """A score of confusion matrices, and its percentile interval over matrices drawn like this one; see `macro_f1`."""
    total = int(matrix.sum())
    drawn = np.random.default_rng(seed).multinomial(total, (matrix / total).ravel(), size=RESAMPLES)
    low, high = np.quantile(score(drawn.reshape(-1, *matrix.shape)), [0.025, 0.975])
    return Interval(value=float(score(matrix[None])[0]), low=float(low), high=float(high))


def error_reduction(base: Right, model: Right, seed: int = 0) -> Interval | None:
    """Relative error reduction, (errors of base - errors of model) / errors of base.

    With a paired bootstrap percentile interval over rows. Where the model makes no error, the lower end comes from the Wilson
    interval of its accuracy. None where the base makes no error.
    """
    if base.all():
        return None
    cells = np.array([(base & model).sum(), (base & ~model).sum(), (~base & model).sum(), (~base & ~model).sum()])
    drawn = np.random.default_rng(seed).multinomial(len(base), cells / len(base), size=RESAMPLES)

    def reduction(counts: NDArray[np.int64]) -> NDArray[np.float64]:
        errors = counts[:, 2] + counts[:, 3]
        result: NDArray[np.float64] = (counts[:, 2] - counts[:, 1]) / np.maximum(errors, 1)
        return result

    low, high = np.quantile(reduction(drawn), [0.025, 0.975])
    if model.all():  # no resample has an error either, but that does not make the model perfect
        errors = 1 - proportion(model).low
        low = 1 - errors / float((~base).mean())
    return Interval(value=float(reduction(cells[None])[0]), low=float(low), high=float(high))


def f1_of_sets(gold: Sets, answers: Sets, seed: int = 0) -> tuple[Interval, Interval]:
    """Micro and macro F1 of several labels for each row, with bootstrap percentile intervals over rows.

    Labels that neither occur nor are given in a resample are left out of its macro F1.

    Args:
        gold, answers: which labels each row has and gets, shape (rows, labels).
    """
    parts = [part.astype(np.float64) for part in (gold & answers, gold, answers)]

    def scores(counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Micro and macro F1 of each resample, shape (resamples, 2). `counts` has shape (resamples, rows)."""
        hits, positives, given = (counts @ part for part in parts)
        sums = positives + given
        by_label = np.divide(2 * hits, sums, out=np.full_like(hits, np.nan), where=sums > 0)
        occurs = sums > 0
        macro = np.nansum(by_label, axis=1) / np.maximum(1, occurs.sum(1))
        return np.stack([2 * hits.sum(1) / np.maximum(1, sums.sum(1)), macro], axis=1)

    rows = len(gold)
    drawn = np.random.default_rng(seed).multinomial(rows, np.full(rows, 1 / rows), size=RESAMPLES).astype(np.float64)
    value = scores(np.ones((1, rows)))[0]
    low, high = np.quantile(scores(drawn), [0.025, 0.975], axis=0)
    found = [Interval(value=float(v), low=float(a), high=float(b)) for v, a, b in zip(value, low, high, strict=True)]
    return found[0], found[1]


def scores_of_sets(gold: Sets, answers: Sets, labels: Sequence[str]) -> list[LabelScore]:
    """Precision, recall and F1 of each label, from sets of shape (rows, labels)."""
    return [
        LabelScore(
            label=label,
            n=int(gold[:, i].sum()),
            precision=float((gold & answers)[:, i].sum() / max(1, answers[:, i].sum())),
            recall=float((gold & answers)[:, i].sum() / max(1, gold[:, i].sum())),
            f1=float(2 * (gold & answers)[:, i].sum() / max(1, gold[:, i].sum() + answers[:, i].sum())),
        )
        for i, label in enumerate(labels)
    ]


def exact_mcnemar(a: Right, b: Right) -> tuple[int, int, float]:
    """McNemar's exact test (McNemar 1947): rows where only a is right, rows where only b is, two-sided p-value."""
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    table = [[int((a & b).sum()), only_a], [only_b, int((~a & ~b).sum())]]
    return only_a, only_b, float(mcnemar(table, exact=True).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for multiple comparisons (Holm 1979)."""
    return [float(p) for p in multipletests(p_values, method="holm")[1]] if p_values else []


def calibration_error(confidence: NDArray[np.float64], right: Right, seed: int = 0) -> Interval:
    """Expected calibration error in ten equal-width bins (Naeini et al. 2015), with a bootstrap percentile interval."""

    def error(confidence: NDArray[np.float64], right: NDArray[np.float64]) -> float:
        bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
        gaps = np.bincount(bins, weights=confidence - right, minlength=BINS)
        return float(np.abs(gaps).sum() / len(right))

    value = error(confidence, right.astype(float))
    if len(right) < 2:
        return Interval(value=value, low=0.0, high=1.0)
    drawn = stats.bootstrap(
        (confidence, right.astype(float)),
        error,
        paired=True,
        vectorized=False,
        n_resamples=RESAMPLES,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(value=value, low=float(drawn.low), high=float(drawn.high))


def reliability(confidence: NDArray[np.float64], right: Right) -> list[Reliability]:
    """Mean confidence and accuracy in ten equal-width bins of confidence. Empty bins are left out."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return [
        Reliability(
            low=i / BINS,
            high=(i + 1) / BINS,
            n=int((bins == i).sum()),
            confidence=float(confidence[bins == i].mean()),
            accuracy=float(right[bins == i].mean()),
        )
        for i in range(BINS)
        if (bins == i).any()
    ]


def coverage(confidence: NDArray[np.float64], right: Right, steps: int = 20) -> list[CoveragePoint]:
    """Accuracy on the rows whose confidence is at or above a cut-off, for up to `steps` falling cut-offs.

    The last point has all rows.
    """
    order = np.argsort(-confidence, kind="stable")
    points = []
    for step in range(1, steps + 1):
        cutoff = confidence[order[max(1, round(len(order) * step / steps)) - 1]]
        taken = confidence >= cutoff
        points.append(
            CoveragePoint(
                cutoff=float(cutoff),
                coverage=float(taken.mean()),
                n=int(taken.sum()),
                accuracy=proportion(right[taken]),
            )
        )
    return list({point.n: point for point in points}.values())
