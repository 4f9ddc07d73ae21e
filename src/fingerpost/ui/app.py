"""The pages of one project as a web application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.datastructures import FormData
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from fingerpost.core.types import Split
from fingerpost.project import Project
from fingerpost.ui.access import INVITATION_S, Access, Keys, ProtectedPages, Visitor, new_visitor, secret_of, set_cookie
from fingerpost.ui.compare_pages import ComparePages
from fingerpost.ui.leases import LEASE_S
from fingerpost.ui.pages import Pages, Visit
from fingerpost.ui.queue import SharedQueue
from fingerpost.ui.report_pages import ReportPages
from fingerpost.ui.review_pages import ReviewPages
from fingerpost.ui.run_pages import RunPages

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
    """

    project: Path
    reviewer: str
    keys: Keys | None = None
    double: float = 0.0
    lease_s: float = LEASE_S
    session_s: float | None = None


class Ui:
    """The pages, with what they share. `app` is the ASGI application.

    Raises:
        TaskError: the project has no valid task.toml.
        InputError: its database cannot be used.
    """

    def __init__(self, settings: UiSettings) -> None:
        self.settings = settings
        self.project = Project(settings.project)
        self.store = self.project.store()
        secret = secret_of(settings.project)
        self.access = Access(secret, settings.keys, settings.reviewer)
        if settings.session_s is not None:
            self.access.session_s = settings.session_s
        self.pages = Pages(self.access, ROOT, self.project.task.name)
        self.queue = SharedQueue(self.project, self.store, settings.double, settings.lease_s)
        self.app = self._create_app()

    def start(self) -> None:
        """Begin the work beside the pages."""
        self.queue.start()

    def stop(self) -> None:
        """End the work beside the pages."""
        self.queue.stop()
        self.store.close()

    def _create_app(self) -> Starlette:
        get, post = self.pages.get, self.pages.post
        routes: list[Route | Mount] = [
            Route("/", lambda _: RedirectResponse(f"{ROOT}/", 303)),
            Route(ROOT, lambda _: RedirectResponse(f"{ROOT}/", 303)),
            get("/", self._home),
            post("/name", self._rename),
            post("/invitations", self._invite),
            Route(f"{ROOT}/invite/{{token}}", self._accept),
            Route(f"{ROOT}/sign-in", self._sign_in, methods=["GET", "POST"]),
            *ReviewPages(self.pages, self.queue).routes(),
            *ComparePages(self.pages, self.project, self.store, self.queue).routes(),
            *ReportPages(self.pages, self.project, self.store, self.queue).routes(),
            *RunPages(self.pages, self.project, self.store).routes(),
            Mount(f"{ROOT}/static", StaticFiles(packages=[("fingerpost.ui", "static")]), name="static"),
        ]
        middleware = [Middleware(ProtectedPages, any_host=self.access.keys is not None)]
        return Starlette(routes=routes, middleware=middleware, lifespan=self._lifespan)

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self.start()
        yield
        self.stop()

    def _home(self, visit: Visit) -> Response:
        questions: dict[str, dict[str, int]] = {}
        for (source, split), count in sorted(self.store.counts().items()):
            questions.setdefault(source, {})[split] = count
        labels = self.store.label_counts(self.project.task.teacher_model)
        reviewed = sum(count for (_, kind), count in labels.by.items() if kind == "human")
        measured = (self.project.reports / "report.json").is_file()
        return self.pages.render(
            visit, "home", questions=questions, splits=SPLITS, reviewed=reviewed,
            headline=f"{len(self.project.task.labels)} labels, {sum(map(sum, map(dict.values, questions.values()))):,} questions",
            measured="base, teacher and student side by side" if measured else "nothing is measured yet",
        )  # fmt: skip

    def _rename(self, visit: Visit) -> Response:
        """Another name for a visitor who has not signed in."""
        response = self.pages.go("/review")
        name = visit.field("name").strip()[:100]
        if name and self.access.keys is None:
            visit.visitor = Visitor(visit.visitor.id, name, visit.visitor.scope)
        return response

    def _invite(self, visit: Visit) -> Response:
        name = visit.field("name").strip()[:100] or "reviewer"
        link = f"{str(visit.request.base_url).rstrip('/')}{ROOT}/invite/{self.access.invite(name)}"
        return self.pages.render(visit, "invitation", name=name, link=link, local=self.access.keys is None)

    async def _accept(self, request: Request) -> Response:
        """Begin a session with an invitation."""
        visitor = self.access.accept(request.path_params["token"])
        if visitor is None:
            problem = (
                f"This invitation is not valid, or is older than {INVITATION_S // 86_400} days; ask for another link."
            )
            return self.pages.render(request, "sign_in", 403, next=f"{ROOT}/review", sent=[], problem=problem)
        response = self.pages.go("/review")
        set_cookie(response, self.access, visitor, ROOT, request.url.scheme == "https")
        return response

    async def _sign_in(self, request: Request) -> Response:
        form = await request.form() if request.method == "POST" else request.query_params
        after = str(form.get("next", f"{ROOT}/"))
        after = after if after.startswith(f"{ROOT}/") and "//" not in after else f"{ROOT}/"
        sent = [(name[5:], str(value)) for name, value in form.multi_items() if name.startswith("sent:")]
        visitor = None
        if request.method == "POST":
            key = str(form.get("key", ""))
            visitor = new_visitor(self.access.default_name) if self.access.keys is None else self.access.sign_in(key)
        if visitor is None:
            problem = "This key is unknown or revoked." if request.method == "POST" else ""
            return self.pages.render(
                request, "sign_in", 401 if problem else 200, next=after, sent=sent, problem=problem
            )
        if sent:
            response: Response = self.pages.render(Visit(request, visitor, FormData()), "resume", next=after, sent=sent)
        else:
            response = RedirectResponse(after, 303)
        set_cookie(response, self.access, visitor, ROOT, request.url.scheme == "https")
        return response
