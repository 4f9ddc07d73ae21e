"""How long steps show that they are alive: a bar on a terminal, a line every 30 seconds elsewhere, nothing with --quiet."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fingerpost.core.printable import printable
from fingerpost.core.types import Progress
from fingerpost.store.runs import note

INTERVAL_S = 30.0
"""Between two lines where standard error is not a terminal."""
ACTIVITIES = {
    "embed": "embedding texts",
    "evaluate": "measuring",
    "fine-tune": "fine-tuning",
    "generate": "writing questions",
    "import": "importing",
    "label": "labelling",
    "predict": "predicting",
    "train": "training",
}
"""What a step is called while it runs."""
_quiet = False


def set_quiet(quiet: bool) -> None:
    """Whether the following steps show no progress."""
    global _quiet
    _quiet = quiet


class ProgressDisplay:
    """A progress callback that shows news and counts on standard error. Use it in a `with`."""

    def __init__(self, step: str) -> None:
        self._latest = Progress(step)
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._bar: Any = None
        self._line: Any = None

    def __enter__(self) -> ProgressDisplay:
        if _quiet:
            return self
        if sys.stderr.isatty():
            self._bar, self._line = _bar(self._latest.step)
            self._bar.start()
        else:
            self._thread = threading.Thread(target=self._repeat, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        if self._bar is not None:
            self._bar.stop()
        if self._thread is not None:
            self._thread.join()

    def __call__(self, progress: Progress) -> None:
        """Show a message at once, and counts in the bar or in the next line."""
        note(progress)
        if _quiet:
            return
        with self._lock:
            if progress.step != self._latest.step:
                self._began = time.monotonic()
            if progress.message:
                self._print(f"  {progress.message}")
            if not progress.message or progress.total is not None or progress.step != self._latest.step:
                self._latest = progress
            if self._bar is not None:
                self._bar.update(
                    self._line,
                    description=_activity(self._latest),
                    completed=self._latest.done,
                    total=self._latest.total,
                    counts=_counts(self._latest),
                    detail=printable(self._latest.detail),
                )

    def _print(self, line: str) -> None:
        if self._bar is not None:
            from rich.text import Text

            self._bar.console.print(Text(printable(line)), soft_wrap=True)
        else:
            print(printable(line), file=sys.stderr, flush=True)

    def _repeat(self) -> None:
        while not self._stopped.wait(INTERVAL_S):
            with self._lock:
                seconds = time.monotonic() - self._began
                parts = [_counts(self._latest), f"{seconds // 60:.0f} min {seconds % 60:02.0f} s", self._latest.detail]
                self._print(f"  {_activity(self._latest)}: {', '.join(part for part in parts if part)}")


@contextmanager
def showing_progress(step: str) -> Iterator[ProgressDisplay]:
    """A progress callback for a step; `step` is a key of ACTIVITIES."""
    with ProgressDisplay(step) as display:
        yield display


def _bar(step: str) -> tuple[Any, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[counts]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
        console=Console(stderr=True, highlight=False, emoji=False),
        transient=True,
        redirect_stdout=False,  # standard output may be a file
        redirect_stderr=False,
    )
    return bar, bar.add_task(ACTIVITIES.get(step, step), total=None, counts="", detail="")


def _activity(progress: Progress) -> str:
    return ACTIVITIES.get(progress.step, progress.step)


def _counts(progress: Progress) -> str:
    """How much is done, such as `120 of 400 (30 %)`."""
    if progress.total:
        return f"{progress.done:,} of {progress.total:,} ({progress.done / progress.total:.0%})".replace("%", " %")
    return f"{progress.done:,}" if progress.done else ""
