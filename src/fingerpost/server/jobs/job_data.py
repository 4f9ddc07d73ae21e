"""The data of a fine-tuning job, read from its files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from fingerpost.core.errors import InputError
from fingerpost.data.chat import LEAST_ROWS, Row, read_chat
from fingerpost.data.dialogues import Dialogue, read_dialogues
from fingerpost.server.jobs.files import FileStorage
from fingerpost.server.schemas import Json
from fingerpost.server.settings import Settings
from fingerpost.store.server import ServerStore
from fingerpost.task.reply_schema import schema_of_replies
from fingerpost.training.dataset import TrainingSet, from_chat_by_field

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TextData:
    """The data of a job for a language model.

    Attributes:
        schema: of replies that are JSON objects with the same fields, their JSON schema.
    """

    train: list[Dialogue]
    dev: list[Dialogue]
    schema: Json | None


def read_texts(settings: Settings, store: ServerStore, request: Json) -> TextData:
    """The job's conversations. Without a validation file there are none for dev.

    Raises:
        UnusableFile: a file is missing, or no chat JSONL.
    """
    files = FileStorage(settings, store)
    train = _lines(files, request, "training_file", partial(read_dialogues, least=LEAST_ROWS))
    dev: list[Dialogue] = []
    if request.get("validation_file"):
        dev = _lines(files, request, "validation_file", partial(read_dialogues, least=1))
    return TextData(train, dev, schema_of_replies([one.reply for one in (*train, *dev)]))


def read(settings: Settings, store: ServerStore, request: Json) -> list[TrainingSet]:
    """The job's training sets, one for each field that varies; without a validation file, a part of the training file is held out.

    Raises:
        NoClassification: the replies are no labels.
        UnusableFile: a file is missing, or no chat JSONL.
    """
    files = FileStorage(settings, store)
    rows = _lines(files, request, "training_file", partial(read_chat, least=LEAST_ROWS))
    dev_rows: list[Row] = []
    if request.get("validation_file"):
        dev_rows = _lines(files, request, "validation_file", partial(read_chat, least=1))
    return from_chat_by_field(request.get("suffix") or "task", rows, dev_rows)


class UnusableFile(InputError):
    """A file of a job cannot be used; `param` says which."""

    def __init__(self, param: str, why: str) -> None:
        super().__init__(f"the {param.replace('_', ' ')} cannot be used: {why}")
        self.param = param


def _lines(files: FileStorage, request: Json, param: str, read_file: Callable[[Path], list[T]]) -> list[T]:
    path = files.path(request[param])
    if not path.is_file():
        raise UnusableFile(param, "it was deleted; upload it again, and create the job again")
    try:
        return read_file(path)
    except InputError as error:
        raise UnusableFile(param, str(error)) from None
