"""Decisions on conversations, by the student or, where it is uncertain, by the teacher; and replies that state them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from fingerpost.core.label_sets import join_labels
from fingerpost.core.text import strip_code_fence
from fingerpost.core.types import Conversation, Prediction
from fingerpost.server.inference.answers import ChatAnswer, Decision, answer_of, conversation_of, usage_object
from fingerpost.server.inference.engine import Engine
from fingerpost.server.inference.json_schema import UnfillableError, require_kept, require_usable
from fingerpost.server.inference.registry import ModelRegistry, ServedModel, ServedWriter
from fingerpost.server.inference.request_log import RequestLog
from fingerpost.server.inference.response_format import ResponseFormat, requested_format, requested_schema
from fingerpost.server.inference.schema_reply import UNFILLABLE
from fingerpost.server.inference.teacher import Teacher, Unanswered
from fingerpost.server.inference.writing import WritingService
from fingerpost.server.ops.metrics import Metrics
from fingerpost.server.schemas import (
    ApiError,
    ChatRequest,
    CompletionRequest,
    Json,
    RouteRequest,
    Turn,
    completion,
    text_choice,
    text_completion,
)
from fingerpost.store.server import new_id, now
from fingerpost.store.server_rows import LoggedTeacherReply, RequestLogEntry
from fingerpost.students.cascade import asks_teacher
from fingerpost.task.prompt import chat, schema
from fingerpost.task.replies import resolve_label
from fingerpost.task.reply_format import label_in, without_template


class ChatService:
    """Answers chat and route requests, writes them to the request log, and counts them in the metrics.

    Args:
        teacher: None where no teacher is set up; the student then answers everything.
        request_log: None where requests are not stored.
    """

    def __init__(
        self,
        models: ModelRegistry,
        engine: Engine,
        teacher: Teacher | None,
        request_log: RequestLog | None,
        metrics: Metrics,
    ) -> None:
        self._models, self._engine, self._teacher = models, engine, teacher
        self._request_log, self._metrics = request_log, metrics
        self._writing = WritingService()

    async def chat(self, request: ChatRequest, raw: Json, key: str | None) -> ChatAnswer:
        """The answer to a chat request.

        Args:
            raw: the request body as the client sent it, for the teacher.
            key: name of the API key, for the request log.

        Raises:
            ApiError: there is no such model, no text of a user, or no label that is allowed.
        """
        model = await self._models.find_any(request.model)
        if isinstance(model, ServedWriter):
            return await self._writing.answer(request, raw, model.student)
        messages = without_template(conversation_of(request.messages), model.user_template)
        has_system = any(turn.role in ("system", "developer") for turn in request.messages)
        for_teacher = raw if has_system else _with_system_prompt(raw, model)
        try:
            response_format = requested_format(request, model, self._models.folder_models)
        except ApiError as error:
            if error.code == UNFILLABLE and model.student.manifest.kind == "lora":  # it writes what no label can fill
                return await self._writing.answer(request, raw, model.student)
            if self._teacher is None or error.code != UNFILLABLE:
                raise
            return await self._teachers_answer(self._teacher, request, model, messages, for_teacher, key, error)
        completion_id = new_id("chatcmpl-")
        others = await self._decide_others(response_format, messages)
        unsure = [name for name, other in others.items() if asks_teacher(other.whole_confidence, other.model.cutoff)]
        if self._teacher is not None and unsure:
            why = ApiError(400, f"no student is sure of '{'.'.join(unsure[0])}'", param="messages")
            return await self._teachers_answer(self._teacher, request, model, messages, for_teacher, key, why)
        decision = await self._decide(model, messages, response_format.allowed, for_teacher)
        await self._write_log(completion_id, decision, messages, key)
        for other in others.values():
            await self.log_student_decision(other, messages, key)
        labels = {path: other.label for path, other in others.items()}
        return answer_of(request, response_format, decision, completion_id, labels)

    async def stream(self, request: ChatRequest, raw: Json) -> AsyncIterator[str] | None:
        """The server-sent events of a model that writes its replies; None for a classifier, whose answer comes as a whole.

        Raises:
            ApiError: as for `chat`.
        """
        model = await self._models.find_any(request.model)
        return await self._writing.stream(request, raw, model.student) if isinstance(model, ServedWriter) else None

    async def _decide_others(
        self, response_format: ResponseFormat, messages: Conversation
    ) -> dict[tuple[str, ...], Decision]:
        """The students' decisions on the further fields of a reply, by path."""
        fields = response_format.others.items()
        found = await asyncio.gather(
            *(self.student_decision(field.model, messages, list(field.values)) for _, field in fields)
        )
        return dict(zip((path for path, _ in fields), found, strict=True))

    async def _teachers_answer(
        self,
        teacher: Teacher,
        request: ChatRequest,
        model: ServedModel,
        messages: Conversation,
        for_teacher: Json,
        key: str | None,
        unfillable: ApiError,
    ) -> ChatAnswer:
        """The teacher's own reply to a request whose schema no classifier can keep.

        Raises:
            ApiError: the schema cannot be checked, or the teacher does not answer or breaks the schema.
        """
        schema = requested_schema(request)
        try:
            if schema is not None:
                require_usable(schema)
            reply = await teacher.ask(for_teacher)
            if schema is not None:
                require_kept(schema, strip_code_fence(reply.text or ""))
        except UnfillableError as error:
            raise ApiError(400, f"{unfillable.message}; and for the teacher: {error}", param=unfillable.param) from None
        except (Unanswered, ValueError) as error:
            reason = error.reason if isinstance(error, Unanswered) else "nonsense"
            raise ApiError(
                502, f"{unfillable.message}; the teacher was asked instead, and gave no answer ({reason})",
                code="teacher_unavailable", retry_after_s=1,
            ) from None  # fmt: skip
        completion_id = new_id("chatcmpl-")
        content = reply.message.get("content")
        message: Json = {
            "role": "assistant",
            "content": content,
            "refusal": reply.message.get("refusal"),
            "annotations": [],
        }
        calls = reply.message.get("tool_calls")
        if calls:
            message["tool_calls"] = calls
        if self._request_log is not None:
            logged = LoggedTeacherReply(teacher.model, None, reply.text or "", reply.logprob, reply.usage)
            latency = reply.usage.latency_s or 0.0
            await self._request_log.write(
                RequestLogEntry(completion_id, now(), key, model.name, messages, None, 0.0, "teacher", latency, logged)
            )
        body = completion(
            completion_id, now(), request.model, message, usage_object(reply.usage), None, request.n or 1,
            "tool_calls" if calls else "stop",
        )  # fmt: skip
        return ChatAnswer(body, [str(content)] if content else [], {"x-fingerpost-by": "teacher"})

    async def complete(self, request: CompletionRequest, key: str | None) -> tuple[Json, dict[str, str]]:
        """The `text_completion` object for the older wire, and headers that say how the first answer was found.

        Raises:
            ApiError: as for `chat`.
        """
        prompts = [request.prompt] if isinstance(request.prompt, str) else request.prompt
        self._engine.require_room(len(prompts))
        bodies: list[Json] = [
            {"model": request.model, "messages": [{"role": "user", "content": prompt}]} for prompt in prompts
        ]
        chats = [
            ChatRequest(**body, logprobs=request.logprobs is not None, top_logprobs=request.logprobs) for body in bodies
        ]
        answers = await asyncio.gather(*(self.chat(chat, body, key) for chat, body in zip(chats, bodies, strict=True)))
        choices: list[Json] = []
        totals: Counter[str] = Counter()
        for prompt, answer in zip(prompts, answers, strict=True):
            (found,) = answer.completion["choices"]
            before = prompt if request.echo else ""
            text = f"{before}{found['message']['content']}"
            choices += [
                text_choice(len(choices) + i, text, len(before), found["logprobs"], request.logprobs)
                for i in range(request.n or 1)
            ]
            usage = answer.completion["usage"]
            totals.update({name: usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")})
        return text_completion(answers[0].completion, choices, dict(totals)), answers[0].headers

    async def route(self, request: RouteRequest, key: str | None) -> tuple[ServedModel, list[Decision]]:
        """The model, and its decision on each conversation of a route request, in order.

        Raises:
            ApiError: there is no such model, no text of a user, a label that the model does not have, or too many
                conversations are waiting.
        """
        model = await self._models.find(request.model)
        inputs = [request.input] if isinstance(request.input, str) else request.input
        self._engine.require_room(len(inputs))
        allowed = None if request.labels is None else _label_names(model, request.labels, "labels")
        conversations = []
        for given in inputs:
            turns = [Turn(role="user", content=given)] if isinstance(given, str) else given
            conversations.append(without_template(conversation_of(turns), model.user_template))
        decisions = await asyncio.gather(
            *(self._decide(model, messages, allowed, _teacher_request(model, messages)) for messages in conversations)
        )
        await asyncio.gather(
            *(
                self._write_log(new_id("route-"), decision, messages, key)
                for decision, messages in zip(decisions, conversations, strict=True)
            )
        )
        return model, decisions

    async def _decide(
        self, model: ServedModel, messages: Conversation, allowed: Sequence[str] | None, teacher_request: Json
    ) -> Decision:
        decision = await self.student_decision(model, messages, allowed)
        if self._teacher is not None and asks_teacher(decision.whole_confidence, model.cutoff):
            began = time.perf_counter()
            decision = await self._ask_teacher(self._teacher, decision, allowed, teacher_request)
            decision = replace(decision, latency_s=decision.latency_s + time.perf_counter() - began)
        self._count(decision)
        return decision

    async def student_decision(
        self, model: ServedModel, messages: Conversation, allowed: Sequence[str] | None
    ) -> Decision:
        """The student's own decision, which is neither logged nor counted.

        Args:
            allowed: names of the labels to choose from; None allows all.

        Raises:
            ApiError: 503, too many conversations are waiting.
        """
        began = time.perf_counter()
        # The fast tier is sure of its label among all labels, not of an order among some of them.
        restricted = allowed is not None and len(allowed) < len(model.task.labels)
        student = model.student.all_views if restricted else model.student
        prediction = await self._engine.predict(student, messages)
        best = restrict(prediction, allowed)
        assert best.label is not None
        confidence = prediction.confidence if model.task.multi else prediction.scores[best.label]
        tokens = best.usage.prompt or 0
        took_s = time.perf_counter() - began
        return Decision(
            model, best.label, best.confidence, best.scores, "student", took_s, tokens, prediction.tier, confidence
        )

    async def _ask_teacher(
        self, teacher: Teacher, decision: Decision, allowed: Sequence[str] | None, request: Json
    ) -> Decision:
        """The decision with the teacher's label; where it gives none, with the student's label and the reason."""
        try:
            reply = await teacher.ask(request)
        except Unanswered as error:
            return replace(decision, teacher_failure=error.reason)
        label = label_in(decision.model.reply_template, decision.model.task, reply.text or "")
        named = decision.model.task.labels_in(label) if label is not None else ()
        if label is None or (allowed is not None and not set(named) <= set(allowed)):
            return replace(decision, teacher_reply=reply, teacher_failure="nonsense")
        return replace(decision, label=label, by="teacher", teacher_reply=reply)

    def _count(self, decision: Decision) -> None:
        name = decision.model.name
        self._metrics.decisions.labels(name, decision.by, decision.teacher_failure or "").inc()
        self._metrics.confidence.labels(name).observe(decision.confidence)
        if decision.teacher_reply is not None:
            self._metrics.teacher_usd.inc(decision.teacher_reply.usage.cost_usd or 0.0)

    async def log_student_decision(self, decision: Decision, messages: Conversation, key: str | None) -> None:
        """Count and log a decision that the student has made on another wire."""
        self._count(decision)
        await self._write_log(new_id("decision-"), decision, messages, key)

    async def _write_log(self, request_id: str, decision: Decision, messages: Conversation, key: str | None) -> None:
        if self._request_log is None:
            return
        reply = decision.teacher_reply
        teacher: LoggedTeacherReply | None = None
        if reply is not None and self._teacher is not None:
            label = None if decision.teacher_failure else decision.label
            teacher = LoggedTeacherReply(self._teacher.model, label, reply.text or "", reply.logprob, reply.usage)
        await self._request_log.write(
            RequestLogEntry(
                request_id=request_id,
                at=now(),
                key=key,
                model=decision.model.name,
                messages=messages,
                label=decision.label,
                confidence=decision.confidence,
                by=decision.by,
                latency_s=decision.latency_s,
                teacher=teacher,
            )
        )


def restrict(prediction: Prediction, allowed: Sequence[str] | None) -> Prediction:
    """The prediction among the allowed labels only, with scores that sum to 1; of several labels, without the others."""
    if allowed is None:
        return prediction
    kept = {name: prediction.scores[name] for name in allowed}
    if prediction.multi:
        return replace(prediction, label=join_labels(name for name in prediction.labels if name in kept), scores=kept)
    total = sum(kept.values()) or 1.0
    scores = {name: score / total for name, score in kept.items()}
    best = max(scores, key=scores.__getitem__)
    return replace(prediction, label=best, confidence=scores[best], scores=scores)


def _label_names(model: ServedModel, labels: Sequence[str | int], param: str) -> list[str]:
    """Names of labels that are given by name or code, without duplicates."""
    names = []
    for given in labels:
        name = resolve_label(model.task, given)
        if name is None:
            raise ApiError(400, f"'{given}' is not a label of '{model.name}'; remove or correct it", param=param)
        names.append(name)
    return list(dict.fromkeys(names))


def _with_system_prompt(body: Json, model: ServedModel) -> Json:
    """The chat request with the model's own system prompt: the teacher needs one."""
    return {**body, "messages": [*chat(model.system_prompt, ()), *body["messages"]]}


def _teacher_request(model: ServedModel, messages: Conversation) -> Json:
    """The chat request that asks the teacher for a label of one conversation."""
    turns = [{"role": message.role, "content": message.content} for message in messages]
    body = _with_system_prompt({"messages": turns}, model) | {"temperature": 0}
    if not model.reply_template.codes:  # a schema of codes would need their types; the prompt lists them
        json_schema = schema(model.task)
        named = {"name": "label", "strict": True, "schema": json_schema}
        body["response_format"] = {"type": "json_schema", "json_schema": named}
    return body
