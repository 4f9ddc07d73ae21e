"""How many of a project's questions are unlike each other?

Usage: unique.py FOLDER

Printed is the share of questions that are like no earlier one of the project: by letters (the near-duplicate search of
`fingerpost import`), and by meaning (cosine of embeddings below 0.95).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from fingerpost.data.duplicates import DuplicateIndex
from fingerpost.project import Project

NEAR = 0.95


def unique(project: Project) -> dict[str, float]:
    """`questions` counts them; `by_letters` and `by_meaning` are shares of them."""
    with project.store() as store:
        questions = store.questions()
    alike, new = DuplicateIndex(), 0
    for question in questions:
        new += not alike.add(question.messages)
    vectors = project.embed(questions)
    near = (np.tril(vectors @ vectors.T, -1) >= NEAR).any(1)
    return {"questions": len(questions), "by_letters": new / len(questions), "by_meaning": 1 - float(near.mean())}


if __name__ == "__main__":
    found = unique(Project(Path(sys.argv[1])))
    print("{questions} questions; unique {by_letters:.3f} by letters, {by_meaning:.3f} by meaning".format(**found))
