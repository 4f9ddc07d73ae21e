"""Questions whose label is most doubtful, with the reviewed questions nearest to each: to ask the teacher again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fingerpost.consensus.evidence import answer_of_row, collect_evidence, compute_features, consensus_of
from fingerpost.consensus.model import Array
from fingerpost.core.errors import InputError
from fingerpost.core.types import Question
from fingerpost.store.project import Store
from fingerpost.task.prompt import Shots
from fingerpost.task.settings import Task

EXAMPLES = 6
"""Reviewed questions that a prompt shows."""
MIN_REVIEWS = 20
DOUBTFUL = 0.05
"""Estimated probability of an error from which on a label is doubtful."""


def doubtful_questions(
    task: Task, store: Store, embed: Callable[[Sequence[Question]], Array], limit: int
) -> list[tuple[Question, Shots]]:
    """The training questions whose label is most likely wrong, the most doubtful first.

    Each comes with the EXAMPLES nearest reviewed questions and their human labels, the nearest last. Questions that humans
    have decided are left out.

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
    questions = [question for question, _ in labelled]
    evidence = collect_evidence(task, labelled, embed(questions))
    features = compute_features(evidence)
    error = consensus_of(evidence, features, task.student.seed).error_probability
    decided = np.union1d(evidence.reviewed, evidence.none_fits)
    open_rows = np.setdiff1d(np.flatnonzero(error >= DOUBTFUL), decided)
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
