"""From a conversation to an answer: the student's, or the teacher's where the student is unsure; in the model's own form."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fingerpost.core.text import content_text
from fingerpost.core.types import Conversation, Message, Prediction
from fingerpost.server.inference.engine import Engine
from fingerpost.server.inference.registry import Served
from fingerpost.server.inference.request_log import Journal
from fingerpost.server.inference.response_format import Wanted, wanted_of
from fingerpost.server.inference.teacher import Asked, Teacher, Unanswered
from fingerpost.server.schemas import ChatRequest, Json, RouteRequest, Turn, WireError, completion, token
from fingerpost.store.server import Record, new_id, now
from fingerpost.task.prompt import chat, schema
from fingerpost.task.replies import resolve
from fingerpost.task.reply_format import label_in, without_template

MAX_CHARACTERS = 200_000


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided. `confidence` is the student's in its own best label; `by` is `student` or `teacher`.

    `teacher` is the teacher's answer where it was asked; `missed`, why it was needed and gave none.
    """

    served: Served
    label: str
    confidence: float
    scores: dict[str, float]
    by: str
    latency_s: float
    tokens: int
    teacher: Asked | None = None
    missed: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """Who answered, how sure the student was, and how long it took."""
        found = {
            "x-fingerpost-by": self.by,
            "x-fingerpost-confidence": f"{self.confidence:.4f}",
            "x-fingerpost-latency-ms": f"{1000 * self.latency_s:.2f}",
        }
        return found | ({"x-fingerpost-teacher": self.missed} if self.missed else {})


class Answers:
    """Decides, and keeps what was decided. `observe` is told of each decision, for the metrics."""

    def __init__(
        self,
        engine: Engine,
        teacher: Teacher | None,
        journal: Journal | None,
        observe: Callable[[Decision], None],
    ) -> None:
        self._engine, self._teacher = engine, teacher
        self._journal, self._observe = journal, observe

    async def chat(
        self, request: ChatRequest, raw: Json, served: Served, key: str | None
    ) -> tuple[Json, list[str], Decision]:
        """A chat completion, its reply in the pieces that have log-probabilities, and the decision.

        Raises:
            WireError: nothing to decide on, or no label is allowed.
        """
        wanted = wanted_of(request, served)
        identity = new_id("chatcmpl-")
        messages = without_template(conversation_of(request.messages), served.frame)
        body = raw if any(turn.role in ("system", "developer") for turn in request.messages) else _prompted(raw, served)
        decision = await self._decide(served, messages, wanted.allowed, body)
        await self._keep(identity, decision, messages, key)
        pieces = [piece for piece in wanted.pieces(decision.label) if piece]
        tokens = self._tokens(request, wanted, decision) if request.logprobs else None
        reply = "".join(pieces)
        message: Json = {"role": "assistant", "content": reply, "refusal": None, "annotations": []}
        if wanted.function is not None:
            call = {
                "id": new_id("call_"),
                "type": "function",
                "function": {"name": wanted.function, "arguments": reply},
            }
            message |= {"content": None, "tool_calls": [call]}
            tokens = None
        whole = completion(
            identity, now(), request.model, message, _usage(decision, reply), tokens, request.n or 1,
            "tool_calls" if wanted.function else "stop",
        )  # fmt: skip
        return whole, pieces, decision

    async def route(self, request: RouteRequest, served: Served, key: str | None) -> list[Decision]:
        """The decisions on one or many conversations, in order.

        Raises:
            WireError: nothing to decide on, or a label that the model does not have.
        """
        given = [request.input] if isinstance(request.input, str) else request.input
        self._engine.require_room(len(given))
        allowed = None if request.labels is None else _known(served, request.labels, "labels")
        found = []
        for each in given:
            turns = [Turn(role="user", content=each)] if isinstance(each, str) else each
            messages = without_template(conversation_of(turns), served.frame)
            field = schema(served.task)
            field["properties"][served.task.answer_field]["enum"] = [served.answer(name) for name in served.task.names]
            form = {"name": "label", "strict": True, "schema": field}
            body = _prompted({"messages": [{"role": m.role, "content": m.content} for m in messages]}, served)
            body |= {"temperature": 0, "response_format": {"type": "json_schema", "json_schema": form}}
            if served.form.codes:
                body.pop("response_format")  # of codes a schema would need the types; the prompt says it all
            found.append((messages, body))
        decisions = await asyncio.gather(*(self._decide(served, m, allowed, body) for m, body in found))
        await asyncio.gather(
            *(self._keep(new_id("route-"), d, m, key) for d, (m, _) in zip(decisions, found, strict=True))
        )
        return decisions

    async def _decide(
        self, served: Served, messages: Conversation, allowed: Sequence[str] | None, body: Json
    ) -> Decision:
        began = time.perf_counter()
        whole = await self._engine.predict(served.student, messages)
        found = restricted(whole, allowed)
        assert found.label is not None
        decision = Decision(
            served, found.label, found.confidence, found.scores, "student", 0.0, found.usage.prompt or 0
        )
        if served.cutoff is not None and self._teacher is not None and whole.scores[found.label] < served.cutoff:
            decision = await self._second_opinion(self._teacher, decision, allowed, body)
        decision = replace(decision, latency_s=time.perf_counter() - began)
        self._observe(decision)
        return decision

    async def _second_opinion(
        self, teacher: Teacher, first: Decision, allowed: Sequence[str] | None, body: Json
    ) -> Decision:
        """The teacher's label; where it gives none in time, the student's, marked with the reason."""
        try:
            asked = await teacher.ask(body)
        except Unanswered as error:
            return replace(first, missed=error.reason)
        label = label_in(first.served.form, first.served.task, asked.text)
        if label is None or (allowed is not None and label not in allowed):
            return replace(first, teacher=asked, missed="nonsense")
        return replace(first, label=label, by="teacher", teacher=asked)

    async def _keep(self, identity: str, decision: Decision, messages: Conversation, key: str | None) -> None:
        if self._journal is None:
            return
        asked = decision.teacher
        teacher: Record | None = None
        if asked is not None and self._teacher is not None:
            usage = asked.usage
            teacher = {
                "model": self._teacher.model,
                "label": None if decision.missed else decision.label,
                "raw": asked.text,
                "logprob": asked.logprob,
                "usage": [usage.prompt, usage.cached, usage.completion, usage.cost_usd, usage.latency_s],
            }
        await self._journal.write({
            "request_id": identity,
            "at": now(),
            "key": key,
            "model": decision.served.name,
            "messages": [[turn.role, turn.content] for turn in messages],
            "label": decision.label,
            "confidence": decision.confidence,
            "by": decision.by,
            "latency_s": decision.latency_s,
            "teacher": teacher,
        })  # fmt: skip

    def _tokens(self, request: ChatRequest, wanted: Wanted, decision: Decision) -> list[Json] | None:
        """The reply's pieces: all but the label are certain, so that the sum is the log-probability of the answer."""
        probability: float | None = decision.scores.get(decision.label, 0.0)
        others: list[Json] = []
        if decision.by == "teacher":
            if decision.teacher is None or decision.teacher.logprob is None:
                return None
            probability = math.exp(min(0.0, decision.teacher.logprob))
        else:
            ranked = sorted(decision.scores.items(), key=lambda item: -item[1])[: request.top_logprobs or 0]
            others = [
                {k: v for k, v in token(wanted.pieces(name)[1], score).items() if k != "top_logprobs"}
                for name, score in ranked
            ]
        before, value, after = wanted.pieces(decision.label)
        return [
            *([token(before, 1.0)] if before else []),
            token(value, probability, others),
            *([token(after, 1.0)] if after else []),
        ]


