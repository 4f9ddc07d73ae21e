"""Verdicts and embeddings as arrays, and the consensus of a project's questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import softmax

from fingerpost.consensus.model import Array, Consensus, Rows, fit_consensus, lda_whitening, pool_votes
from fingerpost.core.text import encoder_input, hash_fraction
from fingerpost.core.types import Question
from fingerpost.core.verdicts import REVIEW, QuestionVerdicts
from fingerpost.students.lexical import Ngrams, scores_out_of_fold
from fingerpost.students.linear import Centring, logits_out_of_fold
from fingerpost.students.stack import fit_stack

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

HEAD_STRENGTH = 3.0  # C, the inverse regularisation of the linear head
FOLDS = 5
MAX_TRAINING_ROWS = 50_000


@dataclass(frozen=True, slots=True)
class Evidence:
    """Verdicts on questions as arrays. Rows are questions, columns are labels.

    Attributes:
        vectors: (rows, width), embeddings of the questions.
        groups: the group of every row; rows of one group stay in one fold.
        teacher_votes: (rows, labels) of each teacher: its vote shares, zeros where it has not voted.
        reviewed: (reviews,), numbers of the rows with a human label; those from the review queue come first.
        human_votes: (reviews, labels), the humans' vote shares on the rows `reviewed`.
        none_fits: numbers of the rows that humans say no label fits.
        ngrams: features of the lexical view, shape (rows, features); without them only the vectors are used.
    """

    vectors: Array
    groups: list[str]
    teacher_votes: list[Array]
    reviewed: Rows
    human_votes: Array
    none_fits: Rows
    ngrams: csr_matrix | None = None


@dataclass(frozen=True, slots=True)
class Features:
    """Inputs of the consensus model that are computed once and reused while reviews come in.

    Attributes:
        embeddings: (rows, width), whitened unit vectors.
        student: (rows, labels), held-out probabilities by a student of the verdicts.
    """

    embeddings: Array
    student: Array


def collect_evidence(
    names: Sequence[str],
    labelled: Sequence[tuple[Question, QuestionVerdicts]],
    vectors: Array,
    hidden: frozenset[str] = frozenset(),
) -> Evidence:
    """The verdicts on these questions as arrays.

    A model that wrote questions counts as a teacher: its vote is the label that it wrote the question for.

    Args:
        names: the task's labels.
        vectors: (questions, width), in the order of `labelled`.
        hidden: splits whose human labels are left out.
    """
    index = {name: i for i, name in enumerate(names)}
    teacher_votes: dict[tuple[str, str], Array] = {}
    human_votes: dict[int, Array] = {}
    none_fits: list[int] = []
    from_queue: list[int] = []
    for row, (question, verdicts) in enumerate(labelled):
        by_models = [verdict for verdict in verdicts.valid if verdict.kind != "human"]
        for author in {(verdict.kind, verdict.by) for verdict in by_models}:
            columns = [index[str(verdict.label)] for verdict in by_models if (verdict.kind, verdict.by) == author]
            if author not in teacher_votes:
                teacher_votes[author] = np.zeros((len(labelled), len(index)), dtype=np.float32)
            np.add.at(teacher_votes[author][row], columns, 1 / len(columns))
        human = verdicts.human
        if not human or question.split in hidden:
            continue
        if verdicts.none_fits:
            none_fits.append(row)
            continue
        counts = np.zeros(len(index), dtype=np.float32)
        np.add.at(counts, [index[verdict.label] for verdict in human if verdict.label is not None], 1)
        human_votes[row] = counts / counts.sum()
        if any(verdict.origin == REVIEW for verdict in human):
            from_queue.append(row)
    order = list(dict.fromkeys([*from_queue, *human_votes]))
    no_votes = [np.zeros((len(labelled), len(index)), dtype=np.float32)]
    return Evidence(
        vectors,
        [question.group for question, _ in labelled],
        [teacher_votes[author] for author in sorted(teacher_votes)] or no_votes,
        np.array(order, dtype=np.int64),
        np.array([human_votes[row] for row in order], dtype=np.float32).reshape(len(order), len(index)),
        np.array(none_fits, dtype=np.int64),
        _ngrams([question for question, _ in labelled]),
    )


def compute_features(evidence: Evidence) -> Features:
    """Whitened embeddings and the student's held-out probabilities, from human labels, else the teachers' votes."""
    targets = pool_votes(evidence.teacher_votes, evidence.reviewed, evidence.human_votes).copy()
    targets[evidence.reviewed] = evidence.human_votes
    targets[evidence.none_fits] = 0
    has_label = targets.sum(1) > 0
    labels = np.where(has_label, targets.argmax(1), -1)
    evidence = replace(evidence, vectors=Centring.of(evidence.vectors).apply(evidence.vectors))
    embeddings = lda_whitening(evidence.vectors, labels, targets.shape[1])
    return Features(embeddings, _held_out_probabilities(evidence, targets, has_label))


def consensus_of(evidence: Evidence, features: Features, seed: int = 0) -> Consensus:
    """The consensus of all verdicts. `features` may have been computed from fewer reviews of the same rows."""
    votes = pool_votes(evidence.teacher_votes, evidence.reviewed, evidence.human_votes)
    return fit_consensus(
        features.embeddings, features.student, votes, evidence.reviewed, evidence.human_votes, seed=seed
    )


def _ngrams(questions: Sequence[Question]) -> csr_matrix | None:
    """Features of the lexical view, shape (questions, features); None where there are too many questions."""
    if not questions or len(questions) > MAX_TRAINING_ROWS:
        return None
    texts = [encoder_input(question.messages, len(question.messages)) for question in questions]
    return Ngrams.fit(texts).matrix(texts)


def _held_out_probabilities(evidence: Evidence, targets: Array, has_label: np.ndarray) -> Array:
    """Each row's probabilities by a student that was not trained on the row's group; shape (rows, labels)."""
    groups = np.array([int(FOLDS * hash_fraction(f"fold/{group}")) for group in evidence.groups])
    pool = np.flatnonzero(has_label)
    if len(pool) > MAX_TRAINING_ROWS:
        pool = np.random.default_rng(0).permutation(pool)[:MAX_TRAINING_ROWS]
    folds = [(pool[groups[pool] != fold], np.flatnonzero(groups == fold)) for fold in range(FOLDS)]
    folds = [(train, held_out) for train, held_out in folds if len(train) and len(held_out)]
    weights = np.ones(len(targets), dtype=np.float32)
    logits = logits_out_of_fold(evidence.vectors, targets, weights, folds, HEAD_STRENGTH)
    if evidence.ngrams is not None and len(pool):
        lexical = scores_out_of_fold(evidence.ngrams, targets, weights, folds)
        logits = fit_stack(logits[pool], lexical[pool], targets[pool], weights[pool]).combine(logits, lexical)
    probabilities: Array = softmax(logits, axis=1)
    return probabilities
