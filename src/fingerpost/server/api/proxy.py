"""In front of the server's own endpoints: passes on to the upstream endpoint what this server does not decide itself."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator

from cachetools import TTLCache
from fastapi.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fingerpost.core.text import parse_json
from fingerpost.server.api.chat import chat_response
from fingerpost.server.api.responses import responses_response
from fingerpost.server.inference.chat import answer_of
from fingerpost.server.inference.registry import ModelRegistry
from fingerpost.server.inference.responses import ResponsesService, input_items
from fingerpost.server.loop.decisions import ActiveDecision, DecisionLoop, Proposal
from fingerpost.server.loop.recognition import WIRES, Recognised, Wire, read_reply, recognise
from fingerpost.server.loop.upstream import Headers, Upstream, UpstreamAnswer
from fingerpost.server.ops.logs import log_sometimes
from fingerpost.server.schemas import ApiError, Json
from fingerpost.store.server import ServerStore, new_id

HEADER = b"x-fingerpost-decision"
"""The request header that names the decision in a request."""
BY_MODEL = {*WIRES, *(f"/v1/{name}" for name in ("completions", "embeddings", "route", "decisions", "systemone"))}
"""Paths of requests that are this server's own if it has the model."""
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
    ) -> None:
        self._app, self._upstream, self._loop = app, upstream, loop
        self._models, self._responses, self._store = models, responses, store
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
        if scope["method"] == "POST" and path in BY_MODEL:
            raw = await _read(receive)
            body = _object(raw)
            if not foreign and self._models.has(body.get("model")):
                await self._app(scope, _replay(raw, receive), send)
            else:
                await self._decide(scope, _replay(raw, receive), send, raw, body)
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
        name = next((value.decode("latin-1") for key, value in scope["headers"] if key == HEADER), None)
        if wire == "responses" and body.get("previous_response_id") is not None:
            raw = await asyncio.to_thread(self._with_history, body, raw)
        recognised = recognise(wire, body, name, self._responses.known_history) if wire is not None else None
        active = await self._loop.bind(recognised) if recognised is not None else None
        if wire is None or recognised is None or active is None:
            await self._upstream.forward(scope, receive, send, raw)
            return
        who = _caller(scope)
        may_answer = not scope["state"].get("foreign", False) or who in self._proven
        proposal = await self._loop.propose(active, recognised, may_answer)
        request_id, key = scope["state"]["request_id"], scope["state"].get("key")
        if proposal is not None and proposal.answers:
            response = await self._answer(recognised, proposal)
            if response is not None:
                await self._loop.answered_by_student(active, recognised, proposal, request_id, key)
                headers = self._upstream.headers(scope, readable=True) if proposal.check else []
                await response(scope, receive, send)
                if proposal.check:
                    self._check_later(wire, active, recognised, proposal, scope["path"], headers, raw, request_id)
                return

        async def on_answer(answer: UpstreamAnswer) -> None:
            if answer.status < 400:
                self._proven[who] = True
            reply = read_reply(wire, answer.content_type, answer.body)
            await self._loop.answered_upstream(active, recognised, proposal, answer, reply, request_id, key)

        await self._upstream.forward(scope, receive, send, raw, on_answer)

    async def _answer(self, recognised: Recognised, proposal: Proposal) -> Response | None:
        """The response that states what the student says; None if it cannot be in the form that is asked for."""
        request, decision = recognised.request, proposal.decision
        try:
            answer = answer_of(request, proposal.response_format, decision, new_id("chatcmpl-"))
        except ApiError:
            return None
        if recognised.responses is None:
            return chat_response(request, answer)
        asked = recognised.responses
        return responses_response(asked, await self._responses.finish(asked, input_items(asked), answer))

    def _check_later(
        self,
        wire: Wire,
        active: ActiveDecision,
        recognised: Recognised,
        proposal: Proposal,
        path: str,
        headers: Headers,
        raw: bytes,
        request_id: str,
    ) -> None:
        """Ask the upstream endpoint what the student has just answered."""

        async def check() -> None:
            try:
                answer = await self._upstream.ask(path, headers, raw)
                reply = read_reply(wire, answer.content_type, answer.body)
                await self._loop.checked(active, recognised, proposal, answer, reply, request_id)
            except Exception as error:  # noqa: BLE001 - nobody waits for it
                log_sometimes("a check of the student failed", 30, error)

        task = asyncio.create_task(check())
        self._checks.add(task)
        task.add_done_callback(self._checks.discard)

    def _with_history(self, body: Json, raw: bytes) -> bytes:
        """A request's body, with the turns of the response that it builds on if only this server has that one."""
        previous = body.get("previous_response_id")
        if not isinstance(previous, str) or self._store.get_response(previous) is None:
            return raw
        items, before = self._responses.history(previous)
        given = body.get("input")
        more = [{"role": "user", "content": given}] if isinstance(given, str) else given or []
        changed = {**body, "input": [*({**item} for item in items), *more], "previous_response_id": before}
        if before is None:
            del changed["previous_response_id"]
        return json.dumps(changed).encode()


def _caller(scope: Scope) -> str:
    """A hash of what a caller identifies itself with."""
    sent = [value for key, value in scope["headers"] if key in (b"authorization", b"api-key", b"x-api-key")]
    return hashlib.sha256(b"\n".join(sent)).hexdigest()


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
