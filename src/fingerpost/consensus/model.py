"""The consensus model: a probability of every label for every question, from teachers' votes and a few human reviews.

Pure functions of arrays; rows are questions. A teacher's mistakes are systematic: a correction by a human also holds
for similar questions. The model is Gaussian-process classification (Rasmussen and Williams 2006, chapter 3), fitted by
its maximum a posteriori (MAP) estimate. Its prior mean comes from the teachers' votes and from a student trained on
them. Its observations are the human reviews. Its kernel is wide, so that a review affects many questions. Far from all
reviews, the teacher's label stands.

A vote of the teacher adds a constant to the label's score. The constant is chosen by cross-validation on the reviews,
so the model overrules the teacher only where that improves the prediction of unseen reviews. Without reviews it
overrules no vote.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

Array = NDArray[np.float32]
Rows = NDArray[np.int64]
"""Row numbers, or label numbers by row."""

KERNEL_BETA = 1.5  # of the kernel exp(beta (cosine - 1)) between questions
KERNEL_VARIANCE = 300.0  # prior variance of the correction to a label's score
CONFUSION_VARIANCE = 3.0  # variance of the correction shared by rows with the same vote: a row of a confusion matrix
SHRINKAGE = 1.0  # of the within-label covariance towards a multiple of the identity
PROBABILITY_FLOOR = 1e-4  # added to the student's probabilities: no label is impossible
JITTER = 0.1  # on the kernel's diagonal: above rounding errors, far below KERNEL_VARIANCE
TEACHER_WEIGHTS = (0.0, 2.0, 4.0, 6.0, 8.0)  # candidates for the score of a vote, in nats
FOLDS = 5
MAX_ANCHORS = 1_000  # reviews that the Gaussian process is fitted to
BLOCK_ROWS = 16_384


@dataclass(frozen=True, slots=True)
class Consensus:
    """The fitted model's output.

    Attributes:
        probabilities: (rows, labels); rows sum to 1. Without reviews, the votes where there are any; where these differ,
            the student weighs them.
        estimates: the same with reviews. Without reviews, the probabilities by student and votes: they show which
            votes are doubtful, although the votes stand in `probabilities`.
        teacher_weight: score of a vote beyond the prior mean, in nats; one of TEACHER_WEIGHTS.
        held_out: (anchors, labels), cross-validated probabilities of the anchors; empty without reviews.
        anchors: (anchors,), positions in `reviewed` of the reviews that the model is fitted to.
        multi: the probabilities of a row's labels are independent: rows do not sum to 1.
    """

    probabilities: Array
    estimates: Array
    teacher_weight: float
    held_out: Array
    anchors: Rows
    multi: bool = False

    @property
    def error_probability(self) -> Array:
        """Estimated probability that a row's most probable label, or set of labels, is wrong; shape (rows,)."""
        right: Array = self.estimates.max(1)
        if self.multi:
            right = np.maximum(self.estimates, 1 - self.estimates).prod(1)
        result: Array = 1 - right
        return result


def lda_whitening(vectors: Array, labels: Rows, label_count: int) -> Array:
    """Whiten vectors so that questions of one label lie close together.

    Linear discriminant analysis' whitening: the vectors are centred, divided by the root of the within-label covariance
    shrunk towards the identity (Friedman 1989), and normalised. A teacher's labels will do: few mistakes barely change
    the covariance.

    Args:
        vectors: (rows, width).
        labels: (rows,), label numbers; -1 for rows without a label.

    Returns:
        (rows, width), unit vectors; `vectors` itself where no label has two different rows.
    """
    width = vectors.shape[1]
    mean = vectors.mean(0)
    scatter = np.zeros((width, width), dtype=np.float64)
    for label in range(label_count):
        rows = vectors[labels == label][:BLOCK_ROWS]
        if len(rows) > 1:
            centred = rows - rows.mean(0)
            scatter += centred.T @ centred
    size = float(np.trace(scatter)) / width
    if size <= 0:
        return vectors
    whitening = cholesky(np.linalg.inv(scatter / size + SHRINKAGE * np.eye(width)), lower=True).astype(np.float32)
    result = np.empty_like(vectors)
    for start in range(0, len(vectors), BLOCK_ROWS):
        block = (vectors[start : start + BLOCK_ROWS] - mean) @ whitening
        result[start : start + BLOCK_ROWS] = block / np.maximum(np.linalg.norm(block, axis=1, keepdims=True), 1e-9)
    return result


def pool_votes(teacher_votes: Sequence[Array], reviewed: Rows, human_votes: Array) -> Array:
    """Combine several teachers' votes by weighted majority (Littlestone and Warmuth 1994).

    A teacher's weight is the log-odds of its accuracy on the reviewed rows, smoothed by ten pseudo-rows, seven of them
    right. Without reviews all teachers weigh the same.

    Args:
        teacher_votes: (rows, labels) of each teacher; zeros where it has not voted.
        reviewed: (reviews,), row numbers.
        human_votes: (reviews, labels), the humans' vote shares on these rows.

    Returns:
        (rows, labels); rows sum to 1, or to 0 where no teacher voted.
    """
    if len(teacher_votes) == 1:
        return teacher_votes[0]
    total = np.zeros_like(teacher_votes[0])
    for votes in teacher_votes:
        voted = votes[reviewed].sum(1) > 0
        correct = float((votes[reviewed] * human_votes).sum(1)[voted].sum())
        accuracy = (correct + 7) / (voted.sum() + 10)
        total += max(0.1, np.log(accuracy / (1 - accuracy))) * votes
    sums = total.sum(1, keepdims=True)
    result: Array = np.divide(total, sums, out=np.zeros_like(total), where=sums > 0)
    return result


