"""The content of task.toml as typed, validated settings."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Annotated, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from fingerpost.core.label_sets import LabelSets, join_labels, split_labels
from fingerpost.core.text import canonical_name, humanise
from fingerpost.core.types import Label, Strict

Price: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Prices(Strict):
    """Prices in US dollars per million tokens, for models that the price library does not know.

    Without `cached_input`, cached tokens cost as much as `input`.
    """

    input: Price
    cached_input: Price | None = None
    output: Price


def endpoint(url: str) -> str:
    """The URL itself.

    Raises:
        ValueError: it is none.
    """
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise ValueError(f"'{url}' is not the address of an endpoint; write one such as https://host/v1")
    return url


class TeacherSettings(Strict):
    """Endpoint, rate limits and prices of a language model.

    Attributes:
        model: the model's name at the endpoint.
        api: the endpoint's API for labels: `chat`, or `decisions` for typed questions with probabilities (POST /decisions).
        base_url: address of an OpenAI-compatible endpoint; default is OpenAI.
        key_env: environment variable that holds the API key.
        gguf: a local GGUF model file to serve instead of an endpoint, relative to the project's folder.
        recorded: a file of recorded answers to replay instead of an endpoint, relative to the project's folder.
        concurrency: requests in flight at the same time.
        timeout_s: timeout of a request in seconds.
        max_tokens: limit on the tokens of a reply.
        orders: number of label orders that questions are spread over.
        idempotency_header: the header for which the endpoint charges and answers a repeated request once, such as
            `Idempotency-Key`; None where it knows none.
        batch_price: price of a batch request as a fraction of the normal price.
    """

    model: Annotated[str, Field(min_length=1)]
    api: Literal["chat", "decisions"] = "chat"
    base_url: Annotated[str, AfterValidator(endpoint)] | None = None
    key_env: str = "OPENAI_API_KEY"
    gguf: str | None = None
    recorded: str | None = None
    requests_per_minute: Annotated[int, Field(gt=0)] | None = None
    tokens_per_minute: Annotated[int, Field(gt=0)] | None = None
    concurrency: Annotated[int, Field(gt=0, le=1024)] = 8
    timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60.0
    max_tokens: Annotated[int, Field(gt=0)] = 64
    orders: Annotated[int, Field(gt=0, le=64)] = 4
    prices: Prices | None = None
    idempotency_header: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]*$")] | None = None
    batch_price: Annotated[float, Field(ge=0, le=1)] = 0.5

    @model_validator(mode="after")
    def _answers_itself(self) -> TeacherSettings:
        if self.api == "decisions" and (self.gguf or self.recorded):
            raise ValueError('with api = "decisions", leave out gguf and recorded: they answer chat requests')
        return self


class SplitSettings(Strict):
    """The fractions of question groups in the test and dev splits; the rest is for training."""

    test: Annotated[float, Field(ge=0, lt=1)] = 0.2
    dev: Annotated[float, Field(ge=0, lt=1)] = 0.1

    @model_validator(mode="after")
    def _leaves_training_data(self) -> SplitSettings:
        if self.test + self.dev >= 1:
            raise ValueError("test and dev must add up to less than 1, to leave training data")
        return self


class DataFile(Strict):
    """A file of questions that `fingerpost run` imports.

    Attributes:
        file: path, relative to the project's folder.
        source: the origin of the questions, such as `user` or `synthetic`.
        text, label: columns of texts and labels; default is a column named `text`, `label` or similar.
        quote: `none` where double quotes in a CSV file are ordinary characters.
        encoding, delimiter: of a CSV file; default is to recognise them.
    """

    file: str
    source: str = "user"
    text: str | None = None
    label: str | None = None
    quote: Literal["auto", "none"] = "auto"
    encoding: str | None = None
    delimiter: str | None = None


class StudentSettings(Strict):
    """Settings of the student.

    Attributes:
        base: the base language model of a generative student (`train --student lora`): a GGUF file, a folder or a hub name.
        encoder: the pretrained sentence encoder, a folder or hub name; `auto` chooses by the language of the texts.
        consensus_encoder: an encoder for the consensus and the review queue, which may be larger than the student's.
        max_tokens: tokens that the encoder reads at once; default is what 95 % of the texts fit into.
        history: number of earlier turns of a conversation that the student sees.
        seed: seed of all random choices in training.
    """

    encoder: str = "auto"
    base: str | None = None
    consensus_encoder: str | None = None
    max_tokens: Annotated[int, Field(ge=16)] | None = None
    history: Annotated[int, Field(ge=0)] = 2
    seed: int = 0


class GenerateSettings(Strict):
    """Settings of `fingerpost generate`, which has language models write questions.

    Attributes:
        about: the application that users talk to, such as "a bank's assistant".
        personas: descriptions of the users.
        languages: codes of the languages to write in.
        writers: the models that write; default is the teacher.
    """

    about: str = ""
    personas: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    writers: tuple[TeacherSettings, ...] = ()


class Task(Strict):
    """A classification task: the content of task.toml.

    Attributes:
        instructions: text of the system prompt before the list of labels.
        prompt: the whole system prompt with a placeholder for the list of labels; replaces `instructions`.
        answer_field: the JSON field of a reply that holds the label.
        fallback: the label for messages that no other label fits.
        multi: a message may have several labels.
        ordinal: the labels are the levels of a scale, the lowest first; a wrong answer counts by its distance.
        second_teacher: a model that labels the same questions; its answers are pooled with the teacher's.
        data: files that `fingerpost run` imports.
    """

    name: Annotated[str, Field(min_length=1)]
    instructions: str = ""
    prompt: str | None = None
    answer_field: Annotated[str, Field(min_length=1)] = "action"
    fallback: str | None = None
    multi: bool = False
    ordinal: bool = False
    labels: Annotated[tuple[Label, ...], Field(min_length=2)]
    teacher: TeacherSettings | None = None
    second_teacher: TeacherSettings | None = None
    data: tuple[DataFile, ...] = ()
    split: SplitSettings = SplitSettings()
    student: StudentSettings = StudentSettings()
    generate: GenerateSettings = GenerateSettings()

    @model_validator(mode="after")
    def _one_scale(self) -> Task:
        if self.ordinal and (self.multi or self.fallback is not None):
            raise ValueError("with ordinal = true, leave out multi and fallback: an answer is one level of the scale")
        return self

    @property
    def names(self) -> list[str]:
        """Label names, in the order of task.toml."""
        return [label.name for label in self.labels]

    @property
    def undescribed(self) -> list[str]:
        """The names of the labels whose description says no more than the name."""
        return [
            label.name
            for label in self.labels
            if canonical_name(label.description) in ("", canonical_name(humanise(label.name)))
        ]

    @property
    def answers(self) -> Container[str]:
        """All possible answers: the label names; of a multi-label task, all sets of them (`core.label_sets`)."""
        return LabelSets(self.names) if self.multi else self.names

    def labels_in(self, answer: str) -> tuple[str, ...]:
        """The names of the labels in an answer."""
        return split_labels(answer) if self.multi else (answer,)

    def answer(self, labels: Iterable[str]) -> str:
        """The answer that names these labels; the first of them, if the task is not multi-label."""
        return join_labels(labels) if self.multi else next(iter(labels))

    @property
    def teacher_model(self) -> str | None:
        """The name of the teacher's model, or None if the task has no teacher."""
        return self.teacher.model if self.teacher else None
