"""Endpoints /v1/chat/completions, /v1/completions and /v1/route."""

from __future__ import annotations

import json

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from fingerpost.server.inference.answers import ChatAnswer, Decision
from fingerpost.server.inference.chat import ChatService
from fingerpost.server.schemas import ChatRequest, CompletionRequest, Json, RouteRequest, stream_events, text_events


def router(service: ChatService) -> APIRouter:
    """The chat and route endpoints."""
    routes = APIRouter(tags=["chat"])

    @routes.post("/v1/chat/completions")
    async def chat(request: ChatRequest, http: Request) -> Response:
        body = await http.json()
        if request.stream and (events := await service.stream(request, body)) is not None:
            return StreamingResponse(events, media_type="text/event-stream", headers={"x-fingerpost-by": "student"})
        return chat_response(request, await service.chat(request, body, http.state.key))

    @routes.post("/v1/completions")
    async def complete(request: CompletionRequest, http: Request) -> Response:
        body, headers = await service.complete(request, http.state.key)
        if not request.stream:
            return _json(body, headers)
        with_usage = bool(request.stream_options and request.stream_options.include_usage)
        return Response("".join(text_events(body, with_usage)), media_type="text/event-stream", headers=headers)

    @routes.post("/v1/route")
    async def route(request: RouteRequest, http: Request) -> Response:
        model, decisions = await service.route(request, http.state.key)
        data = [_route_object(decision, request.scores) for decision in decisions]
        return _json({"object": "list", "model": model.name, "data": data})

    return routes


def chat_response(request: ChatRequest, answer: ChatAnswer) -> Response:
    """The response to a chat request, streamed if that is asked for."""
    if not request.stream:
        return _json(answer.completion, answer.headers)
    with_usage = bool(request.stream_options and request.stream_options.include_usage)
    events = stream_events(answer.completion, answer.pieces, with_usage)
    return Response("".join(events), media_type="text/event-stream", headers=answer.headers)


def _json(body: Json, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(body, ensure_ascii=False), media_type="application/json", headers=headers)


def _route_object(decision: Decision, with_scores: bool) -> Json:
    task = decision.model.task
    labels = [decision.model.label(name) for name in task.labels_in(decision.label)]
    answer: Json = (
        {"labels": [label.name for label in labels], "codes": [label.code for label in labels]}
        if task.multi
        else {"label": decision.label, "code": labels[0].code}
    )
    found: Json = {
        **answer,
        "confidence": decision.confidence,
        "by": decision.by,
        "teacher": decision.teacher_failure,
        "latency_ms": round(1000 * decision.latency_s, 3),
    }
    return {**found, "scores": decision.scores} if with_scores else found
