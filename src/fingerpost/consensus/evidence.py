"""From verdicts and texts to the arrays that the consensus is made of, and the consensus of a project's questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fingerpost.consensus.model import Array, Consensus, Rows, consensus, metric, pooled
from fingerpost.core.text import hash_fraction
from fingerpost.core.types import Question
from fingerpost.core.verdicts import REVIEW, QuestionVerdicts
from fingerpost.students.linear import fit_head

STRENGTH = 3.0  # of the head whose held-out beliefs are the starting point
FOLDS = 5
LEARN_FROM = 50_000


@dataclass(frozen=True, slots=True)
class Evidence:
    """Opinions on questions as arrays. Rows are questions, columns labels.

    `teachers` has one (rows, labels) array of vote shares for each teacher; `answers` (reviews, labels) are what people
    said of the rows `reviewed`, those first that the queue asked for; `outside` are rows that a person says no label fits.
    """

    vectors: Array
    groups: list[str]
    teachers: list[Array]
    reviewed: Rows
    answers: Array
    outside: Rows


@dataclass(frozen=True, slots=True)
class Ground:
    """What does not change from answer to answer: the space, and a student's held-out beliefs (rows, labels)."""

    space: Array
    student: Array


def gather(
    names: Sequence[str],
    labelled: Sequence[tuple[Question, QuestionVerdicts]],
    vectors: Array,
    hidden: frozenset[str] = frozenset(),
) -> Evidence:
    """The verdicts on these questions as arrays. Humans' verdicts on questions of the `hidden` splits are left out.

    A model that wrote a question counts as a teacher: its answer is the label that the question was written for.

    Args:
        vectors: (questions, width), in the order of `labelled`.
    """
    index = {name: i for i, name in enumerate(names)}
    teachers: dict[tuple[str, str], Array] = {}
    answers: dict[int, Array] = {}
    outside: list[int] = []
    chosen: list[int] = []
    for row, (question, verdicts) in enumerate(labelled):
        machines = [each for each in verdicts.valid if each.kind != "human"]
        for by in {(each.kind, each.by) for each in machines}:
            said = [index[str(each.label)] for each in machines if (each.kind, each.by) == by]
            if by not in teachers:
                teachers[by] = np.zeros((len(labelled), len(index)), dtype=np.float32)
            np.add.at(teachers[by][row], said, 1 / len(said))
        human = verdicts.human
        if not human or question.split in hidden:
            continue
        if verdicts.none_fits:
            outside.append(row)
            continue
        counts = np.zeros(len(index), dtype=np.float32)
        np.add.at(counts, [index[each.label] for each in human if each.label is not None], 1)
        answers[row] = counts / counts.sum()
        if any(each.origin == REVIEW for each in human):
            chosen.append(row)
    order = list(dict.fromkeys([*chosen, *answers]))
    return Evidence(
        vectors,
        [question.group for question, _ in labelled],
        [teachers[by] for by in sorted(teachers)] or [np.zeros((len(labelled), len(index)), dtype=np.float32)],
        np.array(order, dtype=np.int64),
        np.array([answers[row] for row in order], dtype=np.float32).reshape(len(order), len(index)),
        np.array(outside, dtype=np.int64),
    )


def ground(evidence: Evidence) -> Ground:
    """The space and the student's beliefs by all that is known: people's answers, else the teachers' votes."""
    known = pooled(evidence.teachers, evidence.reviewed, evidence.answers).copy()
    known[evidence.reviewed] = evidence.answers
    known[evidence.outside] = 0
    has_label = known.sum(1) > 0
    labels = np.where(has_label, known.argmax(1), -1)
    return Ground(metric(evidence.vectors, labels, known.shape[1]), _beliefs(evidence, known, has_label))


def agree(evidence: Evidence, on: Ground, seed: int = 0) -> Consensus:
    """The consensus of all opinions."""
    votes = pooled(evidence.teachers, evidence.reviewed, evidence.answers)
    return consensus(on.space, on.student, votes, evidence.reviewed, evidence.answers, seed=seed)


def _beliefs(evidence: Evidence, known: Array, has_label: np.ndarray) -> Array:
    """Each row's probabilities by a linear head that has not learnt from the row's group; shape (rows, labels)."""
    folds = np.array([int(FOLDS * hash_fraction(f"fold/{group}")) for group in evidence.groups])
    pool = np.flatnonzero(has_label)
    if len(pool) > LEARN_FROM:
        pool = np.random.default_rng(0).permutation(pool)[:LEARN_FROM]
    beliefs = np.full_like(known, 1 / known.shape[1])
    for fold in range(FOLDS):
        train = pool[folds[pool] != fold]
        held_out = np.flatnonzero(folds == fold)
        if len(train) and len(held_out):
            head = fit_head(evidence.vectors[train], known[train], np.ones(len(train), dtype=np.float32), STRENGTH)
            beliefs[held_out] = head.probabilities(evidence.vectors[held_out])
    return beliefs
