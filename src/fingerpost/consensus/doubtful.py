"""Questions whose label is most doubtful, with the reviewed questions nearest to each: to ask the teacher again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import numpy as np

from fingerpost.consensus.evidence import answer_of_row, collect_evidence, compute_features, consensus_of
from fingerpost.consensus.model import Array
from fingerpost.core.errors import InputError
from fingerpost.core.types import Question
from fingerpost.core.verdicts import WITH_EXAMPLES, QuestionVerdicts
from fingerpost.store.project import Store
from fingerpost.task.prompt import Shots
from fingerpost.task.settings import Task

EXAMPLES = 6
"""Reviewed questions that a prompt shows."""
MIN_REVIEWS = 20
UNKNOWN = datetime.min.replace(tzinfo=UTC)
DOUBTFUL = 0.05
"""Estimated probability of an error from which on a label is doubtful."""


def doubtful_questions(
    task: Task, store: Store, embed: Callable[[Sequence[Question]], Array], limit: int
) -> list[tuple[Question, Shots]]:
    """The training questions whose label is most likely wrong, the most doubtful first.

    Each comes with the EXAMPLES nearest reviewed questions and their human labels, the nearest last. Questions that humans
    have decided are left out, and those that the teacher was asked with examples since the last review.

    Args:
        embed: computes unit vectors of questions, shape (questions, width).
        limit: number of questions at most.

    Raises:
        InputError: fewer than MIN_REVIEWS training questions were reviewed.
    """
    labelled = store.labelled(task.answers, task.teacher_model, "train")
    reviews = sum(bool(verdicts.votes("human")) for _, verdicts in labelled)
    if reviews < MIN_REVIEWS:
        raise InputError(
            f"{reviews} training questions were reviewed, {MIN_REVIEWS} are needed as examples; run 'fingerpost review'"
        )
    last_review = max(found.at or UNKNOWN for _, verdicts in labelled for found in verdicts.human)
    questions = [question for question, _ in labelled]
    evidence = collect_evidence(task, labelled, embed(questions))
    features = compute_features(evidence)
    error = consensus_of(evidence, features, task.student.seed).error_probability
    decided = np.union1d(evidence.reviewed, evidence.none_fits)
    asked = np.array(
        [row for row, (_, verdicts) in enumerate(labelled) if _asked_since(verdicts, last_review)], dtype=int
    )
    open_rows = np.setdiff1d(np.flatnonzero(error >= DOUBTFUL), np.union1d(decided, asked))
    chosen = open_rows[np.argsort(-error[open_rows], kind="stable")][:limit]
    found = []
    for row in chosen.tolist():
        similarity = features.embeddings[evidence.reviewed] @ features.embeddings[row]
        nearest = np.argsort(similarity)[-EXAMPLES:]
        shots = tuple(
            (questions[int(evidence.reviewed[i])].messages[-1].content, answer_of_row(task, evidence.human_votes[i]))
            for i in nearest
        )
        found.append((questions[row], shots))
    return found


def _asked_since(verdicts: QuestionVerdicts, time: datetime) -> bool:
    """Whether the teacher was asked with examples at this time or later."""
    return any(found.origin == WITH_EXAMPLES and (found.at or UNKNOWN) >= time for found in verdicts.valid)
