"""The content of task.toml as typed, validated settings."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from fingerpost.core.types import Label, Strict


class Prices(Strict):
    """US dollars per million tokens, for models that the price library does not know."""

    input: Annotated[float, Field(ge=0)]
    cached_input: Annotated[float, Field(ge=0)] | None = None
    output: Annotated[float, Field(ge=0)]


class TeacherSettings(Strict):
    """Which LLM is asked, where, and how fast and how dearly it may be asked."""

    model: Annotated[str, Field(min_length=1)]
    base_url: str | None = None
    key_env: str = "OPENAI_API_KEY"
    gguf: str | None = None
    recorded: str | None = None
    requests_per_minute: Annotated[int, Field(gt=0)] | None = None
    tokens_per_minute: Annotated[int, Field(gt=0)] | None = None
    concurrency: Annotated[int, Field(gt=0, le=1024)] = 8
    timeout_s: Annotated[float, Field(gt=0)] = 60.0
    max_tokens: Annotated[int, Field(gt=0)] = 64
    orders: Annotated[int, Field(gt=0, le=64)] = 4
    prices: Prices | None = None
    batch_price: Annotated[float, Field(ge=0, le=1)] = 0.5


class SplitSettings(Strict):
    """The share of groups that goes to the test and to the dev side; the rest is for training."""

    test: Annotated[float, Field(ge=0, lt=1)] = 0.2
    dev: Annotated[float, Field(ge=0, lt=1)] = 0.1

    @model_validator(mode="after")
    def _leaves_something_to_train_on(self) -> SplitSettings:
        if self.test + self.dev >= 1:
            raise ValueError("test and dev together must leave something to train on")
        return self


class DataFile(Strict):
    """A file of questions that `fingerpost run` imports, and where its questions come from."""

    file: str
    source: str = "user"
    text: str | None = None
    label: str | None = None


class StudentSettings(Strict):
    """What the student starts from and what it sees."""

    encoder: str = "all-MiniLM-L6-v2"
    history: Annotated[int, Field(ge=0)] = 2
    seed: int = 0


class GenerateSettings(Strict):
    """Whom the questions that `generate` has written are for, who asks them, and which models write them.

    `about` says what is asked ("a bank's assistant"). Without writers the teacher writes.
    """

    about: str = ""
    personas: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    writers: tuple[TeacherSettings, ...] = ()


class Task(Strict):
    """What to decide: the content of task.toml."""

    name: Annotated[str, Field(min_length=1)]
    instructions: str = ""
    prompt: str | None = None
    answer_field: Annotated[str, Field(min_length=1)] = "action"
    fallback: str | None = None
    labels: Annotated[tuple[Label, ...], Field(min_length=2)]
    teacher: TeacherSettings | None = None
    data: tuple[DataFile, ...] = ()
    split: SplitSettings = SplitSettings()
    student: StudentSettings = StudentSettings()
    generate: GenerateSettings = GenerateSettings()

    @property
    def names(self) -> list[str]:
        """Label names, in the order of task.toml."""
        return [label.name for label in self.labels]

    @property
    def teacher_model(self) -> str | None:
        """The teacher's model, or None where the task has no teacher."""
        return self.teacher.model if self.teacher else None
