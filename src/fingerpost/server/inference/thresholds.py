"""The cut-off of each model that is served, from the target that the user gave and the rows that show whether it is met."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fingerpost.core.verdicts import LabelsFrom
from fingerpost.server.settings import Settings
from fingerpost.store.project import Store
from fingerpost.students import folder as artifact
from fingerpost.students.cutoff import Cutoff, choose_cutoff


@dataclass(frozen=True, slots=True)
class Choice:
    """A cut-off: None where nothing goes to the teacher, `math.inf` where everything does.

    `found` is what `rows` dev rows show of it, compared with `against`; None where it was given, or they show it for none.
    """

    cutoff: float | None = None
    found: Cutoff | None = None
    against: str = ""
    rows: int = 0


def cutoffs(settings: Settings) -> Callable[[Path], Choice]:
    """What gives a model folder's cut-off.

    Of a project's model the dev questions are compared with the teacher's answers or with people's labels, of another
    with the labels in its validation rows. Models say of dev rows what they said before they learnt from them.
    """
    target = settings.agreement if settings.accuracy is None else settings.accuracy
    if settings.teacher is None:
        return lambda _: Choice()
    if settings.cutoff is not None or target is None:
        return lambda _: Choice(settings.cutoff)

    def choose(folder: Path) -> Choice:
        answers = {each.id: each for each in artifact.dev_answers(folder)}  # a text that comes twice counts once
        labels, against = {each.id: each.label for each in answers.values()}, "the labels of its validation rows"
        if settings.project is not None and folder.resolve().parent != settings.tuned.resolve():
            use: LabelsFrom = "teacher" if settings.accuracy is None else "human"
            labels = _project_labels(settings, use)
            against = "the teacher's answers" if use == "teacher" else "people's labels"
        rows = [(each, labels[key]) for key, each in answers.items() if key in labels]
        found = choose_cutoff(
            [each.confidence for each, _ in rows], [each.answer == label for each, label in rows], target
        )
        return Choice(math.inf if found is None else found.value, found, against, len(rows))

    return choose


def _project_labels(settings: Settings, use: LabelsFrom) -> dict[str, str]:
    """The label of each dev question of the project, by the teacher or by people."""
    assert settings.project is not None
    assert settings.task is not None
    assert settings.teacher is not None
    with Store(settings.project / "fingerpost.db") as store:
        labelled = store.labelled(settings.task.names, settings.teacher.model, "dev")
    return {question.id: label for question, verdicts in labelled if (label := verdicts.label(use))}