def fit_consensus(
    embeddings: Array, student: Array, votes: Array, reviewed: Rows, human_votes: Array, *, seed: int = 0
) -> Consensus:
    """Fit the model to a student's held-out probabilities, the teachers' votes and the reviews.

    Of more than MAX_ANCHORS reviews, the model is fitted to the first MAX_ANCHORS / 2 and a random sample of the
    others. Every reviewed row gets its human label in any case.

    Args:
        embeddings: (rows, width), unit vectors from `lda_whitening`.
        student: (rows, labels), probabilities by a student that was not trained on the row itself.
        votes: (rows, labels), vote shares from `pool_votes`; zeros where there is no vote.
        reviewed: (reviews,), numbers of the rows that humans have labelled.
        human_votes: (reviews, labels), their vote shares; more than one label where reviewers disagree.
        seed: of the sample.
    """
    if not len(reviewed):
        unlabelled = votes.sum(1, keepdims=True) <= 0
        # Where teachers disagree, the student decides between their labels.
        decided = votes * (student + PROBABILITY_FLOOR)
        decided /= np.maximum(decided.sum(1, keepdims=True), 1e-12)
        return Consensus(
            np.where(unlabelled, student, decided),
            _softmax(_prior_mean(student, votes)),
            TEACHER_WEIGHTS[-1],
            human_votes,
            reviewed,
        )
    anchors = np.arange(len(reviewed))
    if len(anchors) > MAX_ANCHORS:
        first, others = np.split(anchors, [MAX_ANCHORS // 2])
        sample = np.random.default_rng(seed).permutation(others)[: MAX_ANCHORS - len(first)]
        anchors = np.concatenate([first, sample])
    rows, targets = reviewed[anchors], human_votes[anchors]
    covariance = _kernel(embeddings[rows], votes[rows], embeddings[rows], votes[rows])
    mean = _prior_mean(student[rows], votes[rows])
    held_out = np.zeros_like(targets)
    fold = np.arange(len(rows)) % FOLDS
    with threadpool_limits(1):  # the products are too small for a second thread to pay off
        for number in range(min(FOLDS, len(rows))):
            seen, unseen = fold != number, fold == number
            coefficients = gp_coefficients(covariance[np.ix_(seen, seen)], mean[seen], targets[seen])
            held_out[unseen] = mean[unseen] + covariance[np.ix_(unseen, seen)] @ coefficients
        coefficients = gp_coefficients(covariance, mean, targets)
    teacher_weight = _select_teacher_weight(held_out, votes[rows], targets)
    probabilities = np.empty_like(student)
    for start in range(0, len(embeddings), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        correction = _kernel(embeddings[block], votes[block], embeddings[rows], votes[rows]) @ coefficients
        mean = _prior_mean(student[block], votes[block])
        probabilities[block] = _softmax(mean + teacher_weight * votes[block] + correction)
    # Only labels that a human gave remain; where reviewers disagree, the model decides between their labels.
    human = human_votes * probabilities[reviewed] + 1e-9 * human_votes
    probabilities[reviewed] = human / human.sum(1, keepdims=True)
    held_out = _softmax(held_out + teacher_weight * votes[rows])
    return Consensus(probabilities, probabilities, teacher_weight, held_out, anchors)


def _select_teacher_weight(held_out: Array, votes: Array, targets: Array) -> float:
    """The largest weight whose cross-validated log loss is within one standard error of the lowest."""
    losses = np.stack(
        [-(targets * np.log(_softmax(held_out + weight * votes) + 1e-6)).sum(1) for weight in TEACHER_WEIGHTS]
    )
    excess = losses - losses[losses.sum(1).argmin()]
    error = np.sqrt((excess**2).sum(1))
    return TEACHER_WEIGHTS[int(np.flatnonzero(excess.sum(1) <= error).max())]


def _prior_mean(student: Array, votes: Array) -> Array:
    mean: Array = np.log(student + PROBABILITY_FLOOR) + votes
    return mean


def _kernel(a: Array, votes_a: Array, b: Array, votes_b: Array) -> Array:
    similarity = np.exp(KERNEL_BETA * (a @ b.T - 1))
    kernel: Array = KERNEL_VARIANCE * similarity + CONFUSION_VARIANCE * (votes_a @ votes_b.T)
    return kernel


def gp_coefficients(covariance: Array, mean: Array, targets: Array) -> Array:
    """Fit a Gaussian process with a softmax likelihood by its MAP estimate.

    Args:
        covariance: (anchors, anchors), the kernel between the anchors.
        mean: (anchors, labels), the prior mean of the scores.
        targets: (anchors, labels), label probabilities; rows sum to 1.

    Returns:
        (anchors, labels); a row's scores are its prior mean plus kernel(row, anchors) @ coefficients.
    """
    exact = covariance.astype(np.float64) + JITTER * np.eye(len(covariance))
    lower = cholesky(exact, lower=True).astype(np.float32)

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        white = flat.reshape(mean.shape).astype(np.float32)
        probabilities = _softmax(mean + lower @ white)
        value = -(targets * np.log(probabilities + 1e-12)).sum() + (white**2).sum() / 2
        return float(value), (lower.T @ (probabilities - targets) + white).ravel().astype(np.float64)

    fitted = minimize(loss, np.zeros(mean.size), jac=True, method="L-BFGS-B", options={"maxiter": 30})
    white = fitted.x.reshape(mean.shape).astype(np.float32)
    coefficients: Array = solve_triangular(lower, white, trans="T", lower=True)
    return coefficients


def _softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max(1, keepdims=True))
    result: Array = powers / powers.sum(1, keepdims=True)
    return result
