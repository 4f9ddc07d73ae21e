"""The server: creates its parts, connects them, starts and stops them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from fingerpost.core.version import __version__
from fingerpost.server.api import batches, chat, fine_tuning, health
from fingerpost.server.api import decisions as decisions_api
from fingerpost.server.api import embeddings as embeddings_api
from fingerpost.server.api import files as files_api
from fingerpost.server.api import models as models_api
from fingerpost.server.api import responses as responses_api
from fingerpost.server.api import uploads as uploads_api
from fingerpost.server.api.errors import add_error_handlers
from fingerpost.server.api.pages import ProjectPages, WithPages
from fingerpost.server.api.proxy import Proxy
from fingerpost.server.inference.chat import ChatService
from fingerpost.server.inference.engine import Engine
from fingerpost.server.inference.questions import QuestionService
from fingerpost.server.inference.registry import ModelRegistry
from fingerpost.server.inference.request_log import RequestLog
from fingerpost.server.inference.responses import ResponsesService
from fingerpost.server.inference.teacher import Teacher
from fingerpost.server.inference.thresholds import cutoffs
from fingerpost.server.jobs.batches import BatchRunner
from fingerpost.server.jobs.files import FileStorage
from fingerpost.server.jobs.runner import JobRunner
from fingerpost.server.jobs.uploads import UploadStorage
from fingerpost.server.jobs.webhook import WebhookSender
from fingerpost.server.loop.decisions import DecisionLoop
from fingerpost.server.loop.learner import Learner
from fingerpost.server.loop.panel import PanelRunner
from fingerpost.server.loop.repeated_prompts import RepeatedPrompts
from fingerpost.server.loop.upstream import Upstream
from fingerpost.server.ops.access import AccessMiddleware
from fingerpost.server.ops.clock import WallClock
from fingerpost.server.ops.logs import log
from fingerpost.server.ops.metrics import Metrics
from fingerpost.server.ops.supervise import run_periodically
from fingerpost.server.schemas import ChatRequest, Json, ResponsesRequest
from fingerpost.server.settings import Settings
from fingerpost.store.server import ServerStore, now

RELOAD_S = 1.0
SYNC_S = 1.0
CLEAN_UP_S = 60.0
DAY_S = 86_400


class Server:
    """All parts of one server. Create it before listening: wrong models and settings then fail early.

    Attributes:
        app: the ASGI application, which starts and stops the parts in its lifespan.

    Raises:
        ModelError: a model folder cannot be used.
        InputError: the database cannot be used.
        TeacherError: the teacher's API key is missing, or there is a budget but no price.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        settings.tuned.mkdir(parents=True, exist_ok=True)
        self.store = ServerStore(settings.database)
        self.metrics = Metrics()
        self.clock = WallClock()
        self.files = FileStorage(settings, self.store)
        self.uploads = UploadStorage(settings.folder / "uploads", self.files)
        self.models = ModelRegistry(
            settings.models, self.store, settings.tuned, settings.task, cutoffs(settings), settings.engine
        )
        self.teacher = self._create_teacher()
        self.engine = Engine(settings.threads, settings.max_waiting)
        self.request_log = RequestLog(self.store, settings.redact, self.metrics) if settings.log_requests else None
        self.chat = ChatService(self.models, self.engine, self.teacher, self.request_log, self.metrics)
        self.responses = ResponsesService(self.chat, self.store, settings.redact, settings.log_requests)
        self.upstream: Upstream | None = None
        self.loop: DecisionLoop | None = None
        if settings.upstream is not None:
            self.upstream = Upstream(settings.upstream, settings.upstream_key)
            self.loop = DecisionLoop(
                self.store, settings.folder, self.chat, self.request_log, self.metrics, redact=settings.redact,
                limit=settings.disagreement, auto=settings.auto, panel=settings.panel,
            )  # fmt: skip
        self.panel: PanelRunner | None = None
        if self.upstream is not None and settings.panel and settings.upstream_key:
            self.panel = PanelRunner(
                self.store, self.upstream, settings.panel, settings.upstream_key, settings.panel_every_s
            )
        self.jobs = JobRunner(settings, self.store)
        self.batches = BatchRunner(
            self.store, self.files, settings.folder / "batches", self._answer_batch_line, self.clock
        )
        self.webhook = WebhookSender(self.store, settings.webhook, settings.webhook_secret)
        self.pages = ProjectPages(settings, self.store)
        self.app = self._create_app()

    def _create_teacher(self) -> Teacher | None:
        settings = self.settings
        if settings.teacher is None:
            return None
        return Teacher(
            settings.teacher,
            settings.project or settings.folder,
            self.store.ledger,
            settings.teacher_timeout_s,
            settings.budget_usd,
        )

    def _create_app(self) -> FastAPI:
        settings, store = self.settings, self.store
        app = FastAPI(title="Fingerpost", version=__version__, docs_url=None, redoc_url=None, lifespan=self._lifespan)
        if self.upstream is not None and self.loop is not None:
            app.add_middleware(
                Proxy,
                upstream=self.upstream,
                loop=self.loop,
                models=self.models,
                responses=self.responses,
                store=store,
                repeated=RepeatedPrompts(store, settings.redact) if settings.log_requests else None,
            )
        app.add_middleware(AccessMiddleware, settings=settings, store=store, metrics=self.metrics)
        app.add_middleware(WithPages, pages=self.pages)
        if settings.cors_origins:  # added last, so that it answers preflight requests before a key is asked for
            app.add_middleware(
                CORSMiddleware, allow_origins=settings.cors_origins, allow_methods=["*"], allow_headers=["*"],
                expose_headers=["*"],
            )  # fmt: skip
        add_error_handlers(app)
        app.include_router(files_api.router(self.files, store, settings.max_upload))
        app.include_router(uploads_api.router(self.uploads, settings.max_upload))
        app.include_router(fine_tuning.router(settings, store, self.files, self.jobs))
        app.include_router(chat.router(self.chat))
        app.include_router(decisions_api.router(QuestionService(self.models, self.chat, self.teacher)))
        app.include_router(embeddings_api.router(self.models, self.engine))
        app.include_router(responses_api.router(self.responses))
        app.include_router(models_api.router(settings, store, self.models))
        app.include_router(health.router(store, self.models, self.engine, self.teacher, self.jobs, self.metrics))
        app.include_router(batches.router(store, self.files, self.batches))
        return app

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        self.engine.start()
        if self.request_log is not None:
            self.request_log.start()
        self.jobs.start()
        tasks = [
            asyncio.create_task(work)
            for work in (
                self.batches.run(),
                self.webhook.run(),
                *(
                    []
                    if self.loop is None
                    else [
                        Learner(self.settings, self.store, self.loop).run(),
                        run_periodically("decisions", SYNC_S, self.loop.sync),
                    ]
                ),
                *([] if self.panel is None else [self.panel.run()]),
                run_periodically("model reload", RELOAD_S, self._reload_models),
                run_periodically("file clean-up", CLEAN_UP_S, self._clean_up_files),
                run_periodically("request log clean-up", CLEAN_UP_S, self._delete_old_log_entries),
            )
        ]
        models = [model.name for model in self.models.named_models]
        log("listening", models=models, folder=str(self.settings.folder))
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.jobs.stop()
        await asyncio.to_thread(self.engine.close)
        if self.request_log is not None:
            await asyncio.to_thread(self.request_log.close)
        if self.teacher is not None:
            await self.teacher.close()
        if self.upstream is not None:
            await self.upstream.close()
        if self.loop is not None:
            await asyncio.to_thread(self.loop.sync)
        await asyncio.to_thread(self.pages.stop)
        self.store.close()
        log("stopped")

    def _reload_models(self) -> None:
        for name, problem in self.models.reload_changed():
            self.metrics.model_swaps.labels("failed" if problem else "loaded").inc()
            if problem:
                log("model reload failed", logging.ERROR, model=name, problem=problem)
            else:
                log("model reloaded", model=name)

    def _clean_up_files(self) -> None:
        if self.clock.is_steady:
            self.files.clean_up()
            self.uploads.clean_up()

    def _delete_old_log_entries(self) -> None:
        if self.clock.is_steady:
            self.store.delete_log_entries(now() - round(self.settings.keep_days * DAY_S))
            if self.loop is not None:
                self.loop.clean_up()

    async def _answer_batch_line(self, endpoint: str, body: Json) -> Json:
        if endpoint == "/v1/responses":
            answer = await self.responses.create(ResponsesRequest.model_validate({**body, "stream": None}), key="batch")
            return answer.response
        return (await self.chat.chat(ChatRequest.model_validate(body), body, key="batch")).completion
