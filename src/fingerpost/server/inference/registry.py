"""The served models: from folders named at the start, and from fine-tuning jobs."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from cachetools import LRUCache

from fingerpost import students
from fingerpost.core.errors import FingerpostError, ModelError, TeacherError
from fingerpost.core.types import Label
from fingerpost.core.utils import require_extra
from fingerpost.evaluation.thresholds import CutoffChoice
from fingerpost.server.ops.logs import log
from fingerpost.server.schemas import ApiError
from fingerpost.store.server import ServerStore
from fingerpost.students.encoder.predict import EncoderStudent
from fingerpost.students.folder import MANIFEST, Manifest, epoch_folder, epoch_folders, read_manifest, task_of
from fingerpost.task.prompt import answer_of, reply_value, system_prompt
from fingerpost.task.reply_format import ReplyTemplate, UserTemplate, json_template
from fingerpost.task.settings import Task

MAX_JOB_MODELS, MAX_WRITERS = 16, 4
"""Loaded classifiers of fine-tuning jobs, and language models, of which each may be a process of its own."""
CHECKPOINT = ":ckpt-step-"
JOB_MODEL = "ft:"
"""The beginning of the names of jobs' models."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A loaded model.

    Attributes:
        reply_template: the text around the label in replies.
        user_template: the constant text around what users say, which the student does not see.
        system_prompt: the prompt that the teacher gets where the client sends none.
        created: when the model was written, in seconds since 1970.
        choice: the chosen cut-off and how it was found.
        companions: models for the further fields of its replies.
        reply_schema: of such replies, their JSON schema.
    """

    name: str
    folder: Path
    student: EncoderStudent
    task: Task
    reply_template: ReplyTemplate
    user_template: UserTemplate
    system_prompt: str
    created: int
    choice: CutoffChoice
    companions: tuple[ServedModel, ...] = ()
    reply_schema: dict[str, Any] | None = None

    @property
    def cutoff(self) -> float | None:
        """Requests with a lower confidence go to the teacher; None sends none."""
        return self.choice.cutoff

    def label(self, name: str) -> Label:
        """The label with this name."""
        return next(label for label in self.task.labels if label.name == name)

    def value_of(self, name: str) -> str | int:
        """A label's name or code, whichever this model's replies use."""
        return answer_of(self.label(name), self.reply_template.codes)

    def reply_value(self, answer: str) -> str | int | list[str | int]:
        """What a reply says for an answer: a label's name or code; of a multi-label model, a list of them."""
        return reply_value(self.task, answer, self.reply_template.codes)


@dataclass(frozen=True, slots=True)
class ServedWriter:
    """A loaded model that writes its replies: texts, or JSON of several fields.

    Attributes:
        created: when the model was written, in seconds since 1970.
    """

    name: str
    folder: Path
    student: Any
    created: int


AnyModel: TypeAlias = ServedModel | ServedWriter


def reply_template_of(manifest: Manifest) -> ReplyTemplate:
    """The format of the model's training data; without one, JSON with the labels' codes or else their names."""
    if manifest.reply_template is not None:
        return manifest.reply_template
    return json_template(manifest.answer_field, any(label.code is not None for label in manifest.labels))


