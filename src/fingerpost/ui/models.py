"""The models of a project, kept loaded."""

from __future__ import annotations

import threading

from fingerpost.core.types import Predictor
from fingerpost.project import Project
from fingerpost.students import load
from fingerpost.students.folder import MANIFEST


class ProjectModels:
    """Loads a project's models when they are asked for, and again when they have changed."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._loaded: dict[str, tuple[int, Predictor]] = {}
        self._lock = threading.Lock()

    def get(self, name: str) -> Predictor | None:
        """The model in this folder of the project's models, if there is one."""
        folder = self._project.models / name
        try:
            stamp = (folder / MANIFEST).stat().st_mtime_ns
        except OSError:
            return None
        with self._lock:
            if self._loaded.get(name, (0, None))[0] != stamp:
                self._loaded[name] = stamp, load(folder)
            return self._loaded[name][1]
