"""Who visits the pages: sign-in with the server's keys, invitations, sessions in signed cookies; and the headers that protect a page."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from itsdangerous import BadSignature, URLSafeTimedSerializer
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fingerpost.core.utils import is_loopback
from fingerpost.store.server import hash_key

SECRET_FILE = ".ui-secret"
COOKIE = "fingerpost"
SESSION_S, INVITATION_S = 12 * 3600, 14 * 86_400
CSRF = "csrf"
"""The form field that proves that a form is one of ours."""

IMAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
"""Of images, which contain styles and no scripts."""
Keys = Callable[[], dict[str, str]]
"""The names of the keys that may sign in, by hash."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who has sent a request.

    Attributes:
        id: of the session.
        name: stands at their verdicts.
        scope: `review` for those who were invited; they see the review page alone.
    """

    id: str
    name: str
    scope: Literal["all", "review"] = "all"


class Access:
    """Sessions and invitations.

    Args:
        secret: signs cookies and invitations.
        keys: None where no key is needed, on this machine alone.
        default_name: who a visitor without a key is.
        session_s: seconds until a session ends.
    """

    def __init__(self, secret: bytes, keys: Keys | None, default_name: str, session_s: float = SESSION_S) -> None:
        self.keys, self.default_name, self.session_s = keys, default_name, session_s
        self._secret = secret
        self._sessions = URLSafeTimedSerializer(secret, salt="session")
        self._invitations = URLSafeTimedSerializer(secret, salt="invitation")

    def visitor(self, request: Request) -> Visitor | None:
        """Who has sent a request; None where they have to sign in."""
        try:
            given: Any = self._sessions.loads(request.cookies.get(COOKIE, ""), max_age=int(self.session_s))
            return Visitor(str(given["id"]), str(given["name"]), "review" if given["scope"] == "review" else "all")
        except (BadSignature, KeyError, TypeError):
            return None if self.keys is not None else new_visitor(self.default_name)

    def sign_in(self, key: str) -> Visitor | None:
        """The visitor with this key; None where it is unknown."""
        name = self.keys().get(hash_key(key.strip())) if self.keys is not None else None
        return None if name is None else new_visitor(name)

    def cookie(self, visitor: Visitor) -> str:
        """The value of the cookie of a session."""
        return str(self._sessions.dumps(asdict(visitor)))

    def token(self, visitor: Visitor) -> str:
        """What the forms of a session carry."""
        return hmac.new(self._secret, visitor.id.encode(), hashlib.sha256).hexdigest()[:32]

    def is_own_form(self, request: Request, visitor: Visitor, token: str) -> bool:
        """Whether a form was sent from one of our pages in this session."""
        site = request.headers.get("sec-fetch-site", "same-origin")
        return site in ("same-origin", "none") and hmac.compare_digest(token, self.token(visitor))

    def invite(self, name: str) -> str:
        """A token that lets somebody review under this name."""
        return str(self._invitations.dumps(name))

    def accept(self, token: str) -> Visitor | None:
        """The visitor with this invitation; None where it is invalid or has ended."""
        try:
            return new_visitor(str(self._invitations.loads(token, max_age=INVITATION_S)), "review")
        except BadSignature:
            return None


def new_visitor(name: str, scope: Literal["all", "review"] = "all") -> Visitor:
    """A visitor with a new session."""
    return Visitor(secrets.token_hex(8), name, scope)


def secret_of(folder: Path) -> bytes:
    """The secret of a folder, which is written where there is none."""
    file = folder / SECRET_FILE
    if not file.is_file():
        file.touch(mode=0o600)
        file.write_text(secrets.token_hex(32), encoding="ascii")
    return file.read_bytes()


class ProtectedPages:
    """ASGI middleware: the headers that protect a page, a nonce for its scripts, and the host's name.

    Args:
        any_host: requests may name any host, because a key is needed.
    """

    def __init__(self, app: ASGIApp, any_host: bool) -> None:
        self._app, self._any_host = app, any_host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        nonce = secrets.token_urlsafe(16)
        scope["state"] = {**scope.get("state", {}), "nonce": nonce}

        async def protect(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                image = headers.get("content-type", "").startswith("image/svg")
                headers["content-security-policy"] = IMAGE_POLICY if image else policy(nonce)
                headers["x-content-type-options"] = "nosniff"
                headers["referrer-policy"] = "same-origin"
                headers["cross-origin-opener-policy"] = "same-origin"
                headers.setdefault("cache-control", "no-store")
            await send(message)

        if not self._any_host and not is_loopback(
            f"http://{Request(scope).headers.get('host', '')}"
        ):  # a web page elsewhere whose name points here
            await PlainTextResponse("open this page as http://127.0.0.1", 403)(scope, receive, protect)
            return
        await self._app(scope, receive, protect)


def policy(nonce: str) -> str:
    """The content security policy of a page."""
    return (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; trusted-types htmx; require-trusted-types-for 'script'"
    )


def set_cookie(response: Response, access: Access, visitor: Visitor, path: str, secure: bool) -> None:
    """Begin a session."""
    response.set_cookie(
        COOKIE, access.cookie(visitor), max_age=int(access.session_s), path=path, secure=secure, httponly=True, samesite="lax"
    )  # fmt: skip
