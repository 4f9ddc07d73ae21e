"""The pages of one project as a web application."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route, Router
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from fingerpost.core.errors import FingerpostError, InputError
from fingerpost.core.types import Split
from fingerpost.project import Project
from fingerpost.task.loader import TASK_FILE
from fingerpost.ui.access import INVITATION_S, Access, Keys, ProtectedPages, Visitor, new_visitor, secret_of, set_cookie
from fingerpost.ui.compare_pages import ComparePages
from fingerpost.ui.leases import LEASE_S
from fingerpost.ui.models import ProjectModels
from fingerpost.ui.pages import Pages, Visit
from fingerpost.ui.queue import SharedQueue
from fingerpost.ui.report_pages import ReportPages
from fingerpost.ui.review_pages import ReviewPages
from fingerpost.ui.run_pages import RunPages, StudentServer
from fingerpost.ui.start_pages import StartPages

ROOT = "/ui"
SPLITS: tuple[Split, ...] = ("train", "dev", "test", "excluded")


@dataclass(frozen=True, slots=True)
class UiSettings:
    """How the pages are served.

    Attributes:
        project: the project's folder.
        reviewer: who a visitor is who has not signed in.
        keys: see `Access`.
        double: the share of the questions that two people answer.
        lease_s: seconds until a question that nobody answers is given to somebody else.
        session_s: seconds until a session ends; None for the default.
        eager: compute the review queue before somebody asks for it.
    """

    project: Path
    reviewer: str
    keys: Keys | None = None
    double: float = 0.0
    lease_s: float = LEASE_S
    session_s: float | None = None
    eager: bool = True


class Ui:
    """The pages of a project, with what they share; of a folder without one, the way to one. `app` is the ASGI application.

    Raises:
        TaskError: the project's task.toml is not valid.
        InputError: its database cannot be used.
    """

    def __init__(self, settings: UiSettings) -> None:
        self.settings = settings
        settings.project.mkdir(parents=True, exist_ok=True)
        self.access = Access(secret_of(settings.project), settings.keys, settings.reviewer)
        if settings.session_s is not None:
            self.access.session_s = settings.session_s
        self.pages = Pages(self.access, ROOT, settings.project.resolve().name)
        self._running = False
        self._opened: OpenProject | None = None
        self._opening = threading.Lock()
        self._stamp = 0
        self._served = StudentServer(settings.project)
        self._router = Router()
        if (settings.project / TASK_FILE).is_file():
            self._open()
        else:
            self._router = Router(list(StartPages(self.pages, settings.project, self._open).routes()))
        self.app = self._create_app()

    @property
    def queue(self) -> SharedQueue:
        """The review queue of the project."""
        assert self._opened is not None
        return self._opened.queue

    def start(self) -> None:
        """Begin the work beside the pages."""
        self._running = True
        if self._opened is not None and self.settings.eager:
            self._opened.queue.start()

    def stop(self) -> None:
        """End the work beside the pages."""
        self._served.stop()
        if self._opened is not None:
            self._opened.stop()

    def _open(self) -> None:
        """Show the pages of the project as task.toml says now."""
        stamp = self._task_stamp()
        opened, before = OpenProject(self.pages, self.settings, self._served), self._opened
        self._opened, self._stamp, self._router = opened, stamp, Router(opened.routes())
        if before is not None:
            before.stop()
        if self._running and self.settings.eager:
            opened.queue.start()

    def _task_stamp(self) -> int:
        """Changes when task.toml does; 0 where there is none."""
        try:
            return (self.settings.project / TASK_FILE).stat().st_mtime_ns
        except OSError:
            return 0

    def _reopen(self) -> str:
        """Read task.toml again if it has changed; what is wrong with it, else an empty text."""
        with self._opening:
            if self._opened is None or self._task_stamp() in (0, self._stamp):
                return ""
            try:
                self._open()
            except FingerpostError as error:
                return str(error)
            return ""

    async def _show(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = await run_in_threadpool(self._reopen) if scope["type"] == "http" else ""
        if problem:
            page = self.pages.render(Request(scope), "problem", 400, problem=problem)
            await page(scope, receive, send)
            return
        await self._router(scope, receive, send)

    def _create_app(self) -> Starlette:
        post = self.pages.post
        routes: list[Route | Mount] = [
            Route("/", lambda _: RedirectResponse(f"{ROOT}/", 303)),
            Route(ROOT, lambda _: RedirectResponse(f"{ROOT}/", 303)),
            post("/name", self._rename),
            post("/invitations", self._invite),
            Route(f"{ROOT}/invite/{{token}}", self._accept),
            Route(f"{ROOT}/sign-in", self._sign_in, methods=["GET", "POST"]),
            Mount(f"{ROOT}/static", StaticFiles(packages=[("fingerpost.ui", "static")]), name="static"),
            Mount("", self._show),
        ]
        middleware = [Middleware(ProtectedPages, any_host=self.access.keys is not None)]
        handlers = {404: self._problem, 500: self._problem}
        return Starlette(routes=routes, middleware=middleware, lifespan=self._lifespan, exception_handlers=handlers)

    async def _problem(self, request: Request, error: Exception) -> Response:
        """The page for what is not there, or did not work."""
        missing = isinstance(error, HTTPException)
        said = "There is no such page." if missing else "Internal error. Details are in the server's log."
        return self.pages.render(request, "problem", 404 if missing else 500, problem=said)

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self.start()
        yield
        self.stop()

    def _rename(self, visit: Visit) -> Response:
        """Another name for a visitor who has not signed in."""
        response = self.pages.go("/review")
        name = visit.field("name").strip()[:100]
        if name and self.access.keys is None:
            visit.visitor = Visitor(visit.visitor.id, name, visit.visitor.scope)
        return response

    def _invite(self, visit: Visit) -> Response:
        name = visit.field("name").strip()[:100] or "reviewer"
        taken = {
            visit.visitor.name,
            self.access.default_name,
            *(self.access.keys().values() if self.access.keys else ()),
        }
        if name in taken:
            raise InputError(f"'{name}' signs in otherwise; give the invited reviewer another name")
        link = f"{str(visit.request.base_url).rstrip('/')}{ROOT}/invite/{self.access.invite(name)}"
        return self.pages.render(visit, "invitation", name=name, link=link, local=self.access.keys is None)

    async def _accept(self, request: Request) -> Response:
        """Begin a session with an invitation."""
        visitor = self.access.accept(request.path_params["token"])
        if visitor is None:
            problem = (
                f"This invitation is not valid, or is older than {INVITATION_S // 86_400} days; ask for another link."
            )
            return self.pages.render(request, "sign_in", 403, next=f"{ROOT}/review", kept="", problem=problem)
        if self.access.has_session(request):
            problem = f"This link is for {visitor.name}, and you are signed in yourself; open it in a private window to try it."
            return self.pages.render(request, "problem", 409, problem=problem)
        response = self.pages.go("/review")
        set_cookie(response, self.access, visitor, ROOT, request.url.scheme == "https")
        return response

    async def _sign_in(self, request: Request) -> Response:
        form = await request.form() if request.method == "POST" else FormData()
        after = str(form.get("next") or request.query_params.get("next") or f"{ROOT}/")
        after = after if after.startswith(f"{ROOT}/") and "//" not in after else f"{ROOT}/"
        kept = self.access.kept(str(form.get("kept", "")))
        visitor = None
        if request.method == "POST":
            key = str(form.get("key", ""))
            visitor = new_visitor(self.access.default_name) if self.access.keys is None else self.access.sign_in(key)
        if visitor is None:
            problem = "This key is unknown or revoked." if request.method == "POST" else ""
            again = self.access.keep(*kept) if kept is not None else ""
            return self.pages.render(
                request, "sign_in", 401 if problem else 200, next=after, kept=again, problem=problem
            )
        if kept is not None:
            visit = Visit(request, visitor, FormData())
            response: Response = self.pages.render(visit, "resume", next=kept[0], sent=kept[1])
        else:
            response = RedirectResponse(after, 303)
        set_cookie(response, self.access, visitor, ROOT, request.url.scheme == "https")
        return response


class OpenProject:
    """A project whose pages are shown.

    Raises:
        TaskError: its task.toml is not valid.
        InputError: its database cannot be used.
    """

    def __init__(self, pages: Pages, settings: UiSettings, served: StudentServer) -> None:
        self._pages = pages
        self.project = Project(settings.project)
        self.store = self.project.store()
        self.queue = SharedQueue(self.project, self.store, settings.double, settings.lease_s)
        self._runs = RunPages(pages, self.project, self.store, self.queue, served)
        pages.title = self.project.task.name

    def stop(self) -> None:
        """End the work beside the pages."""
        self.queue.stop()
        self._runs.stop()
        self.store.close()

    def routes(self) -> list[Route]:
        """All routes of the project's pages."""
        models = ProjectModels(self.project)
        return [
            self._pages.get("/", self._home),
            *ReviewPages(self._pages, self.queue, models).routes(),
            *ComparePages(self._pages, self.project, self.store, self.queue, models).routes(),
            *ReportPages(self._pages, self.project, self.store, self.queue).routes(),
            *self._runs.routes(),
        ]

    def _home(self, visit: Visit) -> Response:
        questions: dict[str, dict[str, int]] = {}
        for (source, split), count in sorted(self.store.counts().items()):
            questions.setdefault(source, {})[split] = count
        labels = self.store.label_counts(self.project.task.teacher_model)
        reviewed = sum(count for (_, kind), count in labels.by.items() if kind == "human")
        measured = (self.project.reports / "report.json").is_file()
        return self._pages.render(
            visit, "home", questions=questions, splits=SPLITS, reviewed=reviewed,
            headline=f"{len(self.project.task.labels)} labels, {sum(map(sum, map(dict.values, questions.values()))):,} questions",
            measured="base, teacher and student side by side" if measured else "nothing is measured yet",
        )  # fmt: skip
