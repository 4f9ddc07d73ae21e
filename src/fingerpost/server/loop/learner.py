"""Trains the students of decisions, one at a time, each in a process of its own, when there is enough that is new."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from dataclasses import dataclass

from fingerpost.server.jobs.runner import NICE
from fingerpost.server.loop.decisions import ActiveDecision, DecisionLoop
from fingerpost.server.ops.logs import log
from fingerpost.server.ops.supervise import run_forever
from fingerpost.server.schemas import Json
from fingerpost.server.settings import Settings
from fingerpost.store.server import ServerStore, now

LEAST, GROWTH = 200, 1.5
"""Answers for the first training, and how many times more there have to be for another one."""
POLL_S = 1.0


@dataclass(slots=True)
class Learner:
    """Trains what is due."""

    settings: Settings
    store: ServerStore
    loop: DecisionLoop
    least: int = LEAST

    async def run(self) -> None:
        """Train until cancelled."""
        await run_forever("decisions: learn", self._next)

    async def _next(self) -> None:
        await asyncio.sleep(POLL_S)
        await asyncio.to_thread(self.loop.sync)
        due = next((active for active in self.loop.active if self._is_due(active)), None)
        if due is not None:
            await self._train(due)

    def _is_due(self, active: ActiveDecision) -> bool:
        training, answers = active.row.training, active.answers
        if active.row.mode == "found" or answers <= int(training.get("tried", -1)):
            return False
        trained = int(training.get("rows", 0))
        alarmed = active.row.alarm is not None
        return answers >= max(self.least, trained + self.least if alarmed else round(trained * GROWTH))

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
