"""What people and teachers say together: a probability of every label for every question, from few reviews.

Pure functions of arrays; rows are questions. A teacher's mistakes are systematic: what a person corrects in one place
holds for what lies near it. So the teacher's answers and the beliefs of a student trained on them are the starting
point (the mean), and the reviews bend it: Gaussian-process classification (Rasmussen and Williams 2006, chapter 3) by
its MAP estimate, with a kernel that reaches far. Where nobody has reviewed, the teacher's word stands.

The consensus has to earn the right to overrule the teacher: on reviews that it has not seen, it is measured how much
the teacher's own answer should count on top. A perfect teacher is never overruled so, and without reviews none is.
LOG.md has what was tried beside it.
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

REACH = 1.5  # beta of the kernel exp(beta (cosine - 1)) between questions
VARIANCE = 300.0  # of what reviews may add to a label's score
CONFUSION = 3.0  # of what they may add wherever a teacher gave the same answer: its row of a confusion matrix
SHRINKAGE = 1.0  # of the within-label covariance towards a multiple of the identity
FLOOR = 1e-4  # no label is impossible to a student
JITTER = 0.1  # above what rounding does to so large a kernel, far below its variance
TRUST = (0.0, 2.0, 4.0, 6.0, 8.0)
FOLDS = 5
ANCHORS = 1_000  # of more reviews, so many bend the rest; all of them stand themselves
BLOCK = 16_384


@dataclass(frozen=True, slots=True)
class Consensus:
    """probabilities (rows, labels), rows sum to 1. `trust` is what each teacher's vote counts beyond the mean, in nats.

    `beliefs` are the same with reviews; without, they are what student and teacher make likely, though the teacher's
    word stands. `held_out` (reviews, labels) is what the consensus would have said of each anchored review without seeing it, and
    `anchors` which reviews these are; both are empty without reviews.
    """

    probabilities: Array
    beliefs: Array
    trust: float
    held_out: Array
    anchors: Rows

    @property
    def doubt(self) -> Array:
        """The chance that a row's label is wrong, as far as the model can tell; shape (rows,)."""
        doubt: Array = 1 - self.beliefs.max(1)
        return doubt


def metric(vectors: Array, labels: Rows, count: int) -> Array:
    """Unit vectors in a space where questions of one label lie close; same shape as `vectors`.

    Linear discriminant analysis' whitening: centred, then divided by the within-label covariance, shrunk towards the
    identity (Friedman 1989). Labels may be a teacher's: its mistakes hardly touch the covariance. -1 means none.
    """
    width = vectors.shape[1]
    mean = vectors.mean(0)
    scatter = np.zeros((width, width), dtype=np.float64)
    for label in range(count):
        rows = vectors[labels == label][:BLOCK]
        if len(rows) > 1:
            centred = rows - rows.mean(0)
            scatter += centred.T @ centred
    size = float(np.trace(scatter)) / width
    if size <= 0:
        return vectors
    whitening = cholesky(np.linalg.inv(scatter / size + SHRINKAGE * np.eye(width)), lower=True).astype(np.float32)
    result = np.empty_like(vectors)
    for start in range(0, len(vectors), BLOCK):
        block = (vectors[start : start + BLOCK] - mean) @ whitening
        result[start : start + BLOCK] = block / np.maximum(np.linalg.norm(block, axis=1, keepdims=True), 1e-9)
    return result


def pooled(teachers: Sequence[Array], reviewed: Rows, answers: Array) -> Array:
    """Votes of several teachers as one (rows, labels) array; rows sum to 1, or to 0 where nobody answered.

    Each teacher's vote weighs as the log-odds of its accuracy on the reviewed rows (weighted majority, Littlestone and
    Warmuth 1994), smoothed by ten imagined rows of which it had seven; without reviews all weigh the same.
    """
    if len(teachers) == 1:
        return teachers[0]
    total = np.zeros_like(teachers[0])
    for votes in teachers:
        asked = votes[reviewed].sum(1) > 0
        right = float((votes[reviewed] * answers).sum(1)[asked].sum())
        accuracy = (right + 7) / (asked.sum() + 10)
        total += max(0.1, np.log(accuracy / (1 - accuracy))) * votes
    sums = total.sum(1, keepdims=True)
    result: Array = np.divide(total, sums, out=np.zeros_like(total), where=sums > 0)
    return result


