"""Endpoint /v1/embeddings: unit vectors by a student's encoder."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

from fastapi import APIRouter

from fingerpost.core.errors import ModelError
from fingerpost.server.inference.engine import Engine
from fingerpost.server.inference.registry import ModelRegistry
from fingerpost.server.schemas import ApiError, EmbeddingsRequest, Json


def router(models: ModelRegistry, engine: Engine) -> APIRouter:
    """The embeddings endpoint."""
    routes = APIRouter(tags=["embeddings"])

    @routes.post("/v1/embeddings")
    async def embed(request: EmbeddingsRequest) -> Json:
        model = await models.find(request.model)
        if model.student.manifest.kind == "lora":
            message = f"'{model.name}' is a language model and has no embeddings; ask a model of a sentence encoder"
            raise ApiError(400, message, param="model")
        texts = [request.input] if isinstance(request.input, str) else request.input
        if not all(text.strip() for text in texts):
            raise ApiError(400, "a text is empty; leave it out", param="input")
        engine.require_room(1)
        try:
            vectors, tokens = await asyncio.to_thread(model.student.embed, texts)
        except ModelError as error:
            raise ApiError(400, str(error), param="model") from None
        if request.dimensions not in (None, vectors.shape[1]):
            raise ApiError(400, f"the vectors have {vectors.shape[1]} dimensions; leave it out", param="dimensions")

        def encoded(vector: Any) -> str | list[float]:
            packed = vector.astype("<f4")
            return (
                base64.b64encode(packed.tobytes()).decode() if request.encoding_format == "base64" else packed.tolist()
            )

        data = [{"object": "embedding", "index": i, "embedding": encoded(row)} for i, row in enumerate(vectors)]
        usage = {"prompt_tokens": sum(tokens), "total_tokens": sum(tokens)}
        return {"object": "list", "data": data, "model": request.model, "usage": usage}

    return routes
