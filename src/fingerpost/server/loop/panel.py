"""The fixed panel of a decision: its first requests, which are put to the upstream endpoint once a day.

When more of the answers change than changed at the first repetition, the upstream model is another one.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import httpx2
from scipy.stats import beta

from fingerpost.evaluation.drift import DriftMonitor
from fingerpost.server.loop.projects import label_of_reply, task_of_decision
from fingerpost.server.loop.recognition import WIRES, ObservedReply, Recognised, read_reply
from fingerpost.server.loop.typed_questions import asked_questions, observed_answers, recognise_question
from fingerpost.server.loop.upstream import Headers, Upstream, UpstreamAnswer
from fingerpost.server.ops.logs import log
from fingerpost.server.ops.supervise import run_forever
from fingerpost.server.schemas import ApiError, Json
from fingerpost.store.server import ServerStore, now
from fingerpost.store.server_rows import DecisionRow

DAY_S, RETRY_S, POLL_S = 86_400, 3_600, 5.0
AT_ONCE = 4
"""Requests to the upstream endpoint at the same time."""
MOST_BYTES = 20_000
"""Larger requests are not taken into a panel."""
FIXED = {
    "model", "type", "role", "name", "response_format", "format", "tools", "functions", "tool_choice", "function_call", "choices",
    "levels", "criteria", "id", "call_id", "tool_call_id",
}  # fmt: skip
"""Fields of a request that hold no text of a person."""
NOISE_LEVEL = 0.975
"""Confidence level of the bound for the answers that change although the model is the same."""


@dataclass(slots=True)
class Panel:
    """The requests of a decision's panel, and how the answers to them have changed.

    Attributes:
        requests: `path`, `body` and `label`, the upstream's first answer.
        repeated: the labels of the first repetition; None before it.
        limit: the share of the answers that may differ from both: an upper bound of those that changed at once.
        outcomes: whether each later answer differs from both.
        asked_at: when it was last repeated, in seconds since 1970.
        alarm: when and how the answers changed; None if they have not.
    """

    requests: list[Json] = field(default_factory=list)
    repeated: list[str | None] | None = None
    limit: float = 1.0
    outcomes: list[bool] = field(default_factory=list)
    asked_at: int = 0
    alarm: str | None = None

    def add_request(self, recognised: Recognised, label: str, redact: Callable[[str], str] | None) -> bool:
        """Take a request into the panel; whether it was taken."""
        body = {key: value for key, value in recognised.body.items() if key not in ("stream", "stream_options")}
        if not body or body.get("previous_response_id") or len(json.dumps(body)) > MOST_BYTES:
            return False
        if redact is not None:
            body = _redacted(body, redact)
        if any(one["body"] == body for one in self.requests):
            return False
        self.requests.append({"path": recognised.path, "body": body, "label": label})
        return True

    def add_answers(self, labels: list[str | None], model: str) -> bool:
        """Compare the answers of a repetition, None where there is no answer; whether the model has changed."""
        firsts = [str(one["label"]) for one in self.requests]
        if self.repeated is None:
            changed = sum(label not in (None, first) for label, first in zip(labels, firsts, strict=True))
            answered = sum(label is not None for label in labels)
            self.repeated = labels
            self.limit = min(0.95, float(beta.ppf(NOISE_LEVEL, changed + 1, max(1, answered - changed))))
            return False
        monitor = DriftMonitor(self.limit)
        for outcome in self.outcomes:
            monitor.add(outcome)
        differing = [
            label not in (first, again)
            for label, first, again in zip(labels, firsts, self.repeated, strict=True)
            if label is not None
        ]
        for outcome in differing:
            monitor.add(outcome)
        self.outcomes = monitor.outcomes
        if not monitor.alarm:
            return False
        date = time.strftime("%Y-%m-%d", time.gmtime(now()))
        self.alarm = (
            f"on {date}, {sum(differing)} of {len(differing)} repeated requests got a different answer from {model}; at most "
            f"{self.limit:.0%} is expected by chance. The provider has probably changed the model"
        )
        # From here on, the new answers are the ones to compare with.
        for request, label in zip(self.requests, labels, strict=True):
            request["label"] = label or request["label"]
        self.repeated, self.outcomes = None, []
        return True


def panel_of(stored: Json | None) -> Panel:
    """A panel as it is stored."""
    return Panel(**stored) if stored else Panel()


class PanelRunner:
    """Puts the panels of all decisions to the upstream endpoint, once a day.

    Args:
        size: the requests of a panel.
        key: the upstream endpoint's key.
        every_s: seconds between two repetitions.
    """

    def __init__(self, store: ServerStore, upstream: Upstream, size: int, key: str, every_s: float = DAY_S) -> None:
        self._store, self._upstream, self._size, self._every = store, upstream, size, every_s
        self._headers: Headers = [
            (b"authorization", f"Bearer {key}".encode()),
            (b"content-type", b"application/json"),
            (b"accept-encoding", b"identity"),
        ]

    async def run(self) -> None:
        """Ask until cancelled."""
        await run_forever("decisions: panel", self._next)

    async def _next(self) -> None:
        rows = {row.name: row for row in await asyncio.to_thread(self._store.decisions)}  # the latest versions
        for row in rows.values():
            panel = panel_of(await asyncio.to_thread(self._store.get_panel, row.id))
            complete = panel.repeated is not None or len(panel.requests) >= self._size
            if complete and now() - panel.asked_at >= self._every and row.labels:
                await self._repeat(row, panel)
        await asyncio.sleep(min(POLL_S, self._every))

    async def _repeat(self, row: DecisionRow, panel: Panel) -> None:
        slots = asyncio.Semaphore(AT_ONCE)

        async def label(request: Json) -> str | None:
            async with slots:
                try:
                    body = json.dumps(request["body"]).encode()
                    answer = await self._upstream.ask(request["path"], self._headers, body)
                except (ApiError, httpx2.HTTPError):
                    return None
            reply = _reply_in(request, answer)
            return None if reply is None else label_of_reply(row, task_of_decision(row), reply)

        # Stored before it is asked, so that nothing is paid for again and again if something fails.
        panel.asked_at = now()
        await asyncio.to_thread(self._store.put_panel, row.id, asdict(panel))
        labels = await asyncio.gather(*(label(request) for request in panel.requests))
        if sum(found is not None for found in labels) < len(labels) / 2:
            log("the panel got too few answers", logging.WARNING, decision=row.name)
            panel.asked_at = now() - round(self._every) + min(RETRY_S, round(self._every))
            await asyncio.to_thread(self._store.put_panel, row.id, asdict(panel))
            return
        changed = panel.add_answers(labels, row.model)
        await asyncio.to_thread(self._store.put_panel, row.id, asdict(panel))
        if changed:
            log("the upstream model has changed", logging.WARNING, decision=row.name, reason=panel.alarm)
            await asyncio.to_thread(
                self._store.change_decision, row.id, upstream_alarm=panel.alarm, upstream_announced=False
            )


def _reply_in(request: Json, answer: UpstreamAnswer) -> ObservedReply | None:
    """The reply in a response to a request of a panel; None where there is none."""
    if answer.status != 200:
        return None
    if (wire := WIRES.get(request["path"])) is not None:
        return read_reply(wire, answer.content_type, answer.body)
    asked = asked_questions(request["path"], request["body"])
    return None if asked is None else observed_answers(asked, [recognise_question(asked, 0, None)], answer.body)[0]


def _redacted(value: Any, redact: Callable[[str], str]) -> Any:
    """A request's body with all texts redacted, but those that say what is asked for: models, types, schemas, labels."""
    if isinstance(value, dict):
        return {key: part if key in FIXED else _redacted(part, redact) for key, part in value.items()}
    if isinstance(value, list):
        return [_redacted(part, redact) for part in value]
    return redact(value) if isinstance(value, str) else value
