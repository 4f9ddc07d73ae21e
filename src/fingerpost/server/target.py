"""The cut-off of each model that is served, from the target that the user gave and the rows that show whether it is met."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from fingerpost import artifact
from fingerpost.cutoff import Cutoff, choose_cutoff
from fingerpost.opinions import LabelsFrom, known, shares
from fingerpost.server.settings import Settings
from fingerpost.store import Store

Choice = tuple[float | None, Cutoff | None]


def cutoffs(settings: Settings) -> Callable[[Path], Choice]:
    """What gives a model folder's cut-off; `math.inf`, everything to the teacher, where the target cannot be met.

    Of a project's model the dev questions are compared with the teacher's answers or with people's labels, of another
    with the labels in its validation rows. Models say of dev rows what they said before they learnt from them.
    """
    target = settings.agreement if settings.accuracy is None else settings.accuracy
    if settings.teacher is None:
        return lambda _: (None, None)
    if settings.cutoff is not None or target is None:
        return lambda _: (settings.cutoff, None)
    labels = _project_labels(settings, "teacher" if settings.accuracy is None else "human")

    def choose(folder: Path) -> Choice:
        answers = artifact.dev_answers(folder)
        named = folder.resolve().parent != settings.tuned.resolve()
        if labels is not None and named:
            rows = [(each, labels[each.id]) for each in answers if each.id in labels]
        else:
            rows = [(each, each.label) for each in answers]
        found = choose_cutoff(
            [each.confidence for each, _ in rows], [each.answer == label for each, label in rows], target
        )
        return (math.inf if found is None else found.value), found

    return choose


def _project_labels(settings: Settings, use: LabelsFrom) -> dict[str, str] | None:
    """The label of each dev question of the project, by the teacher or by people; None without a project."""
    if settings.project is None or settings.task is None or settings.teacher is None:
        return None
    names = set(settings.task.names)
    with Store(settings.project / "fingerpost.db") as store:
        dev = {question.id for question in store.questions("dev")}
        verdicts = {key: known(found, names) for key, found in store.verdicts().items() if key in dev}
    found = {key: shares(each, use, settings.teacher.model) for key, each in verdicts.items()}
    return {key: max(share, key=share.__getitem__) for key, share in found.items() if share}
