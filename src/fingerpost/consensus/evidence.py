"""Verdicts and embeddings as arrays, and the consensus of a project's questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from fingerpost.consensus.model import Array, Consensus, Rows, fit_consensus, lda_whitening, pool_votes
from fingerpost.core.text import encoder_input, hash_fraction
from fingerpost.core.types import Question, Verdict
from fingerpost.core.verdicts import REVIEW, QuestionVerdicts
from fingerpost.students.binary_relevance import held_out_scores
from fingerpost.students.denoise import Rows as StudentRows
from fingerpost.students.lexical import Ngrams, scores_out_of_fold
from fingerpost.students.linear import Projection, logits_out_of_fold
from fingerpost.students.stack import fit_label_stack, fit_stack
from fingerpost.task.settings import Task

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
        multi: a row may have several labels: votes are independent shares, NaN where a teacher has not voted.
        ngrams: features of the lexical view, shape (rows, features); without them only the vectors are used.
    """

    vectors: Array
    groups: list[str]
    teacher_votes: list[Array]
    reviewed: Rows
    human_votes: Array
    none_fits: Rows
    ngrams: csr_matrix | None = None
    multi: bool = False

    def of_label(self, label: int) -> Evidence:
        """The same evidence on one label alone, in two columns: without it and with it."""

        def columns(shares: Array) -> Array:
            two = np.stack([1 - shares[:, label], shares[:, label]], axis=1)
            return np.nan_to_num(two)

        votes = [columns(found) for found in self.teacher_votes]
        return replace(self, teacher_votes=votes, human_votes=columns(self.human_votes), multi=False)

    def pooled(self) -> tuple[Array, NDArray[np.bool_]]:
        """The teachers' pooled votes, shape (rows, labels), and whether any teacher voted, shape (rows,)."""
        if not self.multi:
            votes = pool_votes(self.teacher_votes, self.reviewed, self.human_votes)
            return votes, votes.sum(1) > 0
        labels = range(self.human_votes.shape[1])
        parts = [self.of_label(label) for label in labels]
        columns = [pool_votes(part.teacher_votes, part.reviewed, part.human_votes)[:, 1] for part in parts]
        voted = np.any([~np.isnan(votes[:, 0]) for votes in self.teacher_votes], axis=0)
        return np.stack(columns, axis=1), voted


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
    task: Task,
    labelled: Sequence[tuple[Question, QuestionVerdicts]],
    vectors: Array,
    hidden: frozenset[str] = frozenset(),
) -> Evidence:
    """The verdicts on these questions as arrays.

    A model that wrote questions counts as a teacher: its vote is the label that it wrote the question for.

    Args:
        vectors: (questions, width), in the order of `labelled`.
        hidden: splits whose human labels are left out.
    """
    shape = (len(labelled), len(task.labels))
    teacher_votes: dict[tuple[str, str], Array] = {}
    human_votes: dict[int, Array] = {}
    none_fits: list[int] = []
    from_queue: list[int] = []
    for row, (question, verdicts) in enumerate(labelled):
        by_models = [verdict for verdict in verdicts.valid if verdict.kind != "human"]
        for author in {(verdict.kind, verdict.by) for verdict in by_models}:
            if author not in teacher_votes:
                teacher_votes[author] = _no_votes(shape, task.multi)
            own = [verdict for verdict in by_models if (verdict.kind, verdict.by) == author]
            teacher_votes[author][row] = _shares(task, own)
        human = verdicts.human
        if not human or question.split in hidden:
            continue
        if verdicts.none_fits:
            none_fits.append(row)
            continue
        human_votes[row] = _shares(task, [verdict for verdict in human if verdict.label is not None])
        if any(verdict.origin == REVIEW for verdict in human):
            from_queue.append(row)
    order = list(dict.fromkeys([*from_queue, *human_votes]))
    return Evidence(
        vectors,
        [question.group for question, _ in labelled],
        [teacher_votes[author] for author in sorted(teacher_votes)] or [_no_votes(shape, task.multi)],
        np.array(order, dtype=np.int64),
        np.array([human_votes[row] for row in order], dtype=np.float32).reshape(len(order), shape[1]),
        np.array(none_fits, dtype=np.int64),
        _ngrams([question for question, _ in labelled]),
        task.multi,
    )


