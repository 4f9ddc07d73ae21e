"""The project's pages at /ui of the server. They are loaded when somebody visits them: a server that only answers stays small."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Receive, Scope, Send

from fingerpost.core.errors import MissingExtra
from fingerpost.core.utils import require_extra
from fingerpost.server.settings import Settings
from fingerpost.store.server import ServerStore

if TYPE_CHECKING:
    from fingerpost.ui.app import Ui

ROOT = "/ui"


class ProjectPages:
    """Makes the pages of the server's project when they are needed."""

    def __init__(self, settings: Settings, store: ServerStore) -> None:
        self._settings, self._store = settings, store
        self._lock = asyncio.Lock()
        self._ui: Ui | None = None

    @property
    def are_there(self) -> bool:
        """Whether the server has a project, and the packages of its pages are installed."""
        if self._settings.task is None or self._settings.project is None:
            return False
        try:
            require_extra("ui", "the pages")
        except MissingExtra:
            return False
        return True

    async def app(self) -> ASGIApp:
        """The pages."""
        async with self._lock:
            if self._ui is None:
                self._ui = await asyncio.to_thread(self._create)
        return self._ui.app

    def _create(self) -> Ui:
        from fingerpost.ui.app import Ui, UiSettings

        def keys() -> dict[str, str]:
            return {key.sha256: key.name for key in self._store.all_keys() if key.revoked_at is None}

        settings = self._settings
        assert settings.project is not None
        ui = Ui(UiSettings(settings.project, "reviewer", keys if settings.keys_required else None, eager=False))
        ui.start()
        return ui

    def stop(self) -> None:
        """End the work of the pages, if they were visited."""
        if self._ui is not None:
            self._ui.stop()


class WithPages:
    """ASGI middleware: the pages at ROOT, everything else as before. The pages have a sign-in of their own."""

    def __init__(self, app: ASGIApp, pages: ProjectPages) -> None:
        self._app, self._pages = app, pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        of_pages = scope["type"] == "http" and (scope["path"] == ROOT or scope["path"].startswith(f"{ROOT}/"))
        app = await self._pages.app() if of_pages and self._pages.are_there else self._app
        await app(scope, receive, send)
