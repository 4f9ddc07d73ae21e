"""Targets of ordinal tasks: a level's probability is spread over its neighbours, so that a near miss costs less than a far one.

Source: Diaz and Marathe 2019, "Soft labels for ordinal regression".
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.special import softmax

from fingerpost.students.denoise import Rows

DECAY = 0.7
"""A level's share of the target is exp(-DECAY * its distance). See benchmarks/ordinal.py."""


def over_levels(rows: Rows) -> Rows:
    """The rows with targets that are spread over the levels. The most probable level stays the same."""
    levels = np.arange(rows.targets.shape[1])
    kernel = softmax(-DECAY * np.abs(levels[:, None] - levels[None, :]), axis=1).astype(np.float32)
    return replace(rows, targets=rows.targets @ kernel)
