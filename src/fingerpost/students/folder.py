"""The model folder: a manifest, and the files whose hashes it lists. No pickle; nothing is loaded unchecked."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, Field, ValidationError

from fingerpost.core.errors import InputError, ModelError
from fingerpost.core.types import Label
from fingerpost.core.version import __version__
from fingerpost.task.prompt import prompt_fingerprint
from fingerpost.task.reply_format import ReplyTemplate, UserTemplate
from fingerpost.task.settings import Task

MANIFEST = "manifest.json"
TRAINED_ON = "trained_on.txt"
DEV_ANSWERS = "dev.jsonl"


class Manifest(BaseModel):
    """A model folder's description of itself.

    Attributes:
        kind: the kind of student, such as `encoder` or `hosted`.
        reply_template, user_template, system: the form of the replies, the constant text around users' messages and the
            system prompt of the training data, where that was chat JSONL.
        hosted: of a model at a provider, its name, address and key variable.
        history: how many earlier turns the student sees; max_tokens: how many tokens it reads.
        temperature: divides the logits before the softmax.
        labels_from: number of training labels by source.
        files: SHA-256 of every file in the folder.
    """

    format: Literal[1] = 1
    kind: str
    name: str
    created: str
    fingerpost: str
    labels: list[Label]
    answer_field: str
    reply_template: ReplyTemplate | None = Field(None, validation_alias=AliasChoices("reply_template", "reply"))
    user_template: UserTemplate = Field(UserTemplate(), validation_alias=AliasChoices("user_template", "frame"))
    system: str = ""
    hosted: dict[str, str] = {}
    history: int
    max_tokens: int
    temperature: float = 1.0
    precision: Literal["int8", "fp32"] = "fp32"
    encoder: dict[str, str] = {}
    task_fingerprint: str
    data_fingerprint: str = ""
    labels_from: dict[str, int] = {}
    seed: int = 0
    training: dict[str, Any] = {}
    versions: dict[str, str] = {}
    files: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class DevAnswer:
    """A dev row: its question's id, the label it has, the model's answer and its calibrated confidence."""

    id: str
    label: str
    answer: str
    confidence: float


def read_manifest(folder: Path) -> Manifest:
    """The folder's manifest, after the hash of every file in it has been checked.

    Raises:
        ModelError: no folder, no or a broken manifest, a file missing or altered.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ModelError(f"{folder} is no model folder (it has no {MANIFEST}); train one with 'fingerpost train'")
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or MANIFEST
        raise ModelError(f"{path} cannot be read ({where}: {first['msg']}); train the model again") from None
    for name, expected in manifest.files.items():
        file = folder / name
        if not file.is_file():
            raise ModelError(f"{folder} is incomplete: {name} is missing; copy the whole folder, or train again")
        if sha256(file) != expected:
            raise ModelError(
                f"{file} is not the file that was trained (its hash differs); copy it again, or train again"
            )
    return manifest


def manifest_of(kind: str, name: str, task: Task, **fields: Any) -> Manifest:
    """The manifest of a model for this task, without files."""
    given: dict[str, Any] = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "fingerpost": __version__,
        "labels": list(task.labels),
        "answer_field": task.answer_field,
        "history": task.student.history,
        "max_tokens": 0,
        "task_fingerprint": prompt_fingerprint(task),
        **fields,
    }
    return Manifest(kind=kind, name=name, **given)


def task_of(manifest: Manifest) -> Task:
    """The task that a model was made for, as far as its manifest knows it."""
    return Task(name=manifest.name, labels=tuple(manifest.labels), answer_field=manifest.answer_field)


def copy_model(folder: Path, target: Path) -> None:
    """Copy a model folder; an older model at the target is replaced at once.

    Raises:
        InputError: the target exists and is no model folder.
    """
    with writing(target) as fresh:
        shutil.copytree(folder, fresh, dirs_exist_ok=True)


def require_free(folder: Path) -> None:
    """Raises InputError where the folder exists and is no model folder."""
    if folder.exists() and not (folder / MANIFEST).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is no model folder; choose another name for the model")


@contextmanager
def writing(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder` that takes its place when all went well: a reader never sees half a model.

    Raises:
        InputError: `folder` exists and is no model folder.
    """
    require_free(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        fresh.chmod(0o755)
        yield fresh
        old = fresh.with_name(fresh.name + "-old")
        if folder.exists():
            folder.replace(old)
        fresh.replace(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def matches_task(manifest: Manifest, task: Task) -> bool:
    """Whether a model was made for the task as it is now: same prompt, encoder, history and seed."""
    return (
        manifest.task_fingerprint == prompt_fingerprint(task)
        and manifest.encoder.get("name") == task.student.encoder
        and manifest.history == task.student.history
        and manifest.seed == task.student.seed
    )


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Write the manifest last, with the hashes of all files that are there; returns it so completed."""
    files = {file.name: sha256(file) for file in sorted(folder.iterdir()) if file.name != MANIFEST}
    complete = manifest.model_copy(update={"files": files})
    (folder / MANIFEST).write_text(complete.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return complete


def trained_on(folder: Path) -> set[str]:
    """The ids of the questions that a model has learnt from."""
    file = folder / TRAINED_ON
    return set(file.read_text(encoding="ascii").split()) if file.is_file() else set()


def write_dev_answers(folder: Path, answers: Iterable[DevAnswer]) -> None:
    """Keep what the model said of dev rows before it learnt from them: on these a cut-off can be chosen."""
    lines = (json.dumps(asdict(each), ensure_ascii=False) + "\n" for each in answers)
    (folder / DEV_ANSWERS).write_text("".join(lines), encoding="utf-8")


def dev_answers(folder: Path) -> list[DevAnswer]:
    """What `write_dev_answers` kept; nothing where the model is older than that."""
    file = folder / DEV_ANSWERS
    if not file.is_file():
        return []
    return [DevAnswer(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]


def sha256(file: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
