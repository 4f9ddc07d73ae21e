"""Endpoints /healthz, /readyz and /metrics."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from fingerpost.server.inference.engine import Engine
from fingerpost.server.inference.registry import ModelRegistry
from fingerpost.server.inference.teacher import Teacher
from fingerpost.server.jobs.runner import JobRunner
from fingerpost.server.ops.metrics import Metrics
from fingerpost.server.schemas import ApiError, Json
from fingerpost.store.server import JOB_ACTIVE, JOB_ENDED, ServerStore


def router(
    store: ServerStore,
    models: ModelRegistry,
    engine: Engine,
    teacher: Teacher | None,
    jobs: JobRunner,
    metrics: Metrics,
) -> APIRouter:
    """The health and metrics endpoints."""
    routes = APIRouter(tags=["health"])

    @routes.get("/healthz")
    async def healthz() -> Json:
        return {"status": "ok"}

    @routes.get("/readyz")
    def readyz() -> Json:
        store.all_keys()  # fails where the database cannot be read
        if not jobs.alive:
            raise ApiError(503, "the job runner has stopped; restart the server", code="not_ready")
        return {"status": "ready", "models": [model.name for model in models.named_models]}

    @routes.get("/metrics", name="metrics")
    def render_metrics() -> Response:
        metrics.waiting.set(engine.waiting)
        metrics.breaker_open.set(teacher is not None and teacher.breaker.state != "closed")
        for status in (*JOB_ACTIVE, *JOB_ENDED):
            metrics.jobs.labels(status).set(len(store.jobs_by_status(status)))
        return Response(metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return routes
