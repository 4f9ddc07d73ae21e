"""The project folder of a tone: its task.toml, its texts, its database, and the files that the steps write."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from fingerpost.core.errors import TaskError
from fingerpost.core.types import Strict
from fingerpost.store.project import Store
from fingerpost.store.server import DATABASE
from fingerpost.task.loader import TASK_FILE, validation_message
from fingerpost.task.settings import TeacherSettings

TEMPLATE = """\
# A tone of voice. See 'fingerpost docs tone'.
kind = "text"
name = {name}
instructions = {instructions}   # the system prompt that asks for this voice
texts = {texts}                 # a folder of .txt and .md files: one text each, all by the same author
# test_share = 0.2              # of the texts, to measure the model
# excluded_names = ["Jane Doe"] # texts with such a name are left out

[teacher]                       # writes the request that each text answers
model = "gpt-4.1-mini"

[student]
base = {base}                   # the base language model: a GGUF file, a folder, or a hub name
# epochs = 3
# general_per_ten = 1           # general answers to mix in for each ten texts, so that the model keeps what it could do
"""


class WritingStudent(Strict):
    """Settings of the language model that learns the tone.

    Attributes:
        base: the base model: a GGUF file, a folder, or a hub name.
        general_per_ten: general requests to mix in, with the base model's own answers, for each ten texts; 0 for none.
    """

    base: Annotated[str, Field(min_length=1)]
    epochs: Annotated[int, Field(ge=1, le=50)] = 3
    general_per_ten: Annotated[int, Field(ge=0, le=10)] = 1
    seed: int = 0


class ToneTask(Strict):
    """The content of the task.toml of a tone.

    Attributes:
        instructions: the system prompt that asks for the voice.
        texts: folder of the texts, relative to the project's folder.
        excluded_names: names that must not be learnt, such as those of people; texts that hold one are left out.
        test_share: the share of the texts that measure the model and are not trained on.
    """

    kind: Literal["text"]
    name: Annotated[str, Field(min_length=1)]
    instructions: Annotated[str, Field(min_length=1)]
    texts: str = "texts"
    excluded_names: tuple[str, ...] = ()
    test_share: Annotated[float, Field(gt=0, lt=0.9)] = 0.2
    teacher: TeacherSettings | None = None
    student: WritingStudent


@dataclass(frozen=True)
class ToneProject:
    """A project folder of the kind `text`."""

    folder: Path
    task: ToneTask

    @classmethod
    def open(cls, folder: Path) -> ToneProject:
        """Read a project's task.toml.

        Raises:
            TaskError: it is missing or wrong, or the project decides labels.
        """
        file = folder / TASK_FILE
        if not file.is_file():
            raise TaskError(
                f"there is no {file}; create it with 'fingerpost tone init {folder} --texts FOLDER --base MODEL'"
            )
        try:
            source = file.read_text(encoding="utf-8")
            content = tomllib.loads(source)
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise TaskError(f"{file} cannot be read: {error}; correct the syntax, and save it as UTF-8") from None
        if content.get("kind") != "text":
            raise TaskError(f'{file} is not for a tone of voice; it needs kind = "text"')
        try:
            return cls(folder, ToneTask.model_validate(content))
        except ValidationError as error:
            raise TaskError(validation_message(file, source, [], error, ToneTask)) from None

    def store(self) -> Store:
        """The project's database, created on first use."""
        return Store(self.folder / DATABASE)

    @property
    def texts(self) -> Path:
        """The folder of the texts."""
        return self.folder / Path(self.task.texts).expanduser()

    @property
    def base(self) -> str:
        """The base model; a path is relative to the project's folder."""
        path = self.folder / Path(self.task.student.base).expanduser()
        return str(path) if path.exists() else self.task.student.base

    @property
    def model(self) -> Path:
        """The folder of the trained model."""
        return self.folder / "models" / "voice"

    @property
    def reports(self) -> Path:
        """The folder of reports."""
        return self.folder / "reports"


def create(folder: Path, texts: Path, base: str, instructions: str | None) -> Path:
    """Write a commented task.toml; returns its path.

    Raises:
        TaskError: it exists already, or there is no folder of texts.
    """
    file = folder / TASK_FILE
    if file.exists():
        raise TaskError(f"{file} exists already; edit it, or give another folder")
    if not texts.is_dir():
        raise TaskError(f"there is no folder {texts}; give the folder of the texts with --texts")
    name = folder.resolve().name
    voice = instructions or f"You write in the voice of {name}."
    base = str(Path(base).resolve()) if Path(base).exists() else base
    folder.mkdir(parents=True, exist_ok=True)
    values = {"name": name, "instructions": voice, "texts": str(texts.resolve()), "base": base}
    quoted = {key: json.dumps(value, ensure_ascii=False) for key, value in values.items()}
    file.write_text(TEMPLATE.format(**quoted), encoding="utf-8")
    return file
