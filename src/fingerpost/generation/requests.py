"""The writers, and the requests that ask them for questions."""

from __future__ import annotations

from collections.abc import Sequence

from fingerpost.core.errors import TaskError
from fingerpost.generation.brief import OUT_OF_SCOPE, Brief
from fingerpost.generation.prompts import (
    read_conversations,
    read_out_of_scope_topics,
    reply_schema,
    writing_prompt,
)
from fingerpost.llm.completion import Chat, Reply, Schema
from fingerpost.llm.requests import Key, teacher_of
from fingerpost.store.ledger import WriterReply
from fingerpost.store.project import Draft
from fingerpost.task.settings import Task, TeacherSettings

STEP, SOURCE = "generate", "synthetic"
TEMPERATURE = 1.0
MIN_REPLY_TOKENS = 600  # room for all messages of one reply


def writers_of(task: Task) -> list[TeacherSettings]:
    """The models that write: the task's own writers, else its teacher.

    Raises:
        TaskError: there is no teacher, or recorded answers stand in for it.
    """
    writers = task.generate.writers or (teacher_of(task),)
    if any(model.recorded for model in (teacher_of(task), *writers)):
        raise TaskError(
            "the teacher's answers come from a recording, which has none for new questions; "
            "remove 'recorded' from [teacher] in task.toml"
        )
    return [model.model_copy(update={"max_tokens": max(MIN_REPLY_TOKENS, model.max_tokens)}) for model in writers]


class WritingRequests:
    """The requests for these drafts, as a `RequestSpec`."""

    step, expected, retry, temperature = STEP, "holds a message", "then run it again", TEMPERATURE

    def __init__(self, task: Task, drafts: Sequence[Draft]) -> None:
        self._task = task
        self._briefs = {draft.id: Brief.from_json(draft.brief) for draft in drafts}

    def request(self, job: Draft) -> tuple[Chat, Schema]:
        """The chat messages and the JSON schema of the reply."""
        brief = self._briefs[job.id]
        return writing_prompt(self._task, brief), reply_schema(brief)

    def key(self, job: Draft) -> Key:
        """The draft's id."""
        return [job.id]

    def keep(self, key: Key, reply: Reply) -> tuple[WriterReply, bool]:
        """The reply to store, and whether it holds at least one text."""
        brief = self._briefs.get(key[0])
        useful = brief is not None and bool(
            read_out_of_scope_topics(reply.text)
            if brief.form == OUT_OF_SCOPE
            else read_conversations(brief, reply.text)
        )
        return WriterReply(key[0], reply.text if reply.text else reply.refusal), useful