class ModelRegistry:
    """The served models by name.

    Args:
        folders: model folders by the name that they are served under; the first is the default model.
        store: lists the fine-tuning jobs.
        tuned: folder of the jobs' models, named by job id.
        task: the project's task; models with the same labels use it in prompts to the teacher.
        choose_cutoff: chooses the cut-off of the model in a folder.
        engine: base URL of the endpoint that runs the models that write their replies, under the same names.

    Raises:
        ModelError: a model folder cannot be loaded.
    """

    def __init__(
        self,
        folders: dict[str, Path],
        store: ServerStore,
        tuned: Path,
        task: Task | None = None,
        choose_cutoff: Callable[[Path], CutoffChoice] = lambda _: CutoffChoice(),
        engine: str | None = None,
    ) -> None:
        self._engine = engine
        self._store, self._tuned, self._task, self._choose_cutoff = store, tuned, task, choose_cutoff
        self._lock = threading.Lock()
        self._folders = dict(folders)
        self._stamps = {name: _stamp(path) for name, path in folders.items()}
        self._folder_models = {name: self._read(name, path) for name, path in folders.items()}
        self._loading = threading.Lock()  # held for as long as a model takes to load, never in the event loop
        self._job_models: LRUCache[str, ServedModel] = LRUCache(MAX_JOB_MODELS)
        self._writers: LRUCache[str, ServedWriter] = LRUCache(MAX_WRITERS)

    @property
    def folder_models(self) -> Sequence[ServedModel]:
        """The classifiers that were named at the start."""
        return [model for model in self._folder_models.values() if isinstance(model, ServedModel)]

    @property
    def named_models(self) -> Sequence[AnyModel]:
        """All models that were named at the start."""
        return list(self._folder_models.values())

    async def find(self, name: str | None) -> ServedModel:
        """The classifier with this name, or the default model; loaded in a thread where needed.

        Raises:
            ApiError: 404, there is no such model; 400, it writes texts; 500, its folder is damaged.
        """
        model = await self.find_any(name)
        if isinstance(model, ServedWriter):
            message = f"'{model.name}' writes texts and has no labels; ask it with POST /v1/chat/completions"
            raise ApiError(400, message, code="not_a_classifier", param="model")
        return model

    async def find_any(self, name: str | None) -> AnyModel:
        """The model with this name, or the default model; see `find`."""
        model = self._loaded(name)
        return model if model is not None else await asyncio.to_thread(self._load, name)

    def has(self, name: object) -> bool:
        """Whether a model of this name is served; may read the database."""
        if not isinstance(name, str):
            return False
        if name in self._folder_models:
            return True
        return name.startswith(JOB_MODEL) and self._store.job_of_model(name.split(CHECKPOINT)[0]) is not None

    def _loaded(self, name: str | None) -> AnyModel | None:
        if name is None:
            return next(iter(self._folder_models.values()), None)
        if (model := self._folder_models.get(name)) is not None:
            return model
        with self._lock:
            return self._job_models.get(name.split(CHECKPOINT)[0]) or self._writers.get(name)

    def _load(self, name: str | None) -> AnyModel:
        if name is None:
            raise ApiError(
                404, "this server has no default model; send the name of a model in 'model'", code="model_not_found"
            )
        base = name.split(CHECKPOINT)[0]
        job = self._store.job_of_model(base)
        if job is None:
            available = ", ".join(self._folder_models) or "none yet"
            raise ApiError(
                404, f"there is no model '{name}'; use one of these ({available}) or one that GET /v1/models lists",
                code="model_not_found", param="model",
            )  # fmt: skip
        folder = self._tuned / job.id
        if name != base and epoch_folders(folder):  # a classifier has one checkpoint, which is its model
            found = epoch_folder(folder, name.removeprefix(f"{base}{CHECKPOINT}"))
            if found is None:
                message = f"there is no checkpoint '{name}'; GET /v1/fine_tuning/jobs/{job.id}/checkpoints lists them"
                raise ApiError(404, message, code="model_not_found", param="model")
            folder = found
        with self._loading:
            model = self._loaded(name)
            if model is None:
                try:
                    model = self._read(name if folder.name != job.id else base, folder)
                except FingerpostError as error:
                    raise ApiError(500, f"the model '{base}' is damaged: {error}", code="model_damaged") from None
                with self._lock:
                    if isinstance(model, ServedWriter):
                        self._writers[name] = model
                    else:
                        self._job_models[base] = model
            return model

    def unload(self, name: str) -> None:
        """Remove a job's model and its checkpoints from memory."""
        with self._lock:
            self._job_models.pop(name, None)
            for known in [known for known in self._writers if known.split(CHECKPOINT)[0] == name]:
                del self._writers[known]

    def reload_changed(self) -> list[tuple[str, str | None]]:
        """Reload the models whose folder has changed.

        Returns the name of each, with the error where it could not be loaded; the old model is then still served.
        """
        results: list[tuple[str, str | None]] = []
        for name, path in self._folders.items():
            stamp = _stamp(path)
            if stamp is None or stamp == self._stamps[name]:
                continue
            try:
                self._folder_models[name] = self._read(name, path)
            except FingerpostError as error:
                results.append((name, str(error)))
            else:
                results.append((name, None))
            self._stamps[name] = stamp
        return results

    def _read(self, name: str, path: Path) -> AnyModel:
        manifest = read_manifest(path)
        if not manifest.labels:
            created = int((path / MANIFEST).stat().st_mtime)
            return ServedWriter(name, path, _writer(name, path, manifest, self._engine), created)
        model = read_model(name, path, self._choose_cutoff(path), self._task)
        folders = [path.with_name(other) for other in model.student.manifest.companions]
        companions = (read_model(other.name, other, self._choose_cutoff(other), self._task) for other in folders)
        return replace(model, companions=tuple(companions))


def _writer(name: str, path: Path, manifest: Manifest, engine: str | None) -> Any:
    """The model in a folder, as it is run: by an engine, by llama.cpp, or by torch.

    Raises:
        MissingExtra: the extra `lora` is not installed.
        ModelError: it cannot be loaded.
    """
    require_extra("lora", f"the model '{name}'")
    from fingerpost.students.lora.engine import EngineWriter, in_llama_cpp, runs_in_llama_cpp

    if engine is not None:
        return EngineWriter(manifest, engine, name)
    if runs_in_llama_cpp(manifest):
        try:
            return in_llama_cpp(path, manifest)
        except (ModelError, TeacherError) as error:  # it does not know every architecture that torch can run
            log("llama.cpp cannot run a model", logging.WARNING, model=name, problem=str(error))
    return students.load(path)


def read_model(name: str, path: Path, choice: CutoffChoice, project_task: Task | None = None) -> ServedModel:
    """The model in a folder, without companions.

    Args:
        project_task: used in prompts, if its labels are those of the model.

    Raises:
        ModelError: the folder is damaged, or its model is at a provider.
    """
    student: Any = students.load(path)
    manifest: Manifest = student.manifest
    if manifest.kind == "hosted":
        raise ModelError(f"{path} is a model that its provider serves; name the folder of a local model instead")
    task = task_of(manifest)
    if project_task is not None and (project_task.names, project_task.multi) == (task.names, task.multi):
        task = project_task
    reply_template = reply_template_of(manifest)
    return ServedModel(
        name=name,
        folder=path,
        student=student,
        task=task,
        reply_template=reply_template,
        user_template=manifest.user_template,
        system_prompt=manifest.system or system_prompt(task, codes=reply_template.codes),
        created=int((path / MANIFEST).stat().st_mtime),
        choice=choice,
        reply_schema=manifest.reply_schema,
    )


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """A value that changes when the folder's manifest is replaced; None where there is none."""
    try:
        status = (path / MANIFEST).stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