def consensus(
    space: Array, student: Array, votes: Array, reviewed: Rows, answers: Array, *, seed: int = 0
) -> Consensus:
    """Combine a student's held-out beliefs, the teachers' votes and the reviews.

    Args:
        space: (rows, width), unit vectors as of `metric`.
        student: (rows, labels), the probabilities of a student that did not learn from the row itself.
        votes: (rows, labels), shares of the teachers' answers, as of `pooled`; zeros where there is none.
        reviewed: (reviews,), the rows that people have decided. Of more than ANCHORS the first half of so many and
            a draw of the others bend the rest.
        answers: (reviews, labels), their decisions: shares, where reviewers disagree.
    """
    if not len(reviewed):
        silent = votes.sum(1, keepdims=True) <= 0
        return Consensus(
            np.where(silent, student, votes), _softmax(_mean(student, votes)), TRUST[-1], answers, reviewed
        )
    chosen = np.arange(len(reviewed))
    if len(chosen) > ANCHORS:
        first, others = np.split(chosen, [ANCHORS // 2])
        drawn = np.random.default_rng(seed).permutation(others)[: ANCHORS - len(first)]
        chosen = np.concatenate([first, drawn])
    rows, targets = reviewed[chosen], answers[chosen]
    covariance = _kernel(space[rows], votes[rows], space[rows], votes[rows])
    mean = _mean(student[rows], votes[rows])
    held_out = np.zeros_like(targets)
    fold = np.arange(len(rows)) % FOLDS
    with threadpool_limits(1):  # many small products: a second thread only waits for the first
        for number in range(min(FOLDS, len(rows))):
            seen, unseen = fold != number, fold == number
            bend = _bend(covariance[np.ix_(seen, seen)], mean[seen], targets[seen])
            held_out[unseen] = mean[unseen] + covariance[np.ix_(unseen, seen)] @ bend
        bend = _bend(covariance, mean, targets)
    trust = _trust(held_out, votes[rows], targets)
    probabilities = np.empty_like(student)
    for start in range(0, len(space), BLOCK):
        block = slice(start, start + BLOCK)
        bent = _kernel(space[block], votes[block], space[rows], votes[rows]) @ bend
        probabilities[block] = _softmax(_mean(student[block], votes[block]) + trust * votes[block] + bent)
    said = answers * probabilities[reviewed] + 1e-9 * answers  # where reviewers disagree, the rest decides among them
    probabilities[reviewed] = said / said.sum(1, keepdims=True)
    held_out = _softmax(held_out + trust * votes[rows])
    return Consensus(probabilities, probabilities, trust, held_out, chosen)


def _trust(held_out: Array, votes: Array, targets: Array) -> float:
    """The largest of TRUST that explains unseen reviews within a standard error of the best."""
    losses = np.stack([-(targets * np.log(_softmax(held_out + each * votes) + 1e-6)).sum(1) for each in TRUST])
    worse = losses - losses[losses.sum(1).argmin()]
    error = np.sqrt((worse**2).sum(1))
    return TRUST[int(np.flatnonzero(worse.sum(1) <= error).max())]


def _mean(student: Array, votes: Array) -> Array:
    mean: Array = np.log(student + FLOOR) + votes
    return mean


def _kernel(a: Array, votes_a: Array, b: Array, votes_b: Array) -> Array:
    near = np.exp(REACH * (a @ b.T - 1))
    kernel: Array = VARIANCE * near + CONFUSION * (votes_a @ votes_b.T)
    return kernel


def _bend(covariance: Array, mean: Array, targets: Array) -> Array:
    """The coefficients (reviews, labels) of the MAP estimate: a row's score is its mean plus kernel @ coefficients."""
    exact = covariance.astype(np.float64) + JITTER * np.eye(len(covariance))
    lower = cholesky(exact, lower=True).astype(np.float32)

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        white = flat.reshape(mean.shape).astype(np.float32)
        likely = _softmax(mean + lower @ white)
        value = -(targets * np.log(likely + 1e-12)).sum() + (white**2).sum() / 2
        return float(value), (lower.T @ (likely - targets) + white).ravel().astype(np.float64)

    found = minimize(loss, np.zeros(mean.size), jac=True, method="L-BFGS-B", options={"maxiter": 30})
    white = found.x.reshape(mean.shape).astype(np.float32)
    coefficients: Array = solve_triangular(lower, white, trans="T", lower=True)
    return coefficients


def _softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max(1, keepdims=True))
    result: Array = powers / powers.sum(1, keepdims=True)
    return result
