"""Calibration, and the check that 8-bit integers lose nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest

from fingerpost.students.denoise import Rows
from fingerpost.students.encoder.predict import softmax
from fingerpost.students.linear import Array

INT8_MAY_LOSE = 0.005  # of dev accuracy, and more where so few rows may be chance

CHANCE = 0.1

SMALL = 20  # dev rows below which nothing can be decided on them


def cross_entropy(logits: NDArray[np.float32], rows: Rows) -> float:
    """The rows' mean weighted cross-entropy; logits have the shape (rows, labels)."""
    entropy = -(rows.targets * np.log(softmax(logits) + 1e-12)).sum(1)
    return float((rows.weights * entropy).sum() / rows.weights.sum())


def calibrate(logits: NDArray[np.float32], targets: Array, weights: Array) -> float:
    """The temperature by which to divide logits so that the likelihood of the targets is greatest (Guo et al. 2017)."""
    if len(logits) < SMALL:
        return 1.0

    def loss(log_temperature: float) -> float:
        likely = np.log(softmax(logits / np.exp(log_temperature)) + 1e-12)
        return float(-(weights * (targets * likely).sum(1)).sum() / weights.sum())

    return round(float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x)), 4)


def loses(exact: NDArray[np.bool_], small: NDArray[np.bool_]) -> bool:
    """Whether the smaller model is right on fewer rows by more than INT8_MAY_LOSE and more than chance.

    A one-sided sign test on the rows that only one of them has right.
    """
    only_exact, only_small = int((exact & ~small).sum()), int((~exact & small).sum())
    if exact.mean() - small.mean() <= INT8_MAY_LOSE:
        return False
    test = binomtest(only_exact, only_exact + only_small, alternative="greater")
    return bool(test.pvalue < CHANCE)
