"""The model folder: a manifest, and files whose hashes it lists.

There are no pickle files, and hashes are checked before anything is loaded.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
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
TRAIN_ANSWERS = "train.jsonl"
STEPS = "steps.jsonl"
MODEL_FILE = "model.onnx"
TOKENIZER_FILE = "tokenizer.json"
LEXICAL_FILE = "lexical.npz"
ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
EPOCH_NAME, CHECKPOINT_END = "~step-", ".checkpoint"
CHECKPOINT_WRITTEN = "checkpoint"
"""What `Progress.detail` says when training can go on from here after an interruption."""
OPENED = (
    MODEL_FILE,
    TOKENIZER_FILE,
    LEXICAL_FILE,
    TRAINED_ON,
    DEV_ANSWERS,
    TRAIN_ANSWERS,
    STEPS,
    ADAPTER,
    ADAPTER_CONFIG,
)
"""The files that are opened beside the manifest. Each of them that is there has to be listed."""


class Stack(BaseModel):
    """The weights of the views' scores. A view with weight 0 is not part of the model.

    Attributes:
        intercept: of a multi-label model, is added to every logit.
        familiarity: the lexical view is not asked about texts that are less familiar to it, such as those in another
            language; see `LexicalView.scores_and_familiarity`.
    """

    encoder: float = 1.0
    lexical: float = 0.0
    intercept: float = 0.0
    familiarity: float = 0.0

    def combine(self, encoder: NDArray[np.float32], lexical: NDArray[np.float32]) -> NDArray[np.float32]:
        """The logits from the scores of both views, shape (rows, labels)."""
        logits: NDArray[np.float32] = np.float32(self.encoder) * encoder + np.float32(self.lexical) * lexical
        return logits + np.float32(self.intercept)


class MultiLabel(BaseModel):
    """How a multi-label model decides.

    Attributes:
        thresholds: the probability from which on each label is given, shape (labels,).
        empty: whether a text may have no label.
        power: calibrates the confidence.
    """

    thresholds: list[float]
    empty: bool
    power: float = 1.0

    def decide(self, probabilities: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Which labels each row gets; both of shape (rows, labels). If none may be empty, the most probable is given."""
        chosen: NDArray[np.bool_] = probabilities >= np.array(self.thresholds)
        if not self.empty:
            bare = np.flatnonzero(~chosen.any(1))
            chosen[bare, probabilities[bare].argmax(1)] = True
        return chosen

    def confidence(self, probabilities: NDArray[np.floating], chosen: NDArray[np.bool_]) -> NDArray[np.floating]:
        """The probability that all of a row's labels are right, shape (rows,).

        It is the product over the labels, as if they were independent, raised to `power`.
        """
        result: NDArray[np.floating] = np.where(chosen, probabilities, 1 - probabilities).prod(1) ** self.power
        return result


class FastTier(BaseModel):
    """When the lexical view answers alone.

    Attributes:
        margin: the least difference of the two highest scores with which it answers.
        temperature: its scores are divided by it before the softmax.
        coverage: the share of held-out training rows that it answers.
        agreement: on these rows, the share in which the whole student gives the same label.
        at_least: lower bound of the agreement on new rows, at a confidence level of 95 %.
    """

    margin: float
    temperature: float
    coverage: float
    agreement: float
    at_least: float


