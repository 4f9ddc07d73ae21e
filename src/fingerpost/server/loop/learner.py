"""Trains the students of decisions, one at a time, each in a process of its own, when there is enough that is new."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from dataclasses import dataclass, field

from fingerpost.server.jobs.runner import NICE
from fingerpost.server.loop.decisions import ActiveDecision, DecisionLoop
from fingerpost.server.loop.projects import human_labels
from fingerpost.server.ops.logs import log
from fingerpost.server.ops.supervise import run_forever
from fingerpost.server.schemas import Json
from fingerpost.server.settings import Settings
from fingerpost.store.server import DATABASE, ServerStore, now

LEAST, GROWTH = 200, 1.5
"""Answers for the first training, and how many times more there have to be for another one."""
REVIEWS = 50
"""New human labels from which on a student is trained again."""
POLL_S = 1.0


@dataclass(slots=True)
class Learner:
    """Trains what is due."""

    settings: Settings
    store: ServerStore
    loop: DecisionLoop
    least: int = LEAST
    _reviewed: dict[int, tuple[int, int]] = field(default_factory=dict)

    async def run(self) -> None:
        """Train until cancelled."""
        await run_forever("decisions: learn", self._next)

    async def _next(self) -> None:
        await asyncio.sleep(POLL_S)
        await asyncio.to_thread(self.loop.sync)
        due = await asyncio.to_thread(lambda: next((one for one in self.loop.active if self._is_due(one)), None))
        if due is not None:
            await self._train(due)

    def _is_due(self, active: ActiveDecision) -> bool:
        training, answers = active.row.training, active.answers
        if answers <= int(training.get("tried", -1)):
            return False
        trained = int(training.get("rows", 0))
        alarmed = active.row.alarm is not None
        if answers >= max(self.least, trained + self.least if alarmed else round(trained * GROWTH)):
            return True
        return trained > 0 and self._new_reviews(active) >= max(REVIEWS, int(training.get("humans", 0) * (GROWTH - 1)))

    def _new_reviews(self, active: ActiveDecision) -> int:
        """Human labels since the last training; counted when the project's database has changed."""
        place = self.loop.folder / active.row.folder
        files = (place / DATABASE, place / f"{DATABASE}-wal")
        stamp = sum(file.stat().st_mtime_ns for file in files if file.is_file())
        if self._reviewed.get(active.row.id, (0, 0))[0] != stamp:
            self._reviewed[active.row.id] = stamp, human_labels(place)
        return self._reviewed[active.row.id][1] - int(active.row.training.get("humans", 0))

    async def _train(self, active: ActiveDecision) -> None:
        settings, row, answers = self.settings, active.row, active.answers
        log("learning a decision", decision=row.name, version=row.version, answers=answers)
        options: Json = {
            "encoder": settings.encoder, "threads": settings.training_threads, "nice": NICE, "limit": self.loop.limit,
        }  # fmt: skip
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "fingerpost.server.loop.worker", str(settings.folder), str(row.id), json.dumps(options),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        try:
            assert child.stdout is not None
            told = (await child.stdout.read()).decode("utf-8", "replace").strip()
            code = await child.wait()
        finally:
            if child.returncode is None:
                child.kill()
        if code:
            problem = told or f"exit code {code}"
            log("a decision cannot be learnt yet", logging.WARNING, decision=row.name, problem=problem)
            current = next(one for one in await asyncio.to_thread(self.store.decisions) if one.id == row.id)
            tried = {**current.training, "tried": round(answers * 1.1), "problem": problem, "tried_at": now()}
            await asyncio.to_thread(self.store.change_decision, row.id, training=tried)
        await asyncio.to_thread(self.loop.sync)
