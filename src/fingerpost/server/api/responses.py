"""Endpoints under /v1/responses."""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from fingerpost.server.inference.responses import ResponsesAnswer, ResponsesService, response_events
from fingerpost.server.schemas import ApiError, Json, Name, ResponsesRequest, page_of


def router(service: ResponsesService) -> APIRouter:
    """The endpoints under /v1/responses."""
    routes = APIRouter(tags=["responses"], prefix="/v1/responses")

    @routes.post("")
    async def create(request: ResponsesRequest, http: Request) -> Response:
        return responses_response(request, await service.create(request, http.state.key))

    @routes.get("/{response_id}")
    def get_response(response_id: Name, stream: bool = False) -> Response:
        response = service.get(response_id).response
        if not stream:
            return Response(json.dumps(response, ensure_ascii=False), media_type="application/json")
        texts = [part["text"] for item in response["output"] for part in item.get("content", [])]
        return Response("".join(response_events(response, texts)), media_type="text/event-stream")

    @routes.delete("/{response_id}")
    def delete_response(response_id: Name) -> Json:
        service.delete(response_id)
        return {"id": response_id, "object": "response", "deleted": True}

    @routes.post("/{response_id}/cancel")
    def cancel(response_id: Name) -> Json:
        service.get(response_id)
        raise ApiError(400, "only responses in the background can be cancelled, and this server has none")

    @routes.get("/{response_id}/input_items")
    def items(
        response_id: Name,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        order: Annotated[str, Query(pattern="^(asc|desc)$")] = "desc",
        after: Name | None = None,
    ) -> Json:
        found = service.get(response_id).input
        found = found if order == "asc" else found[::-1]
        if after is not None:
            ids = [item.get("id") for item in found]
            if after not in ids:
                raise ApiError(404, f"the response has no input item '{after}'", param="after")
            found = found[ids.index(after) + 1 :]
        return page_of([_listed(item) for item in found[:limit]], len(found) > limit)

    return routes


def responses_response(request: ResponsesRequest, answer: ResponsesAnswer) -> Response:
    """The response to a request of the Responses wire, streamed if that is asked for."""
    if request.stream:
        events = "".join(response_events(answer.response, answer.pieces))
        return Response(events, media_type="text/event-stream", headers=answer.headers)
    body = json.dumps(answer.response, ensure_ascii=False)
    return Response(body, media_type="application/json", headers=answer.headers)


def _listed(item: Json) -> Json:
    """An item as the API lists it: a text is a list of parts."""
    content = item.get("content")
    listed = {"id": "", **item}
    if isinstance(content, str):
        kind = "output_text" if item.get("role") == "assistant" else "input_text"
        listed |= {"content": [{"type": kind, "text": content}]}
    return listed
