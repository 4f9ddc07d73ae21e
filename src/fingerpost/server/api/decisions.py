"""Endpoints for typed questions, /v1/decisions and /v1/systemone; see `fingerpost.server.inference.decisions_wire`."""

from __future__ import annotations

from fastapi import APIRouter, Request

from fingerpost.server.inference.decisions_wire import DECISIONS, SYSTEM_ONE, questions_response, read_questions
from fingerpost.server.inference.questions import QuestionService
from fingerpost.server.schemas import DecisionsRequest, Json, SystemOneRequest


def router(service: QuestionService) -> APIRouter:
    """The endpoints for typed questions."""
    routes = APIRouter(tags=["decisions"])

    async def answered(request: DecisionsRequest | SystemOneRequest, key: str | None) -> Json:
        asked = read_questions(request)
        answers, usage = await service.answer(asked.model, asked.messages, asked.questions, key)
        return questions_response(asked, answers, usage)

    @routes.post(DECISIONS)
    async def decide(request: DecisionsRequest, http: Request) -> Json:
        return await answered(request, http.state.key)

    @routes.post(SYSTEM_ONE)
    async def system_one(request: SystemOneRequest, http: Request) -> Json:
        return await answered(request, http.state.key)

    return routes
