"""The cut-off of each served model, from the target that the user gave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fingerpost.evaluation.thresholds import CascadeTarget, CutoffChoice, choose_for_folder, choose_for_project
from fingerpost.server.settings import Settings
from fingerpost.store.project import Store
from fingerpost.store.server import DATABASE


def cutoffs(settings: Settings) -> Callable[[Path], CutoffChoice]:
    """A function that chooses the cut-off of a model folder.

    The dev questions of a project's model are compared with human labels or the teacher's answers, those of a job's
    model with the labels in its validation rows.
    """
    target = settings.agreement if settings.accuracy is None else settings.accuracy
    if settings.teacher is None:
        return lambda _: CutoffChoice()
    project, task, teacher = settings.project, settings.task, settings.teacher.model

    def choose(folder: Path) -> CutoffChoice:
        if project is not None and task is not None and folder.resolve().parent != settings.tuned.resolve():
            with Store(project / DATABASE) as store:
                wanted = CascadeTarget(settings.accuracy, settings.agreement, settings.cutoff)
                return choose_for_project(task, store, folder, wanted, teacher)
        return CutoffChoice(settings.cutoff) if target is None else choose_for_folder(folder, target)

    return choose
