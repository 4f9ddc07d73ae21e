"""In front of the server's own endpoints: passes on to the upstream endpoint what this server does not decide itself."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator

from cachetools import TTLCache
from fastapi.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fingerpost.core.text import parse_json
from fingerpost.core.types import Usage
from fingerpost.server.api.chat import chat_response
from fingerpost.server.api.responses import responses_response
from fingerpost.server.inference.answers import answer_of
from fingerpost.server.inference.decisions_wire import DECISIONS, SYSTEM_ONE, questions_response
from fingerpost.server.inference.registry import ModelRegistry
from fingerpost.server.inference.responses import ResponsesService, input_items
from fingerpost.server.loop.active import Proposal
from fingerpost.server.loop.decisions import DecisionLoop
from fingerpost.server.loop.recognition import CHAT, WIRES, Recognised, Wire, plain_request, read_reply, recognise
from fingerpost.server.loop.repeated_prompts import RepeatedPrompts
from fingerpost.server.loop.typed_questions import (
    asked_questions,
    has_more_than_text,
    observed_answers,
    recognise_question,
    student_answer,
)
from fingerpost.server.loop.upstream import BY, Headers, OnAnswer, Upstream, UpstreamAnswer
from fingerpost.server.ops.access import READ_PATHS
from fingerpost.server.ops.logs import log_sometimes
from fingerpost.server.schemas import ApiError, ChatRequest, Json
from fingerpost.store.server import ServerStore, new_id

HEADER = b"x-fingerpost-decision"
"""The request header that names the decision in a request."""
PROVEN_S, MOST_PROVEN = 3600, 10_000
"""For how long a caller's key counts as accepted by the upstream endpoint, and how many of them are remembered."""


