"""Share of a project's questions that are no duplicates or near-duplicates.

Usage: unique.py FOLDER

Prints the share of questions that are similar to no earlier question of the project: by letters (the near-duplicate
search of `fingerpost import`), and by meaning (cosine of embeddings below 0.95).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from fingerpost.data.duplicates import DuplicateIndex
from fingerpost.project import Project

DUPLICATE_COSINE = 0.95


def unique(project: Project) -> dict[str, float]:
    """The number of `questions`, and the shares that are unique `by_letters` and `by_meaning`."""
    with project.store() as store:
        questions = store.questions()
    alike, unique_count = DuplicateIndex(), 0
    for question in questions:
        unique_count += not alike.add(question.messages)
    vectors = project.embed(questions)
    duplicate = (np.tril(vectors @ vectors.T, -1) >= DUPLICATE_COSINE).any(1)
    return {
        "questions": len(questions),
        "by_letters": unique_count / len(questions),
        "by_meaning": 1 - float(duplicate.mean()),
    }


if __name__ == "__main__":
    found = unique(Project(Path(sys.argv[1])))
    print("{questions} questions; unique {by_letters:.3f} by letters, {by_meaning:.3f} by meaning".format(**found))
