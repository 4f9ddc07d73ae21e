"""The models that are served: from folders that the user names, and from jobs. Loaded on use, swapped when they change."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fingerpost import students
from fingerpost.core.errors import FingerpostError, ModelError
from fingerpost.core.types import Label, Predictor
from fingerpost.server.inference.thresholds import Choice
from fingerpost.server.schemas import WireError
from fingerpost.store.server import ServerStore
from fingerpost.students import folder as artifact
from fingerpost.students.folder import Manifest
from fingerpost.task.prompt import answer_of, system_prompt
from fingerpost.task.reply_format import ReplyTemplate, UserTemplate
from fingerpost.task.settings import Task

KEPT = 16  # models of jobs that stay loaded
CHECKPOINT = ":ckpt-step-"


@dataclass(frozen=True, slots=True)
class Served:
    """A model as it is served."""

    name: str
    folder: Path
    student: Predictor
    task: Task
    form: ReplyTemplate
    frame: UserTemplate
    system: str
    created: int
    choice: Choice

    @property
    def cutoff(self) -> float | None:
        """Below this confidence the teacher is asked; never where it is None."""
        return self.choice.cutoff

    def label(self, name: str) -> Label:
        """The label of this name."""
        return next(label for label in self.task.labels if label.name == name)

    def answer(self, name: str) -> str | int:
        """What stands for a label in this model's replies."""
        return answer_of(self.label(name), self.form.codes)


def form_of(manifest: Manifest) -> ReplyTemplate:
    """How the model replies: as its training data did, else in JSON, with codes where the labels have some."""
    if manifest.reply_template is not None:
        return manifest.reply_template
    before, after = json.dumps({manifest.answer_field: "\x00"}).split(json.dumps("\x00"))
    codes = any(label.code is not None for label in manifest.labels)
    return ReplyTemplate(before=before, after=after, json_value=True, codes=codes)


class Models:
    """The models by name.

    Args:
        named: folders by the name that they are served under; the first answers `/v1/route` requests without a model.
        store: knows the jobs; `folder` holds their models.
        task: of the project, for the teacher's prompt of models that are of this task.
        choose: the cut-off of a model, from its folder.

    Raises:
        ModelError: one of the named folders cannot be loaded.
    """

    def __init__(
        self,
        named: dict[str, Path],
        store: ServerStore,
        folder: Path,
        task: Task | None = None,
        choose: Callable[[Path], Choice] = lambda _: Choice(),
    ) -> None:
        self._store, self._folder, self._task, self._choose = store, folder, task, choose
        self._lock = threading.Lock()
        self._paths = dict(named)
        self._stamps = {name: _stamp(path) for name, path in named.items()}
        self._named = {name: self._load(name, path) for name, path in named.items()}
        self._tuned: OrderedDict[str, Served] = OrderedDict()

    @property
    def named(self) -> Sequence[Served]:
        """The models from folders."""
        return list(self._named.values())

    def ready(self, name: str | None) -> Served | None:
        """The model, if it is loaded. Without a name, the first."""
        if name is None:
            return next(iter(self._named.values()), None)
        if (found := self._named.get(name)) is not None:
            return found
        with self._lock:
            base = name.split(CHECKPOINT)[0]
            if base in self._tuned:
                self._tuned.move_to_end(base)
            return self._tuned.get(base)

    def get(self, name: str | None) -> Served:
        """The model, loaded if need be, which takes a while.

        Raises:
            WireError: 404, there is none of this name; 500, its folder is damaged.
        """
        if (found := self.ready(name)) is not None:
            return found
        if name is None:
            raise WireError(404, "name a model: this server has none of its own folders", code="model_not_found")
        base = name.split(CHECKPOINT)[0]
        job = self._store.job_of_model(base)
        if job is None:
            here = ", ".join(self._named) or "none yet"
            raise WireError(
                404, f"there is no model '{name}' here (models: {here}, and those of GET /v1/models)",
                code="model_not_found", param="model",
            )  # fmt: skip
        with self._lock:
            if base not in self._tuned:
                try:
                    self._tuned[base] = self._load(base, self._folder / job["id"])
                except FingerpostError as error:
                    raise WireError(500, f"the model '{base}' is damaged: {error}", code="model_damaged") from None
            self._tuned.move_to_end(base)
            while len(self._tuned) > KEPT:
                self._tuned.popitem(last=False)
            return self._tuned[base]

    def forget(self, name: str) -> None:
        """Unload a job's model."""
        with self._lock:
            self._tuned.pop(name, None)

    def refresh(self) -> list[tuple[str, str | None]]:
        """Load anew what has changed on disk; (name, what went wrong, if something did: then the old one stays)."""
        done: list[tuple[str, str | None]] = []
        for name, path in self._paths.items():
            stamp = _stamp(path)
            if stamp is None or stamp == self._stamps[name]:
                continue
            try:
                self._named[name] = self._load(name, path)
            except FingerpostError as error:
                done.append((name, str(error)))
            else:
                done.append((name, None))
            self._stamps[name] = stamp
        return done

    def _load(self, name: str, path: Path) -> Served:
        student: Any = students.load(path)
        manifest: Manifest = student.manifest
        if manifest.kind == "hosted":
            raise ModelError(f"{path} is a model at a provider, which serves it; name a model of this machine")
        task = Task(name=manifest.name, labels=tuple(manifest.labels), answer_field=manifest.answer_field)
        if self._task is not None and self._task.names == task.names:
            task = self._task
        form = form_of(manifest)
        return Served(
            name=name,
            folder=path,
            student=student,
            task=task,
            form=form,
            frame=manifest.user_template,
            system=manifest.system or system_prompt(task, codes=form.codes),
            created=int((path / artifact.MANIFEST).stat().st_mtime),
            choice=self._choose(path),
        )


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Changes when the folder's manifest is written anew."""
    try:
        found = (path / artifact.MANIFEST).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
