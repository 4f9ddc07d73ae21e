"""The server put together: its parts, their start and end, and the chat, route, model and health endpoints."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from sqlalchemy.exc import DatabaseError
from starlette.exceptions import HTTPException

from fingerpost.core.version import __version__
from fingerpost.server.api import batches, files, fine_tuning
from fingerpost.server.inference.chat import Answers, Decision
from fingerpost.server.inference.engine import Engine
from fingerpost.server.inference.registry import CHECKPOINT, Models, Served
from fingerpost.server.inference.request_log import Journal
from fingerpost.server.inference.teacher import Teacher
from fingerpost.server.inference.thresholds import cutoffs
from fingerpost.server.jobs.batches import Batches
from fingerpost.server.jobs.files import Files
from fingerpost.server.jobs.runner import Runner
from fingerpost.server.jobs.webhook import Announcer
from fingerpost.server.ops.access import Door
from fingerpost.server.ops.logs import log
from fingerpost.server.ops.metrics import Metrics
from fingerpost.server.ops.supervise import forever
from fingerpost.server.schemas import ChatRequest, Json, Name, RouteRequest, WireError, chunks, error_body, page_of
from fingerpost.server.settings import Settings
from fingerpost.store.server import ALIVE, ENDED, JOBS, ServerStore, now

WATCH_S = 1.0
TIDY_S = 60.0
DAY_S = 86_400


class Server:
    """All parts of one server. Made before it listens, so that what is wrong with a model or setting is said at once.

    Raises:
        ModelError: a model folder cannot be used. InputError: the database cannot.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        settings.tuned.mkdir(parents=True, exist_ok=True)
        self.store = ServerStore(settings.database)
        self.files = Files(settings, self.store)
        self.models = Models(settings.models, self.store, settings.tuned, settings.task, cutoffs(settings))
        self.metrics = Metrics()
        self.runner = Runner(settings, self.store)
        self.teacher: Teacher | None = None
        if settings.teacher is not None:
            self.teacher = Teacher(
                settings.teacher, settings.project or settings.folder, self.store.ledger, settings.teacher_timeout_s,
                settings.budget_usd,
            )  # fmt: skip
        self.app = self._app()

    @asynccontextmanager
    async def running(self, _: FastAPI) -> AsyncIterator[None]:
        """The parts that work while the server listens."""
        settings = self.settings
        self.engine = Engine(settings.threads, settings.most_waiting)
        journal = Journal(self.store, settings.redact, self._lost) if settings.keep_requests else None
        self.answers = Answers(self.engine, self.teacher, journal, self._observe)
        self.batches = Batches(self.store, self.files, settings.folder / "batches", self._batched)
        self.app.include_router(batches.router(self.store, self.files, self.batches))
        self.runner.start()
        announcer = Announcer(self.store, settings.webhook, settings.webhook_secret)
        tasks = [
            asyncio.create_task(each)
            for each in (
                self.batches.run(),
                announcer.run(),
                self._every(WATCH_S, self._watch),
                self._every(TIDY_S, self.files.tidy),
                self._every(TIDY_S, self._forget),
            )
        ]
        log("listening", models=[each.name for each in self.models.named], folder=str(settings.folder))
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.runner.stop()
        await asyncio.to_thread(self.engine.close)
        if journal is not None:
            await asyncio.to_thread(journal.close)
        if self.teacher is not None:
            await self.teacher.close()
        self.store.close()
        log("stopped")

    # --- what happens beside the requests

    async def _every(self, seconds: float, work: Callable[[], None]) -> None:
        async def once() -> None:
            await asyncio.to_thread(work)
            await asyncio.sleep(seconds)

        await forever(work.__name__, once)

    def _watch(self) -> None:
        for name, problem in self.models.refresh():
            self.metrics.swaps.labels("failed" if problem else "loaded").inc()
            log("model changed on disk", logging.ERROR if problem else logging.INFO, model=name, problem=problem)

    def _forget(self) -> None:
        self.store.forget(now() - round(self.settings.keep_days * DAY_S))

    def _lost(self, count: int, error: Exception) -> None:
        self.metrics.lost.inc(count)
        log("requests could not be kept", logging.ERROR, error, count=count)

    def _observe(self, decision: Decision) -> None:
        name = decision.served.name
        self.metrics.decisions.labels(name, decision.by, decision.missed or "").inc()
        self.metrics.confidence.labels(name).observe(decision.confidence)
        if decision.teacher is not None:
            self.metrics.teacher_usd.inc(decision.teacher.usage.cost_usd or 0.0)

    async def _batched(self, request: ChatRequest, raw: Json) -> Json:
        whole, _, _ = await self.answers.chat(request, raw, await self._served(request.model), "batch")
        return whole

    async def _served(self, name: str | None) -> Served:
        found = self.models.ready(name)
        return found if found is not None else await asyncio.to_thread(self.models.get, name)

    # --- endpoints

    def _app(self) -> FastAPI:
        app = FastAPI(title="Fingerpost", version=__version__, docs_url=None, redoc_url=None, lifespan=self.running)
        app.add_middleware(Door, settings=self.settings, store=self.store, metrics=self.metrics)
        for kind, handler in (
            (WireError, _wire_error),
            (RequestValidationError, _invalid),
            (HTTPException, _http_error),
            (OSError, _broken),
            (DatabaseError, _broken),
            (Exception, _broken),
        ):
            app.add_exception_handler(kind, handler)
        app.include_router(files.router(self.files, self.store, self.settings.most_upload))
        app.include_router(fine_tuning.router(self.settings, self.store, self.files, self.runner))
        self._chat_routes(app)
        self._model_routes(app)
        self._health_routes(app)
        return app

    def _chat_routes(self, app: FastAPI) -> None:
        @app.post("/v1/chat/completions", tags=["chat"])
        async def chat(request: ChatRequest, http: Request) -> Response:
            served = await self._served(request.model)
            whole, pieces, decision = await self.answers.chat(request, await http.json(), served, http.state.key)
            if not request.stream:
                return Response(
                    json.dumps(whole, ensure_ascii=False), media_type="application/json", headers=decision.headers
                )
            usage = bool(request.stream_options and request.stream_options.include_usage)
            events = chunks(whole, pieces, usage)
            return Response("".join(events), media_type="text/event-stream", headers=decision.headers)

        @app.post("/v1/route", tags=["chat"])
        async def route(request: RouteRequest, http: Request) -> Response:
            served = await self._served(request.model)
            found = [
                {
                    "label": each.label,
                    "code": served.label(each.label).code,
                    "confidence": each.confidence,
                    "by": each.by,
                    "teacher": each.missed,
                    "latency_ms": round(1000 * each.latency_s, 3),
                    **({"scores": each.scores} if request.scores else {}),
                }
                for each in await self.answers.route(request, served, http.state.key)
            ]
            body = {"object": "list", "model": served.name, "data": found}
            return Response(json.dumps(body, ensure_ascii=False), media_type="application/json")

    def _model_routes(self, app: FastAPI) -> None:
        def everything() -> list[Json]:
            tuned = self.store.jobs_with("succeeded")
            return [
                *(_model(each.name, each.created) for each in self.models.named),
                *(_model(job["model"], job["finished_at"]) for job in tuned if job["model"]),
            ]

        @app.get("/v1/models", tags=["models"])
        def list_models() -> Json:
            return page_of(everything(), False)

        @app.get("/v1/models/{name:path}", tags=["models"])
        def get_model(name: Name) -> Json:
            for each in everything():
                if each["id"] == name.split(CHECKPOINT)[0]:
                    return {**each, "id": name}
            raise WireError(404, f"there is no model '{name}' here", code="model_not_found", param="model")

        @app.delete("/v1/models/{name:path}", tags=["models"])
        def delete_model(name: Name) -> Json:
            if any(each.name == name for each in self.models.named):
                raise WireError(403, f"'{name}' is served from a folder; leave it out of 'fingerpost serve' instead")
            job = self.store.job_of_model(name)
            if job is None:
                raise WireError(404, f"there is no model '{name}' here", code="model_not_found", param="model")
            self.store.change(JOBS, job["id"], model=None)
            self.models.forget(name)
            shutil.rmtree(self.settings.tuned / job["id"], ignore_errors=True)
            return {"id": name, "object": "model", "deleted": True}

    def _health_routes(self, app: FastAPI) -> None:
        @app.get("/healthz", tags=["health"])
        async def healthz() -> Json:
            return {"status": "ok"}

        @app.get("/readyz", tags=["health"])
        def readyz() -> Json:
            self.store.all_keys()
            if not self.runner.alive:
                raise WireError(503, "the job runner has stopped; restart the server", code="not_ready")
            return {"status": "ready", "models": [each.name for each in self.models.named]}

        @app.get("/metrics", tags=["health"])
        def metrics() -> Response:
            self.metrics.waiting.set(self.engine.waiting)
            self.metrics.breaker.set(self.teacher is not None and self.teacher.breaker.state != "closed")
            for status in (*ALIVE, *ENDED):
                self.metrics.jobs.labels(status).set(len(self.store.jobs_with(status)))
            return Response(self.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _model(name: str, created: int) -> Json:
    return {"id": name, "object": "model", "created": created, "owned_by": "fingerpost"}


# --- errors, all of them in the standard form


async def _wire_error(_: Request, error: Any) -> JSONResponse:
    headers = {"retry-after": str(error.retry_after_s)} if error.retry_after_s else None
    return JSONResponse(error.body, error.status, headers)


async def _invalid(_: Request, error: Any) -> Response:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
    message = first["msg"].removeprefix("Value error, ")
    body = error_body(400, f"{where}: {message}" if where else message, "invalid_value", where or None)
    return Response(json.dumps(body), 400, media_type="application/json")


async def _http_error(request: Request, error: Any) -> JSONResponse:
    cause = error.__cause__
    if isinstance(cause, WireError):
        return await _wire_error(request, cause)
    if isinstance(cause, OSError):
        return await _broken(request, cause)
    message = {
        404: f"there is nothing at {request.method} {request.url.path}",
        405: f"{request.method} is not taken at {request.url.path}",
    }.get(error.status_code, str(error.detail))
    return JSONResponse(error_body(error.status_code, message), error.status_code, error.headers)


async def _broken(request: Request, error: Any) -> JSONResponse:
    """What went wrong here: told to the log in full, to the client in brief."""
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or "is full" in str(error)
    log("failed", logging.ERROR, error, path=request.url.path, request_id=getattr(request.state, "request_id", None))
    if full:
        return JSONResponse(error_body(507, "the server's disk is full: nothing was kept", "disk_full"), 507)
    return JSONResponse(error_body(500, "the server failed; its log has more", "server_error"), 500)