class Proxy:
    """ASGI middleware: answers decisions by their students, passes on what is not this server's own, and learns from the answers."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        upstream: Upstream,
        loop: DecisionLoop,
        models: ModelRegistry,
        responses: ResponsesService,
        store: ServerStore,
        repeated: RepeatedPrompts | None,
    ) -> None:
        self._app, self._upstream, self._loop = app, upstream, loop
        self._models, self._responses, self._store = models, responses, store
        self._repeated = repeated
        self._proven: TTLCache[str, bool] = TTLCache(MOST_PROVEN, PROVEN_S)
        self._checks: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        try:
            await self._handle(scope, receive, send)
        except ApiError as error:
            await JSONResponse(error.body, error.status)(scope, receive, send)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, foreign = scope["path"], scope["state"].get("foreign", False)
        if foreign and await self._upstream.is_open():
            raise ApiError(
                401, "the API key is unknown or revoked; create one with 'fingerpost keys add'", code="invalid_api_key"
            )
        if scope["method"] == "POST" and path in READ_PATHS:
            raw = await _read(receive)
            body = _object(raw)
            if not foreign and self._models.has(body.get("model")):
                await self._app(scope, _replay(raw, receive), send)
            else:
                decide = self._decide_questions if path in (DECISIONS, SYSTEM_ONE) else self._decide
                await decide(scope, _replay(raw, receive), send, raw, body)
        elif not foreign and await asyncio.to_thread(self._is_own, path):
            await self._app(scope, receive, send)
        elif scope["method"] in ("GET", "HEAD", "DELETE", "OPTIONS"):
            await self._upstream.forward(scope, receive, send, b"")
        else:
            await self._upstream.forward(scope, receive, send, _stream(receive))

    def _is_own(self, path: str) -> bool:
        """Whether a path names something that this server has."""
        _, _, kind, *rest = path.split("/")
        name = "/".join(rest)
        if kind == "models":
            return self._models.has(name) if name else False
        if kind == "fine_tuning":
            return len(rest) > 1 and self._store.get_job(rest[1]) is not None
        known = {
            "files": self._store.get_file, "batches": self._store.get_batch, "responses": self._store.get_response,
        }.get(kind)  # fmt: skip
        return bool(rest) and known is not None and known(rest[0]) is not None

    async def _decide(self, scope: Scope, receive: Receive, send: Send, raw: bytes, body: Json) -> None:
        wire: Wire | None = WIRES.get(scope["path"])
        name = _decision_name(scope)
        foreign, who = scope["state"].get("foreign", False), _caller(scope)
        earlier: list[Json] = []
        if wire == "responses" and isinstance(previous := body.get("previous_response_id"), str) and not foreign:
            earlier, before = await asyncio.to_thread(self._responses.history, previous)
            raw = _with_history(body, earlier, before) if earlier else raw
        recognised = recognise(wire, body, name, earlier) if wire is not None else None
        if wire is None or recognised is None:
            watched = plain_request(body) if scope["path"] == CHAT and self._repeated is not None else None
            await self._upstream.forward(scope, receive, send, raw, self._watch(watched))
            return
        known = self._loop.find(recognised)
        proposal = await self._loop.propose(known, recognised, not foreign or who in self._proven) if known else None
        request_id, key = scope["state"]["request_id"], scope["state"].get("key")
        if known is not None and proposal is not None and proposal.answers:
            response = await self._answer(recognised, proposal, foreign)
            if response is not None:
                await self._loop.answered_by_student(known, recognised, proposal, request_id, key)
                headers = self._upstream.headers(scope, readable=True) if proposal.check else []
                await response(scope, receive, send)
                if proposal.check:

                    async def on_check(answer: UpstreamAnswer) -> None:
                        found = read_reply(wire, answer.content_type, answer.body)
                        await self._loop.checked(known, recognised, proposal, answer, found, request_id)

                    self._check_later(scope["path"], headers, raw, on_check)
                return

        async def on_answer(answer: UpstreamAnswer) -> None:
            self._note_key(who, answer)
            reply = read_reply(wire, answer.content_type, answer.body) if answer.status == 200 else None
            active = await self._loop.bind(recognised) if reply is not None else known
            if active is not None:
                await self._loop.answered_upstream(active, recognised, proposal, answer, reply, request_id, key)

        await self._upstream.forward(scope, receive, send, raw, on_answer)

    async def _decide_questions(self, scope: Scope, receive: Receive, send: Send, raw: bytes, body: Json) -> None:
        """Answer typed questions, if the students are sure of all of them; each is a decision of its own."""
        asked = None if has_more_than_text(body) else asked_questions(scope["path"], body)
        if asked is None:
            await self._upstream.forward(scope, receive, send, raw)
            return
        name = _decision_name(scope) if len(asked.questions) == 1 else None
        foreign, who = scope["state"].get("foreign", False), _caller(scope)
        may_answer = not foreign or who in self._proven
        request_id, key = scope["state"]["request_id"], scope["state"].get("key")
        recognised = [recognise_question(asked, number, name, body) for number in range(len(asked.questions))]
        known = [self._loop.find(one) for one in recognised]
        proposals = [
            await self._loop.propose(active, one, may_answer) if active is not None else None
            for active, one in zip(known, recognised, strict=True)
        ]
        given = [
            (active, one, proposal)
            for active, one, proposal in zip(known, recognised, proposals, strict=True)
            if active is not None and proposal is not None and proposal.answers
        ]
        if len({active.row.id for active, _, _ in given}) == len(recognised):
            for active, one, proposal in given:
                await self._loop.answered_by_student(active, one, proposal, request_id, key)
            decisions = [proposal.decision for _, _, proposal in given]
            answers = [student_answer(*pair) for pair in zip(asked.questions, decisions, strict=True)]
            usage = Usage(prompt=max(decision.prompt_tokens for decision in decisions), completion=0)
            check = any(proposal.check for _, _, proposal in given)
            headers = self._upstream.headers(scope, readable=True) if check else []
            response = JSONResponse(questions_response(asked, answers, usage), headers={BY.decode(): "student"})
            await response(scope, receive, send)

            async def on_check(answer: UpstreamAnswer) -> None:
                replies = observed_answers(asked, recognised, answer.body)
                for (active, one, proposal), reply in zip(given, replies, strict=True):
                    if proposal.check:
                        await self._loop.checked(active, one, proposal, answer, reply, request_id)

            if check:
                self._check_later(scope["path"], headers, raw, on_check)
            return

        async def on_answer(answer: UpstreamAnswer) -> None:
            self._note_key(who, answer)
            replies = observed_answers(asked, recognised, answer.body)
            learnt: set[int] = set()  # of two questions that are the same decision, the first one counts
            for active, one, proposal, reply in zip(known, recognised, proposals, replies, strict=True):
                bound = await self._loop.bind(one) if reply is not None and answer.status == 200 else active
                if bound is not None and bound.row.id not in learnt:
                    learnt.add(bound.row.id)
                    await self._loop.answered_upstream(bound, one, proposal, answer, reply, request_id, key)

        await self._upstream.forward(scope, receive, send, raw, on_answer)

    def _watch(self, request: ChatRequest | None) -> OnAnswer | None:
        """What counts the replies to a request's prompt; None where they are not counted."""
        repeated = self._repeated
        if request is None or repeated is None or not repeated.watches(request):
            return None

        async def on_answer(answer: UpstreamAnswer) -> None:
            reply = read_reply("chat", answer.content_type, answer.body) if answer.status == 200 else None
            if reply is not None:
                await asyncio.to_thread(repeated.add, request, reply)

        return on_answer

    def _note_key(self, who: str | None, answer: UpstreamAnswer) -> None:
        """Remember whether the upstream endpoint has accepted a caller's key."""
        if answer.status == 200 and who is not None:
            self._proven[who] = True
        elif answer.status in (401, 403) and who is not None:
            self._proven.pop(who, None)

    async def _answer(self, recognised: Recognised, proposal: Proposal, foreign: bool) -> Response | None:
        """The response that states what the student says; None if it cannot be in the form that is asked for."""
        request, decision = recognised.request, proposal.decision
        try:
            answer = answer_of(request, proposal.response_format, decision, new_id("chatcmpl-"))
        except ApiError:
            return None
        if recognised.responses is None:
            return chat_response(request, answer)
        asked = recognised.responses
        if foreign:  # it could not get at what is stored
            asked = asked.model_copy(update={"store": False})
        return responses_response(asked, await self._responses.finish(asked, input_items(asked), answer))

    def _check_later(
        self,
        path: str,
        headers: Headers,
        raw: bytes,
        on_answer: OnAnswer,
    ) -> None:
        """Ask the upstream endpoint what the student has just answered."""

        async def check() -> None:
            try:
                await on_answer(await self._upstream.ask(path, headers, raw))
            except Exception as error:  # noqa: BLE001 - nobody waits for it
                log_sometimes("a check of the student failed", logging.WARNING, error)

        task = asyncio.create_task(check())
        self._checks.add(task)
        task.add_done_callback(self._checks.discard)


