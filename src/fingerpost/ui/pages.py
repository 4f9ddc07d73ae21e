"""What all pages share: templates, forms, messages, and who may see a page."""

from __future__ import annotations

import functools
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from fingerpost.core.errors import FingerpostError
from fingerpost.core.text import shorten
from fingerpost.ui.access import CSRF, Access, Visitor, is_same_site, set_cookie

Page: TypeAlias = Callable[["Visit"], Response]
MOST_FORM, MOST_UPLOAD = 500_000, 1_000_000_000
"""Bytes of a form, and of one with a file."""


class Visit:
    """A request by a known visitor.

    Attributes:
        form: the fields that were sent.
    """

    def __init__(self, request: Request, visitor: Visitor, form: FormData) -> None:
        self.request, self.visitor, self.form = request, visitor, form

    @property
    def query(self) -> Mapping[str, str]:
        """The parameters in the address."""
        return self.request.query_params

    def field(self, name: str) -> str:
        """The value of a field; empty where it is missing."""
        return str(self.form.get(name, ""))

    def fields(self, name: str) -> list[str]:
        """All values of a field."""
        return [str(value) for value in self.form.getlist(name)]


class Pages:
    """Renders pages.

    Args:
        root: the path of all pages.
        title: of the project.
    """

    def __init__(self, access: Access, root: str, title: str) -> None:
        self.access, self.root, self.title = access, root, title
        self._messages: dict[str, str] = {}
        self._lock = threading.Lock()
        self._templates = Environment(
            loader=PackageLoader("fingerpost.ui"), autoescape=True, trim_blocks=True, lstrip_blocks=True
        )
        self._templates.filters |= {
            "shorten": shorten,
            "percent": lambda share: f"{share:.0%}",
            "urlencode": quote,
        }

    def render(
        self, visit: Visit | Request, template: str, status: int = 200, part: bool = False, **values: Any
    ) -> HTMLResponse:
        """A page; with `part`, a part of one, which shows no message."""
        request = visit if isinstance(visit, Request) else visit.request
        visitor = None if isinstance(visit, Request) else visit.visitor
        text = self._templates.get_template(f"{template}.html.jinja").render(
            root=self.root,
            title=self.title,
            nonce=request.state.nonce,
            visitor=visitor,
            csrf=self.access.token(visitor) if visitor is not None else "",
            message="" if part else self._message(visitor),
            path=request.url.path,
            keys_required=self.access.keys is not None,
            **values,
        )
        return HTMLResponse(text, status)

    def say(self, visit: Visit, message: str) -> None:
        """Show a message on the visitor's next page."""
        with self._lock:
            self._messages[visit.visitor.id] = message

    def _message(self, visitor: Visitor | None) -> str:
        with self._lock:
            return self._messages.pop(visitor.id, "") if visitor is not None else ""

    def go(self, path: str, **query: str) -> Response:
        """Go on to another page."""
        return RedirectResponse(self.root + path + (f"?{urlencode(query)}" if query else ""), 303)

    def get(self, path: str, page: Page) -> Route:
        """A route that shows a page."""
        return Route(self.root + path, self._endpoint(page, path), methods=["GET"])

    def post(self, path: str, page: Page) -> Route:
        """A route that takes a form."""
        return Route(self.root + path, self._endpoint(page, path), methods=["POST"])

    def _endpoint(self, page: Page, path: str) -> Callable[[Request], Awaitable[Response]]:
        @functools.wraps(page)
        async def endpoint(request: Request) -> Response:
            visitor = self.access.visitor(request)
            size = request.headers.get("content-length", "")
            most = MOST_UPLOAD if visitor is not None and path == "/start" else MOST_FORM
            if request.method == "POST" and (not size.isdigit() or int(size) > most):
                return self.render(
                    request, "problem", 413, problem="That is too large, or does not say how large it is."
                )
            form = await request.form(max_fields=2_000) if request.method == "POST" else FormData()
            own = request.method == "GET" or (
                visitor is not None and self.access.is_own_form(request, visitor, str(form.get(CSRF, "")))
            )
            if visitor is None or not own:
                return self._sign_in(request, form, path)
            if visitor.scope == "review" and not path.startswith("/review"):
                return self.render(
                    Visit(request, visitor, form), "problem", 403, problem="You are invited to review only."
                )
            visit = Visit(request, visitor, form)
            try:
                response = await run_in_threadpool(page, visit)
            except FingerpostError as error:
                response = self.render(visit, "problem", 400, problem=f"{error}")
            finally:
                await form.close()
            secure = request.url.scheme == "https"
            set_cookie(response, self.access, visit.visitor, self.root, secure)
            return response

        return endpoint

    def _sign_in(self, request: Request, form: FormData, path: str) -> Response:
        """Where a visitor signs in. An answer that they have sent is kept, and sent again by the next page."""
        if request.method == "GET":
            return self.go("/sign-in", next=request.url.path) if self.access.keys is not None else self.go("/")
        kept = ""
        if path.startswith("/review/") and is_same_site(request):
            kept = self.access.keep(
                request.url.path, [(name, str(value)) for name, value in form.multi_items() if name != CSRF]
            )
        return self.render(request, "sign_in", 200, next=f"{self.root}/", kept=kept, problem="")
