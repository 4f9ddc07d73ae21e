"""Endpoints under /v1/models."""

from __future__ import annotations

from fastapi import APIRouter

from fingerpost.server.inference.registry import CHECKPOINT, ModelRegistry
from fingerpost.server.jobs.runner import delete_models
from fingerpost.server.schemas import ApiError, Json, Name, page_of
from fingerpost.server.settings import Settings
from fingerpost.store.server import ServerStore


def router(settings: Settings, store: ServerStore, models: ModelRegistry) -> APIRouter:
    """The endpoints under /v1/models."""
    routes = APIRouter(tags=["models"])

    def all_models() -> list[Json]:
        return [
            *(_model_object(model.name, model.created) for model in models.named_models),
            *(_model_object(job.model, job.finished_at) for job in store.jobs_by_status("succeeded") if job.model),
        ]

    @routes.get("/v1/models")
    def list_models() -> Json:
        return page_of(all_models(), False)

    @routes.get("/v1/models/{name:path}")
    def get_model(name: Name) -> Json:
        for model in all_models():
            if model["id"] == name.split(CHECKPOINT)[0]:
                return {**model, "id": name}
        raise _not_found(name)

    @routes.delete("/v1/models/{name:path}")
    def delete_model(name: Name) -> Json:
        if any(model.name == name for model in models.named_models):
            raise ApiError(403, f"'{name}' is served from a folder; remove it from the 'fingerpost serve' command")
        job = store.job_of_model(name)
        if job is None:
            raise _not_found(name)
        store.change_job(job.id, model=None)
        models.unload(name)
        delete_models(settings.tuned, job.id)
        return {"id": name, "object": "model", "deleted": True}

    return routes


def _model_object(name: str, created: int | None) -> Json:
    return {"id": name, "object": "model", "created": created, "owned_by": "fingerpost"}


def _not_found(name: str) -> ApiError:
    message = f"there is no model '{name}'; GET /v1/models lists the models"
    return ApiError(404, message, code="model_not_found", param="model")
