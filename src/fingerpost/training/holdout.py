"""Divides the rows of a file into training and test rows, or into folds for cross-validation.

Near-duplicates stay together, and each part has about the same share of every label (scikit-learn's `StratifiedGroupKFold`).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from fingerpost.core.errors import InputError
from fingerpost.core.types import Example
from fingerpost.data.duplicates import duplicate_groups, shingles_at
from fingerpost.data.sketches import sketches_of

MIN_ROWS = 10
"""With fewer rows, none are held out."""
MAX_FOLDS = 20
"""Folds of which some are held out; more only where less than a twentieth is."""


def fold_numbers(examples: Sequence[Example], folds: int, seed: int = 0) -> NDArray[np.int64]:
    """The fold of each example, shape (examples,).

    Args:
        folds: number of folds, at least 2.

    Raises:
        InputError: there are fewer groups of near-duplicates than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    conversations = [example.messages for example in examples]
    groups = duplicate_groups(shingles_at(conversations), sketches_of(conversations))
    distinct = len(np.unique(groups))
    if distinct < folds:
        raise InputError(
            f"{len(examples):,} rows with {distinct:,} different texts cannot be divided into {folds} folds; "
            "give fewer folds, or more rows"
        )
    labels = np.array([example.label for example in examples])
    numbers = np.zeros(len(examples), dtype=np.int64)
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rare labels are not in every fold; they are listed with the label counts
        try:
            for number, (_, held_out) in enumerate(splitter.split(np.zeros(len(examples)), labels, groups)):
                numbers[held_out] = number
        except ValueError:  # no label has as many rows as there are folds
            order = np.random.default_rng(seed).permutation(distinct)
            numbers = order[np.unique(groups, return_inverse=True)[1]] % folds
    return numbers


def split_train_test(examples: Sequence[Example], share: float, seed: int = 0) -> tuple[list[Example], list[Example]]:
    """Training rows, and test rows: about `share` of all, grouped and stratified.

    All of fewer than MIN_ROWS rows are for training, and so is a row with a label that no other row has.

    Args:
        share: fraction of the rows, from 0 to 0.5.
    """
    if share <= 0 or len(examples) < MIN_ROWS:
        return list(examples), []
    held_out = Fraction(share).limit_denominator(MAX_FOLDS) or Fraction(1, min(100, round(1 / share)))
    try:
        numbers = fold_numbers(examples, max(2, held_out.denominator), seed)
    except InputError:  # hardly any different texts
        return list(examples), []
    drawn = (numbers < held_out.numerator).tolist()
    learnt = {label for example, out in zip(examples, drawn, strict=True) if not out for label in example.target}
    parts: tuple[list[Example], list[Example]] = ([], [])
    for example, out in zip(examples, drawn, strict=True):
        parts[out and learnt >= example.target.keys()].append(example)
    return parts
