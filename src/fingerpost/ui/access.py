"""Who visits the pages: sign-in with the server's keys, invitations, sessions in signed cookies; and the headers that protect a page."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from itsdangerous import BadSignature, URLSafeTimedSerializer
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fingerpost.core.utils import is_loopback
from fingerpost.store.server import hash_key

SECRET_FILE, SECRET_BYTES = ".ui-secret", 32
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
        key: hash of the key that they have signed in with.
        since: when the session began, in seconds since 1970.
    """

    id: str
    name: str
    scope: Literal["all", "review"] = "all"
    key: str = ""
    since: float = 0.0


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
        self._kept = URLSafeTimedSerializer(secret, salt="kept")

    def visitor(self, request: Request) -> Visitor | None:
        """Who has sent a request; None where they have to sign in."""
        try:
            given: Any = self._sessions.loads(request.cookies.get(COOKIE, ""), max_age=int(self.session_s))
            found = Visitor(**given)
        except (BadSignature, TypeError):
            return None if self.keys is not None else new_visitor(self.default_name)
        if found.scope == "review":
            return found if time.time() - found.since < INVITATION_S else None
        return found if self.keys is None or found.key in self.keys() else None  # the key may have been revoked

    def has_session(self, request: Request) -> bool:
        """Whether a request comes from a session of its own that sees all pages."""
        found = self.visitor(request) if COOKIE in request.cookies else None
        return found is not None and found.scope == "all"

    def sign_in(self, key: str) -> Visitor | None:
        """The visitor with this key; None where it is unknown."""
        hashed = hash_key(key.strip())
        name = self.keys().get(hashed) if self.keys is not None else None
        return None if name is None else new_visitor(name, key=hashed)

    def cookie(self, visitor: Visitor) -> str:
        """The value of the cookie of a session."""
        return str(self._sessions.dumps(asdict(visitor)))

    def token(self, visitor: Visitor) -> str:
        """What the forms of a session carry."""
        return hmac.new(self._secret, visitor.id.encode(), hashlib.sha256).hexdigest()[:32]

    def is_own_form(self, request: Request, visitor: Visitor, token: str) -> bool:
        """Whether a form was sent from one of our pages in this session."""
        return is_same_site(request) is not False and hmac.compare_digest(token, self.token(visitor))

    def keep(self, path: str, fields: list[tuple[str, str]]) -> str:
        """A form that is sent again when its sender has signed in, signed."""
        return str(self._kept.dumps([path, fields]))

    def kept(self, text: str) -> tuple[str, list[tuple[str, str]]] | None:
        """The path and the fields of a form that was kept; None where there is none."""
        try:
            path, fields = self._kept.loads(text, max_age=SESSION_S)
            return str(path), [(str(name), str(value)) for name, value in fields]
        except (BadSignature, TypeError, ValueError):
            return None

    def invite(self, name: str) -> str:
        """A token that lets somebody review under this name."""
        return str(self._invitations.dumps(name))

    def accept(self, token: str) -> Visitor | None:
        """The visitor with this invitation; None where it is invalid or has ended."""
        try:
            return new_visitor(str(self._invitations.loads(token, max_age=INVITATION_S)), "review")
        except BadSignature:
            return None


def new_visitor(name: str, scope: Literal["all", "review"] = "all", key: str = "") -> Visitor:
    """A visitor with a new session."""
    return Visitor(secrets.token_hex(8), name, scope, key, time.time())


def is_same_site(request: Request) -> bool | None:
    """Whether a request was sent by a page of ours; None where the browser does not say."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = request.headers.get("origin")
    return None if origin is None else urlsplit(origin).netloc == request.headers.get("host")


def secret_of(folder: Path) -> bytes:
    """The secret of a folder, which is written where there is none."""
    file = folder / SECRET_FILE
    found = file.read_bytes() if file.is_file() else b""
    if len(found) >= SECRET_BYTES:
        return found
    draft = file.with_name(f"{SECRET_FILE}.{secrets.token_hex(4)}")
    draft.touch(mode=0o600)
    draft.write_text(secrets.token_hex(SECRET_BYTES), encoding="ascii")
    draft.replace(file)
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
