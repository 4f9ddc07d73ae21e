"""A browser, and the pages of a project on a real socket."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright
from reviewing import fill
from serving import MINUTES, wait

from fingerpost.store.project import Store
from fingerpost.ui.app import ROOT, Ui, UiSettings

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
TIMEOUT_MS = 60_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine; install it, for example with apt-get install chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


def is_problem(said: ConsoleMessage) -> bool:
    """Whether a message is an error or a warning, and not that a page was refused, as it should be, or that the server has ended."""
    expected = ("the server responded with a status of 40", "ERR_CONNECTION_REFUSED")
    return said.type in ("error", "warning") and not any(text in said.text for text in expected)


class Site:
    """The pages of a project, served in a thread."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.ui = Ui(UiSettings(folder, settings.pop("reviewer", "ann"), **settings))
        config = uvicorn.Config(self.ui.app, port=0, log_level="error", access_log=False)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self) -> Site:
        self._thread.start()
        wait(lambda: self._server.started)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}{ROOT}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(MINUTES)


@pytest.fixture
def project(folder: Path) -> Path:
    """A project of 240 questions; its teacher labels every `delivery` question `billing`."""
    with Store(folder / "fingerpost.db") as store:
        fill(store)
    return folder


@pytest.fixture
def site(project: Path) -> Iterator[Site]:
    with Site(project) as served:
        yield served


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens a page as somebody of their own; at the end, no page may have logged an error."""
    contexts: list[BrowserContext] = []
    problems: list[str] = []

    def open_page(address: str, name: str | None = None, **options: Any) -> Page:
        context = browser.new_context(**options)
        context.set_default_timeout(TIMEOUT_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: problems.append(said.text) if is_problem(said) else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        if name is not None:
            root = address[: address.index(ROOT) + len(ROOT)]
            page.goto(f"{root}/")
            page.fill("input[name=name]", name)
            page.click("text=Change")
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        with contextlib.suppress(Exception):
            context.close()
    assert not problems, problems