class Manifest(BaseModel):
    """The description of a model, stored in its folder as manifest.json.

    Attributes:
        kind: the kind of student: `encoder`, `hosted` or `lora`.
        created: time of creation, ISO 8601.
        fingerpost: version that wrote the folder.
        reply_template, user_template, system: template of the replies, template of user messages and system prompt of
            the training data, if that was chat JSONL.
        companions: of replies with several fields, the names of the folders, beside this one, of the models of the others.
        reply_schema: of such replies, their JSON schema.
        hosted: for a model at a provider: its name, base URL and the environment variable of its API key.
        history: number of earlier turns that the student sees.
        max_tokens: number of tokens that the encoder reads at once; longer texts are read in windows.
        temperature: logits are divided by it before the softmax.
        stack: the weights of the views. Folders of earlier versions have the encoder view alone.
        fast: when the lexical view answers alone.
        ordinal: the labels are the levels of a scale, the lowest first.
        multi: of a multi-label model, how it decides. A model at a provider has no thresholds: its reply lists the labels.
        encoder: name, origin and hash of the pretrained encoder; of a generative student, of its base model.
        requested: `encoder` and `max_tokens` as they stood in the settings: `auto` and None leave the choice to training.
        task_fingerprint, data_fingerprint: fingerprints of the prompt and of the training data.
        trained_from: the training file as it was named, and its columns of texts and labels, where they were named.
        text_column: the training file's column of texts.
        fallback: the task's label for messages that no other label fits.
        labels_from: number of training labels by source.
        training: figures of the training run, such as rows and dev accuracy.
        versions: versions of the packages used.
        files: SHA-256 of every other file in the folder.
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
    companions: list[Annotated[str, Field(pattern=r"^[\w\-]+~[0-9]+$")]] = []
    reply_schema: dict[str, Any] | None = None
    hosted: dict[str, str] = {}
    history: int
    max_tokens: int
    temperature: float = 1.0
    stack: Stack = Stack()
    fast: FastTier | None = None
    ordinal: bool = False
    multi: MultiLabel | None = None
    precision: Literal["int8", "fp32"] = "fp32"
    encoder: dict[str, str] = {}
    requested: dict[str, Any] = {}
    task_fingerprint: str
    data_fingerprint: str = ""
    trained_from: dict[str, str] = {}
    text_column: str = ""
    fallback: str | None = None
    labels_from: dict[str, int] = {}
    seed: int = 0
    training: dict[str, Any] = {}
    versions: dict[str, str] = {}
    files: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class DevAnswer:
    """A dev row, or a cross-validated training row: the question's id, its label, the model's answer and its calibrated confidence (0 to 1)."""

    id: str
    label: str
    answer: str
    confidence: float


def read_manifest(folder: Path) -> Manifest:
    """Read a folder's manifest, and check the hash of every file that it lists and that no other file would be opened.

    Raises:
        ModelError: the folder or its manifest is missing or invalid, or a file is missing or altered.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ModelError(f"{folder} is no model folder (it has no {MANIFEST}); train a model with 'fingerpost train'")
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or MANIFEST
        raise ModelError(f"{path} cannot be read ({where}: {first['msg']}); train the model again") from None
    unlisted = sorted(name for name in OPENED if name not in manifest.files and (folder / name).exists())
    if unlisted:
        raise ModelError(f"{folder}: the manifest does not list {unlisted[0]}; remove that file, or train again")
    for name, expected in manifest.files.items():
        file = folder / name
        if Path(name).name != name:
            raise ModelError(f"{path} lists '{name}', which is no file of this folder; train the model again")
        if not file.is_file():
            raise ModelError(f"{folder} is incomplete: {name} is missing; copy the whole folder, or train again")
        if sha256(file) != expected:
            raise ModelError(
                f"{file} is not the file that was trained (its hash differs); copy it again, or train again"
            )
    return manifest


def manifest_of(kind: str, name: str, task: Task, **fields: Any) -> Manifest:
    """A manifest for a model of this task, without files. `fields` override the defaults."""
    given: dict[str, Any] = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "fingerpost": __version__,
        "labels": list(task.labels),
        "answer_field": task.answer_field,
        "fallback": task.fallback,
        "ordinal": task.ordinal,
        "history": task.student.history,
        "max_tokens": 0,
        "task_fingerprint": prompt_fingerprint(task),
        **fields,
    }
    return Manifest(kind=kind, name=name, **given)


def task_of(manifest: Manifest) -> Task:
    """The task that a model was trained for, with the name, labels and answer field in its manifest."""
    multi = manifest.multi is not None
    return Task(
        name=manifest.name,
        labels=tuple(manifest.labels),
        answer_field=manifest.answer_field,
        multi=multi,
        ordinal=manifest.ordinal,
    )


