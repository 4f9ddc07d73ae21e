"""What runs on a project, and what ran: each command leaves a file of its progress, which the pages show."""

from __future__ import annotations

import json
import os
import secrets
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from fingerpost.core.errors import BudgetError
from fingerpost.core.types import Progress
from fingerpost.store.holders import is_held

RUNS = "runs"
RECORDED = ("import", "generate", "label", "train", "evaluate", "run")
"""The commands whose runs are recorded."""
KEPT = 50
"""Files of ended runs that are kept."""
INTERVAL_S = 0.5
"""Between two lines about counts; messages and figures of training are always written."""
MESSAGES = 200
FAILED, BUDGET, INTERRUPTED = 2, 3, 130
STATES = {0: "done", 1: "partly done", BUDGET: "stopped at the budget", INTERRUPTED: "stopped"}
"""What the exit codes of commands say; all others are failures."""
_current: RunRecorder | None = None


@dataclass(slots=True)
class Run:
    """A run of a command.

    Attributes:
        command: such as `train`.
        started, ended: in seconds since 1970; `ended` is None while it runs, or if it was killed.
        alive: its process still runs.
        code: its exit code, once it has ended.
        activity: the step that it is in.
        done, total: finished units of that step, and how many there are.
        cost_usd: spent so far.
        messages: its news, the oldest first.
        steps: of training, (epoch, loss on the training rows, loss on the dev rows, dev accuracy).
    """

    id: str
    command: str = ""
    pid: int = 0
    started: float = 0.0
    ended: float | None = None
    alive: bool = False
    code: int | None = None
    activity: str = ""
    done: int = 0
    total: int | None = None
    cost_usd: float = 0.0
    messages: list[str] = field(default_factory=list)
    steps: list[tuple[int, float, float, float]] = field(default_factory=list)

    @property
    def state(self) -> str:
        """How it stands, in words."""
        if self.alive:
            return "running"
        return "killed" if self.code is None else STATES.get(self.code, "failed")


class RunRecorder:
    """Writes the file of a run, a line at a time."""

    def __init__(self, folder: Path, command: str) -> None:
        self._folder = folder / RUNS
        self._folder.mkdir(exist_ok=True)
        name = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{command}-{secrets.token_hex(3)}"
        self._lock = FileLock(self._folder / f"{name}.lock", thread_local=False)
        self._lock.acquire()
        self._file = (self._folder / f"{name}.jsonl").open("a", encoding="utf-8")
        self._written = 0.0
        self._write({"command": command, "pid": os.getpid(), "started": time.time()})

    def note(self, progress: Progress) -> None:
        """Write what a step reports."""
        step = _training_step(progress.data)
        clock = time.monotonic()
        if (
            not progress.message
            and step is None
            and clock < self._written + INTERVAL_S
            and progress.done != progress.total
        ):
            return
        self._written = clock
        line: dict[str, Any] = {
            "step": progress.step,
            "done": progress.done,
            "total": progress.total,
            "cost": progress.cost_usd,
        }
        if progress.message:
            line["message"] = progress.message
        if step is not None:
            line["training"] = step
        self._write(line)

    def close(self, code: int) -> None:
        """Write how the run ended."""
        self._write({"ended": time.time(), "code": code})
        self._file.close()
        self._lock.release()
        with suppress(OSError):
            Path(self._lock.lock_file).unlink()
        for old in sorted(self._folder.glob("*.jsonl"))[:-KEPT]:
            if not _is_alive(old):
                old.unlink(missing_ok=True)

    def _write(self, line: dict[str, Any]) -> None:
        with suppress(OSError, ValueError):  # a full disk stops the step itself, with a better message
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()


@contextmanager
def recording(folder: Path, command: str) -> Iterator[None]:
    """Record a run, if another one of this process is not being recorded already."""
    global _current
    if _current is not None:
        yield
        return
    try:
        _current = RunRecorder(folder, command)
    except OSError:  # a project that cannot be written to
        yield
        return
    code = FAILED
    try:
        yield
        code = 0
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else FAILED
        raise
    except KeyboardInterrupt:
        code = INTERRUPTED
        raise
    except Exception as error:
        code = int(getattr(error, "exit_code", BUDGET if isinstance(error, BudgetError) else FAILED))
        raise
    finally:
        recorder, _current = _current, None
        recorder.close(code)


def note(progress: Progress) -> None:
    """Add to the record of the run of this process, if there is one."""
    if _current is not None:
        _current.note(progress)


def read_runs(folder: Path, limit: int = KEPT) -> list[Run]:
    """The latest runs on a project, the newest first."""
    return [read_run(file) for file in sorted((folder / RUNS).glob("*.jsonl"), reverse=True)[:limit]]


def find_run(folder: Path, run_id: str) -> Run | None:
    """The run with this id."""
    return next((read_run(file) for file in (folder / RUNS).glob("*.jsonl") if file.stem == run_id), None)


def read_run(file: Path) -> Run:
    """A run from its file. Lines that are damaged are left out."""
    run = Run(file.stem, alive=_is_alive(file))
    for text in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            _apply(run, json.loads(text))
        except (ValueError, TypeError, AttributeError):
            continue
    run.messages = run.messages[-MESSAGES:]
    return run


def cancel(folder: Path, run_id: str) -> bool:
    """Stop a run as Ctrl-C does: requests in flight are finished, and what is done is kept. Whether it was running."""
    run = find_run(folder, run_id)
    if run is None or not run.alive or run.pid in (0, os.getpid()):
        return False
    with suppress(ProcessLookupError):
        os.kill(run.pid, signal.SIGINT)
    return True


def _apply(run: Run, line: dict[str, Any]) -> None:
    if "command" in line:
        run.command, run.pid, run.started = str(line["command"]), int(line["pid"]), float(line["started"])
    elif "ended" in line:
        run.ended, run.code = float(line["ended"]), int(line["code"])
    else:
        run.activity, run.cost_usd = str(line["step"]), max(run.cost_usd, float(line["cost"]))
        if line["total"] is not None or line["done"]:
            run.done, run.total = int(line["done"]), line["total"] and int(line["total"])
        if "message" in line:
            run.messages.append(str(line["message"]))
        if "training" in line:
            epoch, *figures = line["training"]
            run.steps.append((int(epoch), *map(float, figures)))  # type: ignore[arg-type]


def _training_step(data: Any) -> Sequence[float] | None:
    """The figures of an epoch, if that is what a step reports."""
    names = ("step", "train_loss", "dev_loss", "dev_accuracy")
    return [getattr(data, name) for name in names] if all(hasattr(data, name) for name in names) else None


def _is_alive(file: Path) -> bool:
    """Whether the process that writes this file still runs."""
    return is_held(file.with_suffix(".lock"))
