"""Temperature calibration, and the check whether quantisation costs accuracy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest

from fingerpost.students.denoise import Rows
from fingerpost.students.encoder.predict import softmax
from fingerpost.students.linear import Array

MAX_ACCURACY_LOSS = 0.005  # dev accuracy that int8 may lose, even if the loss is significant
SIGNIFICANCE = 0.1  # p-value below which a larger loss is not attributed to chance
MIN_DEV_ROWS = 20  # too few dev rows to calibrate or to decide between models


def cross_entropy(logits: NDArray[np.float32], rows: Rows) -> float:
    """The weighted mean cross-entropy in nats. `logits` has shape (rows, labels)."""
    entropy = -(rows.targets * np.log(softmax(logits) + 1e-12)).sum(1)
    return float((rows.weights * entropy).sum() / rows.weights.sum())


def calibrate(logits: NDArray[np.float32], targets: Array, weights: Array) -> float:
    """The temperature that maximises the likelihood of the targets (temperature scaling, Guo et al. 2017).

    Args:
        logits: shape (rows, labels).
        targets: label probabilities, shape (rows, labels).
        weights: shape (rows,).

    Returns:
        The divisor of the logits; 1 with fewer than MIN_DEV_ROWS rows.
    """
    if len(logits) < MIN_DEV_ROWS:
        return 1.0

    def negative_log_likelihood(log_temperature: float) -> float:
        log_probabilities = np.log(softmax(logits / np.exp(log_temperature)) + 1e-12)
        return float(-(weights * (targets * log_probabilities).sum(1)).sum() / weights.sum())

    return round(float(np.exp(minimize_scalar(negative_log_likelihood, bounds=(-3, 3), method="bounded").x)), 4)


def loses_accuracy(fp32: NDArray[np.bool_], int8: NDArray[np.bool_]) -> bool:
    """Whether the int8 model is less accurate by more than MAX_ACCURACY_LOSS and significantly so.

    Significance is by a one-sided sign test on the rows that only one of the models has right.

    Args:
        fp32, int8: whether each model is right, shape (rows,).
    """
    only_fp32, only_int8 = int((fp32 & ~int8).sum()), int((~fp32 & int8).sum())
    if fp32.mean() - int8.mean() <= MAX_ACCURACY_LOSS:
        return False
    test = binomtest(only_fp32, only_fp32 + only_int8, alternative="greater")
    return bool(test.pvalue < SIGNIFICANCE)
