"""The requests that ask a writer for questions."""

from __future__ import annotations

from collections.abc import Sequence

from fingerpost.generation.brief import Brief, Form
from fingerpost.generation.prompts import read_beyond, read_written, write, written_schema
from fingerpost.llm.completion import Reply
from fingerpost.llm.requests import Chat, Key, Schema
from fingerpost.store.ledger import WriterReply
from fingerpost.store.project import Draft
from fingerpost.task.settings import Task

STEP, SOURCE, WRITER = "generate", "synthetic", "writer"

BEYOND: Form = "beyond"

TEMPERATURE = 1.0


class WritingRequests:
    """The work of writing, as `asking` takes it."""

    step, wants, after, temperature = STEP, "holds a message", "then run it again", TEMPERATURE

    def __init__(self, task: Task, drafts: Sequence[Draft]) -> None:
        self._task = task
        self._briefs = {draft.id: Brief.of_json(draft.brief) for draft in drafts}

    def request(self, job: Draft) -> tuple[Chat, Schema]:
        brief = self._briefs[job.id]
        return write(self._task, brief), written_schema(brief)

    def key(self, job: Draft) -> Key:
        return [job.id]

    def keep(self, key: Key, reply: Reply) -> tuple[WriterReply, bool]:
        brief = self._briefs.get(key[0])
        useful = brief is not None and bool(
            read_beyond(reply.text) if brief.form == BEYOND else read_written(brief, reply.text)
        )
        return WriterReply(key[0], reply.text if reply.text else reply.refusal), useful