def _with_history(body: Json, earlier: list[Json], before: str | None) -> bytes:
    """A request's body with the turns that only this server has; `before` is the response of the upstream before them."""
    given = body.get("input")
    more = [{"role": "user", "content": given}] if isinstance(given, str) else given or []
    changed = {**body, "input": [*earlier, *more], "previous_response_id": before}
    if before is None:
        del changed["previous_response_id"]
    return json.dumps(changed).encode()


def _decision_name(scope: Scope) -> str | None:
    """The name that the request gives its decision."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == HEADER), None)


def _caller(scope: Scope) -> str | None:
    """A hash of the key that a caller has sent; None where there is none."""
    sent = [value for key, value in scope["headers"] if key in (b"authorization", b"api-key", b"x-api-key") and value]
    return hashlib.sha256(b"\n".join(sent)).hexdigest() if sent else None


def _object(raw: bytes) -> Json:
    try:
        value = parse_json(raw)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


async def _read(receive: Receive) -> bytes:
    return b"".join([part async for part in _stream(receive)])


async def _stream(receive: Receive) -> AsyncIterator[bytes]:
    """The body of a request as it comes.

    Raises:
        ConnectionError: the client has gone before its end.
    """
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the client has gone")
        more = message.get("more_body", False)
        if message.get("body"):
            yield message["body"]


def _replay(raw: bytes, receive: Receive) -> Receive:
    """A `receive` that gives a body that was read already."""
    pending: list[Message] = [{"type": "http.request", "body": raw, "more_body": False}]

    async def again() -> Message:
        return pending.pop() if pending else await receive()

    return again