def copy_model(folder: Path, target: Path) -> None:
    """Copy a model folder, replacing a model at the target.

    Raises:
        InputError: the target exists and is not a model folder.
    """
    with writing(target) as staging:
        shutil.copytree(folder, staging, dirs_exist_ok=True)


def require_free(folder: Path) -> None:
    """Raises InputError if the folder is not empty and is not a model folder."""
    if folder.exists() and not (folder / MANIFEST).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is no model folder; choose another name for the model")


@contextmanager
def writing(folder: Path) -> Iterator[Path]:
    """Write a model folder: yields a temporary folder that replaces `folder` if the block succeeds.

    Readers never see an incomplete model.

    Raises:
        InputError: `folder` exists and is not a model folder.
    """
    require_free(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        staging.chmod(0o755)
        yield staging
        old = staging.with_name(staging.name + "-old")
        if folder.exists():
            folder.replace(old)
        staging.replace(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def matches_task(manifest: Manifest, task: Task) -> bool:
    """Whether a model was trained for the current task: same prompt, scale, encoder, tokens read at once, history and seed."""
    return (
        manifest.task_fingerprint == prompt_fingerprint(task)
        and manifest.ordinal == task.ordinal
        and manifest.requested.get("encoder", manifest.encoder.get("name")) == task.student.encoder
        and manifest.requested.get("max_tokens") == task.student.max_tokens
        and manifest.history == task.student.history
        and manifest.seed == task.student.seed
    )


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Write the manifest with the hashes of all files in the folder, and return it. Call this last."""
    files = {file.name: sha256(file) for file in sorted(folder.iterdir()) if file.name != MANIFEST}
    complete = manifest.model_copy(update={"files": files})
    (folder / MANIFEST).write_text(complete.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return complete


def trained_on(folder: Path) -> set[str]:
    """The ids of the questions that a model was trained on."""
    file = folder / TRAINED_ON
    return set(file.read_text(encoding="ascii").split()) if file.is_file() else set()


def epoch_folders(folder: Path) -> list[Path]:
    """The model folders that were kept of a model's last epochs, named `FOLDER~step-N`, the oldest first."""
    found = folder.parent.glob(f"{folder.name}{EPOCH_NAME}*")
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def epoch_folder(folder: Path, step: str) -> Path | None:
    """The model folder of the epoch that ended with this step; None if there is none."""
    found = folder.with_name(f"{folder.name}{EPOCH_NAME}{step}")
    return found if step.isdecimal() and found.is_dir() else None


def checkpoint_folder(folder: Path) -> Path:
    """The folder beside a model's folder where its training leaves what it needs to go on after an interruption."""
    return folder.with_name(f".{folder.name}{CHECKPOINT_END}")


def write_steps(folder: Path, steps: Iterable[Mapping[str, Any]]) -> None:
    """Write the metrics of each training step of a generative student."""
    (folder / STEPS).write_text("".join(json.dumps(step) + "\n" for step in steps), encoding="utf-8")


def read_steps(folder: Path) -> list[dict[str, Any]]:
    """The metrics of each training step; none of a model that has none."""
    file = folder / STEPS
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []


def write_answers(file: Path, answers: Iterable[DevAnswer]) -> None:
    """Write a model's answers to rows, given before it has learnt from them. A cut-off is chosen from these."""
    lines = [json.dumps(asdict(answer), ensure_ascii=False) + "\n" for answer in answers]
    file.write_text("".join(lines), encoding="utf-8")


def dev_answers(folder: Path, cross_validated: bool = False) -> list[DevAnswer]:
    """The model's answers to dev rows; none for models of versions that did not store them.

    Args:
        cross_validated: also its answers to training rows, by cross-validation.
    """
    names = (DEV_ANSWERS, TRAIN_ANSWERS) if cross_validated else (DEV_ANSWERS,)
    files = [folder / name for name in names if (folder / name).is_file()]
    return [DevAnswer(**json.loads(line)) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def sha256(file: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