def _no_votes(shape: tuple[int, int], multi: bool) -> Array:
    return np.full(shape, np.nan if multi else 0.0, dtype=np.float32)


def _shares(task: Task, verdicts: Sequence[Verdict]) -> Array:
    """The share of these verdicts' votes for each label, shape (labels,)."""
    index = {name: i for i, name in enumerate(task.names)}
    shares = np.zeros(len(index), dtype=np.float32)
    for verdict in verdicts:
        for answer, share in verdict.label_shares.items():
            for label in task.labels_in(answer):
                shares[index[label]] += share / len(verdicts)
    return shares


def answer_of_row(task: Task, probabilities: Array) -> str:
    """The answer with these probabilities of its labels, shape (labels,)."""
    if not task.multi:
        return task.names[int(probabilities.argmax())]
    return task.answer(name for name, probability in zip(task.names, probabilities, strict=True) if probability >= 0.5)


def compute_features(evidence: Evidence) -> Features:
    """Whitened embeddings and the student's held-out probabilities, from human labels, else the teachers' votes."""
    targets, has_label = evidence.pooled()
    targets, has_label = targets.copy(), has_label.copy()
    targets[evidence.reviewed], has_label[evidence.reviewed] = evidence.human_votes, True
    targets[evidence.none_fits], has_label[evidence.none_fits] = 0, False
    labels = np.where(targets.sum(1) > 0, targets.argmax(1), -1)
    evidence = replace(evidence, vectors=Projection.of(evidence.vectors).apply(evidence.vectors))
    embeddings = lda_whitening(evidence.vectors, labels, targets.shape[1])
    return Features(embeddings, _held_out_probabilities(evidence, targets, has_label))


def consensus_of(evidence: Evidence, features: Features, seed: int = 0) -> Consensus:
    """The consensus of all verdicts. `features` may have been computed from fewer reviews of the same rows."""
    if evidence.multi:
        return _consensus_of_sets(evidence, features, seed)
    votes, _ = evidence.pooled()
    return fit_consensus(
        features.embeddings, features.student, votes, evidence.reviewed, evidence.human_votes, seed=seed
    )


def _consensus_of_sets(evidence: Evidence, features: Features, seed: int) -> Consensus:
    """The consensus on each label alone, put together."""
    found = []
    for label in range(features.student.shape[1]):
        with_label = features.student[:, label]
        student = np.stack([1 - with_label, with_label], axis=1)
        found.append(consensus_of(evidence.of_label(label), Features(features.embeddings, student), seed))
    return Consensus(
        np.stack([one.probabilities[:, 1] for one in found], axis=1),
        np.stack([one.estimates[:, 1] for one in found], axis=1),
        float(np.mean([one.teacher_weight for one in found])),
        np.stack([one.held_out[:, 1] for one in found], axis=1),
        found[0].anchors,
        multi=True,
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
    if evidence.multi:
        rows = StudentRows(
            [], evidence.vectors, targets, np.ones(len(targets), np.float32), evidence.groups, evidence.ngrams
        )
        encoder, lexical = held_out_scores(rows, targets, np.ones_like(targets), folds, HEAD_STRENGTH)
        stack = fit_label_stack(encoder[pool], lexical[pool], targets[pool], np.ones_like(targets[pool]))
        return np.asarray(expit(stack.combine(encoder, lexical)))
    weights = np.ones(len(targets), dtype=np.float32)
    logits = logits_out_of_fold(evidence.vectors, targets, weights, folds, HEAD_STRENGTH)
    if evidence.ngrams is not None and len(pool):
        lexical = scores_out_of_fold(evidence.ngrams, targets, weights, folds)
        logits = fit_stack(logits[pool], lexical[pool], targets[pool], weights[pool]).combine(logits, lexical)
    probabilities: Array = softmax(logits, axis=1)
    return probabilities
