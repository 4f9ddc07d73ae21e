"""Trains the students of decisions, one at a time, each in a process of its own, when there is enough that is new."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from dataclasses import dataclass, field

from fingerpost.server.jobs.runner import NICE
from fingerpost.server.loop.active import ActiveDecision
from fingerpost.server.loop.decisions import DecisionLoop
from fingerpost.server.loop.projects import GROWTH, answers_missing, human_labels
from fingerpost.server.ops.logs import log
from fingerpost.server.ops.supervise import run_forever
from fingerpost.server.schemas import Json
from fingerpost.server.settings import Settings
from fingerpost.store.server import DATABASE, ServerStore

REVIEWS = 50
"""New human labels from which on a student is trained again."""
POLL_S = 1.0


@dataclass(slots=True)
class Learner:
    """Trains what is due."""

    settings: Settings
    store: ServerStore
    loop: DecisionLoop
    _reviewed: dict[int, tuple[int, int]] = field(default_factory=dict)

    async def run(self) -> None:
        """Train until cancelled."""
        await run_forever("decisions: learn", self._next)

    async def _next(self) -> None:
        await asyncio.sleep(POLL_S)
        due = await asyncio.to_thread(lambda: next((one for one in self.loop.active if self._is_due(one)), None))
        if due is not None:
            await self._train(due)

    def _is_due(self, active: ActiveDecision) -> bool:
        row = active.row
        if answers_missing(row, self.store.count_answers(row.id, row.imported)) <= 0:
            return True
        known = int(row.training.get("humans", 0))
        return active.model is not None and self._new_reviews(active) >= max(REVIEWS, round(known * (GROWTH - 1)))

    def _new_reviews(self, active: ActiveDecision) -> int:
        """Human labels since the last training; counted when the project's database has changed."""
        place = self.loop.folder / active.row.folder
        files = (place / DATABASE, place / f"{DATABASE}-wal")
        stamp = sum(file.stat().st_mtime_ns for file in files if file.is_file())
        if self._reviewed.get(active.row.id, (0, 0))[0] != stamp:
            self._reviewed[active.row.id] = stamp, human_labels(place)
        return self._reviewed[active.row.id][1] - int(active.row.training.get("humans", 0))

    async def _train(self, active: ActiveDecision) -> None:
        settings, row = self.settings, active.row
        log("learning a decision", decision=row.name, version=row.version)
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
            new = await asyncio.to_thread(self.store.count_answers, row.id, current.imported)
            tried = {**current.training, "tried": round(new * 1.1) + 1, "problem": problem}
            await asyncio.to_thread(self.store.change_decision, row.id, training=tried)
        await asyncio.to_thread(self.loop.sync)
