"""The request that each text answers, written by the teacher (instruction back-translation, Li et al. 2024)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from fingerpost.core.errors import TaskError
from fingerpost.core.text import fingerprint, parse_json, shorten
from fingerpost.core.types import Message, ProgressCallback, no_progress
from fingerpost.llm import prices
from fingerpost.llm.completion import Chat, Reply, Schema, request_bytes
from fingerpost.llm.requests import Key, RunProgress, teacher_endpoint
from fingerpost.llm.runner import run_requests
from fingerpost.store.ledger import WriterReply
from fingerpost.store.project import Draft, Store
from fingerpost.task.prompt import chat
from fingerpost.task.settings import TeacherSettings
from fingerpost.tone.project import ToneProject
from fingerpost.tone.texts import Text

STEP = "requests"
REPLY_TOKENS = 120
MOST_CHARACTERS = 6_000
"""Of a text, as the teacher reads it."""
MOST_SHARED = 8
"""A request that repeats so many words of the text in a row gives the text away, and is not used."""
SYSTEM = (
    "You read a text, and write the request that a person may have sent to its author to get it. The request names the subject and the "
    "kind of text in one or two plain sentences, in the language of the text. It does not describe the style, does not name the "
    'author, and does not quote the text. Reply with JSON only, {"request": "..."}.'
)
SCHEMA = {
    "type": "object", "properties": {"request": {"type": "string"}}, "required": ["request"], "additionalProperties": False,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pair:
    """A text and the request that it answers."""

    text: Text
    request: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The requests that are still to be asked for, and what they cost at most, in US dollars."""

    open: list[Text]
    at_most_usd: float


class RequestWriting:
    """The requests to the teacher, for `run_requests`."""

    step, expected, retry, temperature = STEP, "holds a request", "then run it again", 0.0

    def __init__(self, drafts: Sequence[Draft]) -> None:
        self._texts = {draft.id: str(draft.brief["text"]) for draft in drafts}

    def request(self, job: Draft) -> tuple[Chat, Schema]:
        """The chat messages and the JSON schema of the reply."""
        return asking(str(job.brief["text"])), SCHEMA

    def key(self, job: Draft) -> Key:
        """The draft's id."""
        return [job.id]

    def keep(self, key: Key, reply: Reply) -> tuple[WriterReply, bool]:
        """The reply to store, and whether it holds a request."""
        raw = reply.text or reply.refusal
        return WriterReply(key[0], raw), request_in(raw, self._texts.get(key[0], "")) is not None


def asking(text: str) -> Chat:
    """The chat messages that ask for the request of a text."""
    return chat(SYSTEM, (Message("user", text[:MOST_CHARACTERS]),))


def request_in(raw: str | None, text: str) -> str | None:
    """The request in a reply; None where there is none, or it quotes the text."""
    try:
        value = parse_json(raw or "")
    except ValueError:
        return None
    found = value.get("request") if isinstance(value, dict) else None
    line = " ".join(found.split()) if isinstance(found, str) else ""
    return line if 0 < len(line) <= 600 and longest_shared_run(line, text) < MOST_SHARED else None


def longest_shared_run(one: str, other: str) -> int:
    """The most words in a row that two texts share, without punctuation and case."""
    first, second = (
        ["".join(c for c in word.casefold() if c.isalnum()) for word in text.split()] for text in (one, other)
    )
    best = 0
    runs = [0] * (len(second) + 1)
    for word in first:
        now = [0] * (len(second) + 1)
        for place, candidate in enumerate(second, 1):
            if word and word == candidate:
                now[place] = runs[place - 1] + 1
                best = max(best, now[place])
        runs = now
    return best


def _key(text: Text) -> str:
    return fingerprint([text.content])


def pairs(store: Store, texts: Sequence[Text]) -> list[Pair]:
    """The texts whose request the teacher has written, in order."""
    answered = {draft.task: draft for draft in store.drafts() if draft.answered}
    found = []
    for text in texts:
        draft = answered.get(_key(text))
        request = request_in(draft.raw, text.content) if draft is not None else None
        if request is not None:
            found.append(Pair(text, request))
    return found


def plan(project: ToneProject, store: Store, texts: Sequence[Text]) -> Plan:
    """The texts that have no request yet.

    Raises:
        TaskError: the project has no teacher.
        TeacherError: the teacher's price is unknown.
    """
    known = {draft.task for draft in store.drafts() if draft.answered}
    teacher = _teacher(project)
    missing = [text for text in texts if _key(text) not in known]
    return Plan(missing, sum(prices.at_most(teacher, request_bytes(asking(text.content), SCHEMA)) for text in missing))


def ask(
    project: ToneProject,
    store: Store,
    texts: Sequence[Text],
    *,
    budget_usd: float | None = None,
    on_progress: ProgressCallback = no_progress,
) -> RunProgress | None:
    """Have the teacher write the requests of these texts; None where none is missing. What is answered is stored at once.

    Raises:
        TaskError: the project has no teacher.
        TeacherError: the teacher cannot be reached, or none of its replies has a request.
        BudgetError: the budget does not allow a single request.
        InputError: another process asks for requests.
    """
    teacher = _teacher(project)
    with store.exclusive(STEP), teacher_endpoint(teacher, project.folder) as endpoint:
        drafts = store.drafts()
        store.drop_drafts(draft.id for draft in drafts if not draft.answered)
        known = {draft.task for draft in drafts if draft.answered}
        missing = [text for text in texts if _key(text) not in known]
        if not missing:
            return None
        store.plan_drafts(Draft(0, 0, {"text": text.content}, _key(text), teacher.model) for text in missing)
        jobs = [draft for draft in store.drafts() if not draft.answered]
        return run_requests(
            RequestWriting(jobs), jobs, store, endpoint, project.folder, budget_usd=budget_usd, on_progress=on_progress
        )


def _teacher(project: ToneProject) -> TeacherSettings:
    if project.task.teacher is None:
        raise TaskError('the project has no teacher; add a table [teacher] with a line model = "..." to task.toml')
    return project.task.teacher.model_copy(update={"max_tokens": REPLY_TOKENS})


def as_line(instructions: str, pair: Pair) -> str:
    """A pair as a line of chat JSONL."""
    turns = chat(instructions, (Message("user", pair.request), Message("assistant", pair.text.content)))
    return json.dumps({"messages": turns}, ensure_ascii=False) + "\n"


def shown(pair: Pair) -> str:
    """A pair on one line, for the terminal."""
    return f"{pair.text.name}: {shorten(pair.request, 100)}"