def conversation_of(turns: Sequence[Turn]) -> Conversation:
    """The turns of user and assistant, up to the user's last.

    Raises:
        WireError: the user says nothing, or more than can be read.
    """
    found = [Message(t.role, _text(t).strip()) for t in turns if t.role in ("user", "assistant")]
    while found and found[-1].role != "user":
        found.pop()
    found = [each for i, each in enumerate(found) if each.content or i == len(found) - 1]
    if not found or not found[-1].content:
        raise WireError(
            400, "there is no text of a user to decide on; send a message with role 'user'", param="messages"
        )
    if sum(len(each.content) for each in found) > MAX_CHARACTERS:
        raise WireError(
            400, f"the conversation has more than {MAX_CHARACTERS:,} characters; shorten it", param="messages"
        )
    return tuple(found)


def _text(turn: Turn) -> str:
    content = turn.content
    return content_text([part.model_dump() for part in content] if isinstance(content, list) else content)


def restricted(found: Prediction, allowed: Sequence[str] | None) -> Prediction:
    """The prediction among the allowed labels only, their scores scaled to sum to 1."""
    if allowed is None:
        return found
    kept = {name: found.scores[name] for name in allowed}
    total = sum(kept.values()) or 1.0
    scores = {name: score / total for name, score in kept.items()}
    best = max(scores, key=scores.__getitem__)
    return replace(found, label=best, confidence=scores[best], scores=scores)


def _known(served: Served, given: Sequence[str | int], param: str) -> list[str]:
    names = []
    for each in given:
        name = resolve(served.task, each)
        if name is None:
            raise WireError(400, f"'{each}' is no label of '{served.name}'", param=param)
        names.append(name)
    return list(dict.fromkeys(names))


def _prompted(raw: Json, served: Served) -> Json:
    """The request with the system prompt that the model was trained with: a student needs none, a teacher does."""
    return {**raw, "messages": [*chat(served.system, ()), *raw["messages"]]}


def _usage(decision: Decision, reply: str) -> Json:
    usage = decision.teacher.usage if decision.by == "teacher" and decision.teacher else None
    student: Any = decision.served.student
    prompt = decision.tokens if usage is None else usage.prompt or 0
    replied = student.count_tokens(reply) if usage is None else usage.completion or 0
    return {
        "prompt_tokens": prompt,
        "completion_tokens": replied,
        "total_tokens": prompt + replied,
        "prompt_tokens_details": {"cached_tokens": (usage.cached or 0) if usage else 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
        },
    }  # fmt: skip
