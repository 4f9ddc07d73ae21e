"""The pictures in docs/ui.md: the pages of a project in Chromium, light and dark, wide and narrow.

Usage: screenshots.py PROJECT [--output docs/images]

PROJECT has questions, labels, a student and a report, such as examples/hr-router after `fingerpost run`. Needs playwright and
Chromium.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import uvicorn
from playwright.sync_api import Browser, Page, sync_playwright

from fingerpost.ui.app import ROOT, Ui, UiSettings

MESSAGES = "payslip oct pls, havent got it\nis the maple room free at 3?\nmy laptop screen flickers\nwho signs my travel costs?"
SIZES: dict[str, dict[str, Any]] = {
    "wide": {"viewport": {"width": 1280, "height": 860}},
    "narrow": {"viewport": {"width": 390, "height": 780}},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path)
    parser.add_argument("--output", type=Path, default=Path("docs/images"))
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        project = shutil.copytree(given.project, Path(scratch) / given.project.name)
        ui = Ui(UiSettings(project, "ann"))
        server = uvicorn.Server(uvicorn.Config(ui.app, port=0, log_level="error", access_log=False))
        threading.Thread(target=server.run, daemon=True).start()
        while not server.started or not ui.queue.is_ready:
            time.sleep(0.2)
        address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}{ROOT}"
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, size, scheme in (("review", "wide", "light"), ("review", "narrow", "dark"), ("compare", "wide", "light"),
                                   ("report", "wide", "dark"), ("runs", "wide", "light")):  # fmt: skip
            take(browser, address, name, size, scheme, given.output)
        browser.close()
        server.should_exit = True


def take(browser: Browser, address: str, name: str, size: str, scheme: Any, output: Path) -> None:
    """Take a picture of what fits on the screen."""
    context = browser.new_context(color_scheme=scheme, **SIZES[size])
    page = context.new_page()
    page.goto(f"{address}/{name}")
    if name == "compare":
        compare(page)
    page.wait_for_load_state("networkidle")
    file = output / f"ui-{name}-{size}-{scheme}.png"
    page.screenshot(path=file)
    print(file)
    context.close()


def compare(page: Page) -> None:
    """Compare the models on a few messages."""
    page.fill("#text", MESSAGES)
    page.check("input[name=lines]")
    page.locator("input[name=teacher]").uncheck()
    page.click("main button.main")
    page.wait_for_selector("main table")
    page.evaluate("() => scrollTo(0, 0)")


if __name__ == "__main__":
    main()
