"""What runs on the project, live, also what was started in a terminal; and what is started and cancelled from here."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from fingerpost.core.errors import FingerpostError, InputError
from fingerpost.core.text import hash_fraction
from fingerpost.core.utils import finite
from fingerpost.data.formats import format_of_options
from fingerpost.data.rows import Columns
from fingerpost.project import STUDENT, Project
from fingerpost.project.project import LARGE
from fingerpost.store.project import Store
from fingerpost.store.runs import RUNS, Run, cancel, find_run, read_runs
from fingerpost.students.folder import MANIFEST
from fingerpost.task.loader import TASK_FILE
from fingerpost.ui.pages import Pages, Visit
from fingerpost.ui.queue import SharedQueue

STEPS = ("label", "train", "evaluate", "run")
"""What can be started here."""
TRIED = 5
"""Questions that the teacher is tried on."""
ADDRESS = "OPENAI_BASE_URL="
"""How the line begins in which a server says where it is."""
LIVE_S = 1.0
"""Seconds between two updates of a run that is watched."""
WIDTH, HEIGHT = 320, 120
_going_on: list[subprocess.Popen[bytes]] = []
"""Runs that outlive the pages that have started them."""


class RunPages:
    """The pages of runs."""

    def __init__(self, pages: Pages, project: Project, store: Store, queue: SharedQueue, served: StudentServer) -> None:
        self._pages, self._project, self._store, self._queue = pages, project, store, queue
        self._children: list[subprocess.Popen[bytes]] = []
        self._served = served
        self._starting = threading.Lock()
        self._rejected = 0

    def stop(self) -> None:
        """Let go of the runs, which go on."""
        _going_on.extend(child for child in self._children if child.poll() is None)

    def routes(self) -> list[Route]:
        """All routes."""
        get, post = self._pages.get, self._pages.post
        return [
            get("/runs", self.show),
            post("/runs", self.start),
            get("/first", self.first),
            post("/first", self.try_teacher),
            post("/serve", self.serve),
            get("/runs/{run}", self.one),
            get("/runs/{run}/live", self.live),
            post("/runs/{run}/cancel", self.cancel),
        ]

    def show(self, visit: Visit) -> Response:
        """All runs, and what can be started."""
        self._children = [child for child in self._children if child.poll() is None]  # reaps those that ended
        return self._pages.render(
            visit, "runs", runs=read_runs(self._project.folder), steps=STEPS, plan=self._plan(),
            account=self._store.ledger.account(), served=self._served, has_student=(self._project.models / STUDENT / MANIFEST).is_file(),
        )  # fmt: skip

    def start(self, visit: Visit) -> Response:
        """Start a step, as a process of its own, which goes on when the page is closed."""
        step, more = visit.field("step"), []
        if step not in STEPS:
            raise InputError("this step cannot be started here")
        if step in ("label", "run"):
            budget = finite(_number(visit.field("budget")))
            if budget is None or budget < 0:
                raise InputError(
                    "give a budget in US dollars: what the whole project may cost, with what was spent already"
                )
            more = ["--yes", "--budget", str(budget)]
        with self._starting:
            return self._start(step, more)

    def _start(self, step: str, more: list[str]) -> Response:
        runs = read_runs(self._project.folder)
        if running := next((run for run in runs if run.alive and run.command in (step, "run")), None):
            return self._pages.go(f"/runs/{running.id}")
        known, new = {run.id for run in runs}, []
        folder = self._project.folder / RUNS
        folder.mkdir(exist_ok=True)
        draft = folder / f"{secrets.token_hex(4)}.log"
        with draft.open("wb") as output:
            child = subprocess.Popen(
                [sys.executable, "-m", "fingerpost", step, "-C", str(self._project.folder), *more],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        draft.rename(folder / f"{child.pid}.log")
        self._children.append(child)
        for _ in range(100):
            new = [run for run in read_runs(self._project.folder) if run.id not in known]
            if new or child.poll() is not None:
                break
            time.sleep(0.1)
        return self._pages.go(f"/runs/{new[0].id}" if new else "/runs")

    def first(self, visit: Visit) -> Response:
        """What to do in a new project. The files that task.toml names are imported."""
        return self._first(visit, [], "")

    def try_teacher(self, visit: Visit) -> Response:
        """Ask the teacher about five questions; the answers are not stored."""
        questions = sorted(self._store.questions(), key=lambda one: hash_fraction(f"trial/{one.id}"))[:TRIED]
        answers, problem = [], ""
        try:
            for question in questions:
                found = self._project.ask_teacher(question.messages[-1].content)
                answers.append((question.messages[-1].content, found.label or "none of the labels"))
        except FingerpostError as error:
            problem = str(error)
        return self._first(visit, answers, problem)

    def serve(self, visit: Visit) -> Response:
        """Serve the student, or stop that."""
        if visit.field("stop"):
            self._served.stop()
        else:
            self._served.start()
        return self._pages.go("/runs")

    def _first(self, visit: Visit, answers: list[tuple[str, str]], problem: str) -> Response:
        if not self._store.counts():
            for data in self._project.task.data:
                form = format_of_options(data.quote, data.encoding, data.delimiter)
                named = Columns(data.text, data.label, source=data.source, format=form)
                self._rejected += len(self._project.import_file(self._project.folder / data.file, named).rejected)
            self._queue.refresh()
        return self._pages.render(
            visit, "first", questions=sum(self._store.counts().values()), rejected=self._rejected, answers=answers, problem=problem,
            plan=self._plan(), model=self._project.task.teacher_model, file=self._project.folder / TASK_FILE,
        )  # fmt: skip

    def one(self, visit: Visit) -> Response:
        """A run."""
        run = self._run(visit)
        return self._pages.render(visit, "run", run=run, curves=curves(run), output=self._output(run))

    def live(self, visit: Visit) -> Response:
        """The state of a run, as server-sent events, until it ends."""
        run_id = self._run(visit).id

        async def events() -> AsyncIterator[str]:
            while True:
                run = await asyncio.to_thread(find_run, self._project.folder, run_id)
                if run is None:
                    return
                page = self._pages.render(
                    visit, "run_state", part=True, run=run, curves=curves(run), output=self._output(run)
                )
                lines = bytes(page.body).decode().splitlines()
                yield "".join(f"data: {line}\n" for line in lines) + "\n"
                if not run.alive:
                    yield "event: ended\ndata:\n\n"
                    return
                await asyncio.sleep(LIVE_S)

        return StreamingResponse(events(), media_type="text/event-stream")

    def cancel(self, visit: Visit) -> Response:
        """Stop a run, as Ctrl-C does."""
        run = self._run(visit)
        stopped = cancel(self._project.folder, run.id)
        self._pages.say(visit, "Stopping. Completed work is kept." if stopped else "It has ended already")
        return self._pages.go(f"/runs/{run.id}")

    def _run(self, visit: Visit) -> Run:
        found = find_run(self._project.folder, str(visit.request.path_params["run"]))
        if found is None:
            raise InputError("there is no such run")
        return found

    def _plan(self) -> Any:
        """What labelling would cost; None without a teacher, where that is not known, or in a large project."""
        if sum(self._store.counts().values()) > LARGE:
            return None
        try:
            return self._project.plan_labels()
        except FingerpostError:
            return None

    def _output(self, run: Run) -> str:
        """What a run that was started here has printed last; empty while it runs, or if it went well."""
        file = self._project.folder / RUNS / f"{run.pid}.log"
        if run.alive or run.code in (0, None) or not file.is_file():
            return ""
        lines = file.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines and lines[-1].startswith("fingerpost:") else ""


class StudentServer:
    """`fingerpost serve` for the project's student, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self.url = ""

    @property
    def is_running(self) -> bool:
        """Whether the student is being served."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Serve the student on a free port of this machine.

        Raises:
            InputError: it cannot be served.
        """
        with self._lock:
            if not self.is_running:
                self._start()

    def _start(self) -> None:
        (self._folder / RUNS).mkdir(exist_ok=True)
        log = self._folder / RUNS / "serve.log"
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fingerpost", "serve", str(self._folder), "--port", "0", "--quiet"],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True,
            )  # fmt: skip
        assert self._process.stdout is not None
        first = self._process.stdout.readline()
        if not first.startswith(ADDRESS):
            raise InputError(f"the student cannot be served: {log.read_text(encoding='utf-8').strip() or 'it ended'}")
        self.url = first.removeprefix(ADDRESS).strip()

    def stop(self) -> None:
        """Stop serving."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def curves(run: Run) -> list[dict[str, str]]:
    """The loss and the dev accuracy of a training, as points of SVG lines; none with fewer than two epochs."""
    if len(run.steps) < 2:
        return []
    loss = [value for step in run.steps for value in step[1:3]]
    accuracy = [step[3] for step in run.steps]
    return [
        {
            "name": "loss (nats)", "low": f"{min(loss):.2f}", "high": f"{max(loss):.2f}",
            "training": _line([step[1] for step in run.steps], loss), "dev": _line([step[2] for step in run.steps], loss),
        },
        {
            "name": "dev accuracy", "low": f"{min(accuracy):.3f}", "high": f"{max(accuracy):.3f}", "training": "",
            "dev": _line(accuracy, accuracy),
        },
    ]  # fmt: skip


def _line(values: Sequence[float], scale: Sequence[float]) -> str:
    """Points of a polyline in a box of WIDTH by HEIGHT."""
    low, span = min(scale), (max(scale) - min(scale)) or 1.0
    step = WIDTH / max(1, len(values) - 1)
    return " ".join(f"{i * step:.1f},{HEIGHT - HEIGHT * (value - low) / span:.1f}" for i, value in enumerate(values))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
