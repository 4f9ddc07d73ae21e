"""Combines the scores of the encoder view and the lexical view into one set of logits, and decides when one is enough.

The logits are weighted sums of both views' scores: a geometric mean of their probabilities. The weights are found by
stacking (Wolpert 1992): they maximise the likelihood of rows that neither view was fitted to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax

from fingerpost.students.cutoff import choose_cutoff
from fingerpost.students.folder import FastTier, Stack
from fingerpost.students.lexical import margins

Array: TypeAlias = NDArray[np.float32]

TYPICAL = (1.0, 2.0)
"""The weights of encoder and lexical view where rows say little. Scores of the lexical view are the smaller ones."""
PRIOR_STRENGTH = 5.0
"""Nats that a weight e times its typical value costs, in a sum over all rows."""
MIN_ROWS = 200
"""With fewer rows, no view is dropped and there is no fast tier."""
CRITERION = 1.0
"""Nats that one more weight has to gain."""
AGREEMENT = 0.99
"""Share of its answers in which the fast tier gives the same label as the whole student, guaranteed at 95 % confidence."""


def fit_stack(encoder: Array, lexical: Array, targets: Array, weights: Array) -> Stack:
    """The weights that maximise the likelihood of the targets. A view that brings nothing gets weight 0.

    A view brings nothing if it adds no more than CRITERION to the log-likelihood that the other one alone has at its own
    best weight (Akaike 1974).

    Args:
        encoder, lexical: scores of each view for rows that it was not fitted to, shape (rows, labels).
        targets: label probabilities, shape (rows, labels).
        weights: shape (rows,).
    """

    def losses_of(logits: NDArray[np.float64]) -> NDArray[np.float64]:
        result: NDArray[np.float64] = -weights * (targets * log_softmax(logits, axis=1)).sum(1)
        return result

    return _select(encoder, lexical, losses_of)


def fit_label_stack(encoder: Array, lexical: Array, targets: Array, weights: Array) -> Stack:
    """The weights and the intercept that maximise the likelihood of independent label probabilities; see `fit_stack`.

    Args:
        encoder, lexical: scores of each view for rows that it was not fitted to, shape (rows, labels).
        targets: independent label probabilities, shape (rows, labels).
        weights: shape (rows, labels).
    """

    def losses_of(logits: NDArray[np.float64]) -> NDArray[np.float64]:
        result: NDArray[np.float64] = (weights * (np.logaddexp(0, logits) - targets * logits)).sum(1)
        return result

    return _select(encoder, lexical, losses_of, intercept=True)


def _select(
    encoder: Array,
    lexical: Array,
    losses_of: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    intercept: bool = False,
) -> Stack:
    """The weights of both views, or of one where the other brings nothing."""
    scores = (encoder.astype(np.float64), lexical.astype(np.float64))
    both, losses = _fit(scores, (True, True), losses_of, intercept)
    if len(encoder) < MIN_ROWS:
        return both
    alone = [_fit(scores, used, losses_of, intercept) for used in ((True, False), (False, True))]
    stack, least = min(alone, key=lambda found: float(found[1].sum()))
    return stack if float((least - losses).sum()) <= CRITERION else both


def _fit(
    scores: tuple[NDArray[np.float64], NDArray[np.float64]],
    used: tuple[bool, bool],
    losses_of: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    intercept: bool = False,
) -> tuple[Stack, NDArray[np.float64]]:
    """The best weights of the views that are used, and the weighted cross-entropy of each row in nats.

    Args:
        losses_of: the weighted cross-entropy of each row, from logits of shape (rows, labels).
        intercept: whether to fit an intercept, too.
    """

    def stack_of(parameters: NDArray[np.float64]) -> Stack:
        powers = [typical * float(np.exp(log)) for typical, log in zip(TYPICAL, parameters[:2], strict=True)]
        return Stack(encoder=powers[0] * used[0], lexical=powers[1] * used[1], intercept=float(sum(parameters[2:])))

    def losses(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        stack = stack_of(parameters)
        return losses_of(stack.encoder * scores[0] + stack.lexical * scores[1] + stack.intercept)

    def objective(parameters: NDArray[np.float64]) -> float:
        return float(losses(parameters).sum() + PRIOR_STRENGTH * (parameters**2).sum())

    size = 2 + intercept
    start = np.vstack([np.zeros(size), 0.5 * np.eye(size)])
    options = {"initial_simplex": start, "xatol": 0.01, "fatol": 0.05}
    best = minimize(objective, start[0], method="Nelder-Mead", options=options).x
    return stack_of(best), losses(best)


def fit_fast_tier(encoder: Array, lexical: Array, stack: Stack, temperature: float) -> FastTier | None:
    """When the lexical view may answer alone, or None if these rows cannot show that it agrees often enough.

    Args:
        encoder, lexical: scores of each view for rows that it was not fitted to, shape (rows, labels).
        temperature: divisor of the lexical scores before the softmax.
    """
    if len(lexical) < MIN_ROWS or not stack.encoder:
        return None
    agrees = stack.combine(encoder, lexical).argmax(1) == lexical.argmax(1)
    found = choose_cutoff(margins(lexical).tolist(), agrees.tolist(), AGREEMENT)
    if found is None:
        return None
    return FastTier(
        margin=found.value,
        temperature=temperature,
        coverage=found.coverage,
        agreement=found.right / found.n,
        at_least=found.at_least,
    )
