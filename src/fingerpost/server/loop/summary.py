"""How the decisions stand: traffic, agreement, accuracy by human labels, what is saved, and the next step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fingerpost.evaluation.drift import confidence_sequence
from fingerpost.evaluation.metrics import prediction_powered, proportion
from fingerpost.evaluation.results import Interval
from fingerpost.project import STUDENT, Project
from fingerpost.server.loop.projects import answers_missing, is_same_prompt, task_of_decision
from fingerpost.store.server import ServerStore
from fingerpost.store.server_rows import DecisionCounts, DecisionRow, RepeatedPrompt
from fingerpost.students.folder import dev_answers
from fingerpost.task.loader import TASK_FILE

FEWEST_SAMPLED = 20
"""Human labels of dev questions, which are drawn at random, from which on they alone are measured on."""


@dataclass(frozen=True, slots=True)
class HumanMeasured:
    """Accuracy by human labels of questions that the student had not learnt from when it answered them.

    Attributes:
        n: the questions with a human label.
        at_random: they are a random sample of the dev questions, and the student's accuracy is estimated with the help of all
            others (prediction-powered inference). Else they are from the review queue, where the hard questions come first.
    """

    n: int
    at_random: bool
    student: Interval
    upstream: Interval


@dataclass(frozen=True, slots=True)
class Summary:
    """How a version of a decision stands.

    Attributes:
        project: the folder of its project.
        checked, differing: answers of the student in service that were compared with the upstream's, and those that differ.
        bounds: a 95 % confidence sequence for the share that differ.
        humans: None without human labels.
        saved_usd, saved_s: money, where the price is known, and mean seconds of an answer that the student has saved.
        panel: requests of its fixed panel.
        next_step: what to do next.
    """

    row: DecisionRow
    panel: int
    counts: DecisionCounts
    project: Path
    checked: int
    differing: int
    bounds: tuple[float, float]
    humans: HumanMeasured | None
    saved_usd: float | None
    saved_s: float | None
    next_step: str


def summarise(store: ServerStore, row: DecisionRow, folder: Path) -> Summary:
    """How a decision stands.

    Args:
        folder: of the projects of all decisions.
    """
    counts = store.decision_counts(row.id)
    outcomes = str(row.monitor.get("outcomes", ""))
    differing = outcomes.count("1")
    saved_s = None if counts.upstream_s is None or counts.student_s is None else counts.upstream_s - counts.student_s
    panel = store.get_panel(row.id)
    return Summary(
        row=row,
        panel=0 if panel is None else len(panel["requests"]),
        counts=counts,
        project=folder / row.folder,
        checked=len(outcomes),
        differing=differing,
        bounds=confidence_sequence(len(outcomes), differing),
        humans=_by_humans(folder / row.folder),
        saved_usd=None if counts.cost_usd is None else counts.cost_usd * counts.by_student,
        saved_s=saved_s,
        next_step=_next_step(row, store.count_answers(row.id, row.imported), folder / row.folder),
    )


def unnamed_prompts(store: ServerStore) -> list[RepeatedPrompt]:
    """The prompts whose replies repeat, less those that are known as decisions by now."""
    known = [row.prompt for row in store.decisions()]
    return [
        one for one in store.repeated_prompts() if not any(is_same_prompt(one.prompt, prompt, True) for prompt in known)
    ]


def _by_humans(place: Path) -> HumanMeasured | None:
    """The accuracy on the questions of a project that have a human label, an upstream answer and an answer of the student."""
    if not (place / TASK_FILE).is_file() or not (place / "models" / STUDENT).is_dir():
        return None
    project = Project(place)
    answers = {one.id: one.answer for one in dev_answers(project.models / STUDENT, cross_validated=True)}
    found: dict[str, list[tuple[bool, bool, bool]]] = {"train": [], "dev": []}
    others: list[bool] = []
    with project.store() as store:
        for question, verdicts in store.stream_labelled(project.task.answers, None, "train", "dev"):
            label, upstream, student = verdicts.label("human"), verdicts.label("teacher"), answers.get(question.id)
            if upstream is None or student is None:
                continue
            if label is not None:
                found[question.split].append((student == upstream, student == label, upstream == label))
            elif question.split == "dev":
                others.append(student == upstream)
    at_random = len(found["dev"]) >= FEWEST_SAMPLED
    judged = found["dev"] if at_random else [*found["train"], *found["dev"]]
    if not judged:
        return None
    agreed, right, upstream_right = np.array(judged).T
    estimate = prediction_powered(np.array(others, dtype=bool), agreed, right) if at_random else proportion(right)
    return HumanMeasured(len(judged), at_random, estimate, proportion(upstream_right))


def _next_step(row: DecisionRow, new: int, project: Path) -> str:
    """What to do next about a decision; `new` is the number of answers that are not learnt yet."""
    training, missing = row.training, answers_missing(row, new)
    command = f"fingerpost decisions {row.name} --mode"
    if row.labels and task_of_decision(row) is None:
        return "nothing: it has fewer than two labels"
    if not training.get("rows"):
        if training.get("problem"):
            return f"wait for more answers, because no student could be trained: {training['problem']}"
        return f"wait for {missing:,} more answers" if missing > 0 else "wait: a student is being trained"
    more = max(1, missing)
    if row.alarm is not None and row.mode == "shadow":
        return f"wait for {more:,} more answers, until another student is trained"
    if row.mode == "observe":
        return f"compare the student with every answer: {command} shadow"
    if training.get("cutoff") is None:
        return f"wait for {more:,} more answers, because too few are known to prove a cut-off"
    if row.mode == "shadow":
        return f"let the student answer some requests: {command} canary --share 0.05"
    if row.mode == "canary":
        return f"let it answer all requests that it is sure of: {command} on"
    return f"review the questions that teach it most: fingerpost review {project}"
