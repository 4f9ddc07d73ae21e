"""Several labels on one text: one yes-or-no decision for each label (binary relevance, Tsoumakas and Katakis 2007).

Targets and probabilities are independent of each other; a row may have no label at all. Both views, their stacking and the
detection of implausible labels work as for one label, with a logistic in place of the softmax.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit
from threadpoolctl import threadpool_limits

from fingerpost.students.denoise import IMPLAUSIBLE_MIX, Rows, Views, head_strength, severity_of
from fingerpost.students.folder import MultiLabel, Stack
from fingerpost.students.lexical import LinearScores, fit_binary_scores
from fingerpost.students.linear import Array, Head, folds_of
from fingerpost.students.stack import fit_label_stack

MAX_ITERATIONS = 100
THRESHOLDS = np.arange(0.05, 0.96, 0.025)
SHARED_POSITIVES = 20.0
"""Each label's threshold also counts the curve of all labels together, with the weight of this many of its rows."""

Folds = Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]


@dataclass(frozen=True, slots=True)
class CleanedLabelSets:
    """Rows with softened targets and reduced weights.

    Attributes:
        targets, weights, plausibility: shape (rows, labels).
        encoder, lexical: scores of each view for rows that it was not fitted to, shape (rows, labels).
        stack: the weights of the views, found on these scores.
    """

    targets: Array
    weights: Array
    plausibility: Array
    encoder: Array
    lexical: Array
    stack: Stack


def fit_label_heads(vectors: Array, targets: Array, weights: Array, strength: float) -> Head:
    """Fit a logistic regression for each label to soft targets, all at once with L-BFGS.

    Args:
        vectors: shape (rows, width).
        targets: independent label probabilities, shape (rows, labels).
        weights: shape (rows, labels).
        strength: C, the inverse of the regularisation strength.
    """
    x, y = np.ascontiguousarray(vectors, dtype=np.float32), np.asarray(targets, dtype=np.float32)
    w = np.asarray(weights, dtype=np.float32)
    width, labels = x.shape[1], y.shape[1]
    scale = strength / len(x)

    def loss_and_gradient(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        matrix, bias = parameters[:-labels].reshape(width, labels), parameters[-labels:]
        values = x @ matrix.astype(np.float32) + bias.astype(np.float32)
        loss = scale * float((w * (np.logaddexp(0, values) - y * values)).sum(dtype=np.float64))
        residual = w * (expit(values) - y)
        gradient = np.empty_like(parameters)
        gradient[:-labels] = (scale * (x.T @ residual) + matrix / len(x)).ravel()
        gradient[-labels:] = scale * residual.sum(0, dtype=np.float64)
        return loss + float((matrix**2).sum()) / (2 * len(x)), gradient

    with threadpool_limits(1):
        found = minimize(
            loss_and_gradient,
            np.zeros((width + 1) * labels),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": MAX_ITERATIONS, "gtol": 1e-5},
        ).x.astype(np.float32)
    return Head(found[:-labels].reshape(width, labels), found[-labels:])


def held_out_scores(rows: Rows, targets: Array, weights: Array, folds: Folds, strength: float) -> tuple[Array, Array]:
    """The scores of both views for rows that they were not fitted to, each of shape (rows, labels).

    Args:
        targets, weights: shape (rows, labels).
        folds: pairs of training rows and held-out rows.
    """
    encoder, lexical = np.zeros_like(targets), np.zeros_like(targets)
    for train, held_out in folds:
        head = fit_label_heads(rows.vectors[train], targets[train], weights[train], strength)
        encoder[held_out] = head.logits(rows.vectors[held_out])
        if rows.ngrams is not None:
            fitted = fit_binary_scores(rows.ngrams[train], targets[train], weights[train])
            lexical[held_out] = fitted.scores(rows.ngrams[held_out])
    return encoder, lexical


def clean_label_sets(given: Rows) -> CleanedLabelSets:
    """Soften the targets and reduce the weights of labels that are implausible on a row, and weigh the views."""
    weights = np.repeat(given.weights[:, None], given.targets.shape[1], axis=1)
    encoder, lexical = held_out_scores(given, given.targets, weights, folds_of(given.groups), head_strength(given))
    stack = fit_label_stack(encoder, lexical, given.targets, weights)
    targets, weights, plausible = soften_label_sets(given, expit(stack.combine(encoder, lexical)))
    return CleanedLabelSets(targets, weights, plausible, encoder, lexical, stack)


def soften_label_sets(given: Rows, predicted: Array) -> tuple[Array, Array, Array]:
    """Softened targets, reduced weights, and the plausibility of the given labels; each of shape (rows, labels).

    Args:
        predicted: probabilities that were predicted without these targets, shape (rows, labels).
    """
    has = given.targets >= 0.5
    others = np.where(has, has.sum(0), (~has).sum(0)) - 1
    agreement = 1 - np.abs(given.targets - predicted)
    plausible = np.minimum(1.0, 2 * agreement / np.maximum(predicted, 1 - predicted))
    severity = severity_of(others)
    plausible = (1 - severity * (1 - plausible)).astype(np.float32)
    mix = severity * IMPLAUSIBLE_MIX * (1 - plausible)
    targets = ((1 - mix) * given.targets + mix * predicted).astype(np.float32)
    return targets, given.weights[:, None] * plausible, plausible


def fit_label_views(rows: Rows, targets: Array, weights: Array, stack: Stack) -> Views:
    """Fit both views. `targets` and `weights` have shape (rows, labels)."""
    lexical: LinearScores | None = None
    if stack.lexical and rows.ngrams is not None:
        lexical = fit_binary_scores(rows.ngrams, targets, weights)
    return Views(fit_label_heads(rows.vectors, targets, weights, head_strength(rows)), lexical, stack)


def choose_thresholds(probabilities: Array, targets: Array) -> MultiLabel:
    """The probability from which on each label is given, and the calibration of the whole set.

    A label's threshold maximises its F1 (Yang 2001), counted together with the F1 of all labels, so that rare labels get
    about the threshold that is best for all.

    Args:
        probabilities: of rows that the model was not fitted to, shape (rows, labels).
        targets: shape (rows, labels).
    """
    has = targets >= 0.5
    given = probabilities[None] >= THRESHOLDS[:, None, None]
    hits, answers, positives = (given & has).sum(1), given.sum(1), has.sum(0)
    weight = SHARED_POSITIVES / max(1.0, float(positives.mean()))
    f1 = 2 * (hits + weight * hits.mean(1, keepdims=True))
    f1 = f1 / (answers + positives + weight * (answers.mean(1, keepdims=True) + positives.mean()) + 1e-9)
    thresholds = THRESHOLDS[f1.argmax(0)]
    found = MultiLabel(thresholds=[round(float(value), 3) for value in thresholds], empty=not has.any(1).all())
    chosen = found.decide(probabilities)
    whole, right = found.confidence(probabilities, chosen), (chosen == has).all(1)

    def loss(log_power: float) -> float:
        probability = np.clip(whole ** np.exp(log_power), 1e-6, 1 - 1e-6)
        return float(-np.where(right, np.log(probability), np.log1p(-probability)).mean())

    power = float(np.exp(minimize_scalar(loss, bounds=(-2, 2), method="bounded").x))
    return found.model_copy(update={"power": round(power, 4)})
