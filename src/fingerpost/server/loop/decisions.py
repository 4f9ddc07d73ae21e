"""The decisions that pass by: which one a request belongs to, whether its student answers, and what is learnt from the answer."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from cachetools import LRUCache

from fingerpost.core.errors import ModelError, TeacherError
from fingerpost.core.types import Conversation, Usage
from fingerpost.core.utils import count
from fingerpost.evaluation.drift import DriftMonitor
from fingerpost.llm import prices
from fingerpost.project import STUDENT
from fingerpost.server.inference.answers import conversation_of
from fingerpost.server.inference.chat import ChatService
from fingerpost.server.inference.request_log import RequestLog
from fingerpost.server.inference.response_format import requested_format
from fingerpost.server.loop.active import ActiveDecision, Proposal, load_model, monitor_of, stored_monitor
from fingerpost.server.loop.matching import Sought, is_version_of, slug, stored_place
from fingerpost.server.loop.panel import panel_of
from fingerpost.server.loop.projects import (
    is_same_prompt,
    label_of_reply,
    queue_disagreements,
)
from fingerpost.server.loop.recognition import ObservedReply, Recognised
from fingerpost.server.loop.upstream import UpstreamAnswer
from fingerpost.server.ops.logs import log, log_sometimes
from fingerpost.server.ops.metrics import Metrics
from fingerpost.server.schemas import ApiError
from fingerpost.store.server import ServerStore, now
from fingerpost.store.server_rows import LoggedTeacherReply, Mode, RequestLogEntry
from fingerpost.students.folder import MANIFEST
from fingerpost.task.reply_format import without_template
from fingerpost.task.settings import TeacherSettings

DECISIONS = "decisions"
"""The folder of the decisions' projects, in the server's folder."""
MOST_DECISIONS, MOST_VERSIONS = 100, 20
CANARY_SHARE = 0.05
MOST_LOGGED = 50_000
"""Logged requests that are kept of a decision."""


class DecisionLoop:
    """Learns the decisions that pass by.

    Args:
        folder: the server's folder.
        limit: the share of the student's answers that may differ from the upstream's.
        auto: take the next step of a decision without being asked, when it is proven.
        panel: requests of each decision that are kept to put to the upstream endpoint again and again.
        request_log: None keeps nothing, so that nothing is learnt.
        redact: applied to prompts before they are stored.
    """

    def __init__(
        self,
        store: ServerStore,
        folder: Path,
        chat: ChatService,
        request_log: RequestLog | None,
        metrics: Metrics,
        *,
        redact: Callable[[str], str] | None = None,
        limit: float = 0.05,
        auto: bool = False,
        panel: int = 0,
    ) -> None:
        self._store, self._chat, self._log, self._metrics = store, chat, request_log, metrics
        self._redact = redact
        self.folder = folder / DECISIONS
        self.limit, self.auto, self._panel = limit, auto, panel
        self._active: dict[int, ActiveDecision] = {}
        self._bound: LRUCache[bytes, ActiveDecision] = LRUCache(maxsize=4096)
        self._lock = threading.RLock()
        self._binding = asyncio.Lock()
        self._random = random.Random()
        self.sync()

    @property
    def active(self) -> list[ActiveDecision]:
        """All versions of all decisions."""
        return list(self._active.values())

    # --- which decision

    def find(self, recognised: Recognised) -> ActiveDecision | None:
        """The known decision that a request belongs to; None if it is new, or nothing is logged."""
        if self._log is None:
            return None
        key = hashlib.sha256(
            repr((recognised.name, recognised.hint, recognised.labels, recognised.place, recognised.system)).encode()
        ).digest()
        found = self._bound.get(key) or self._match(self._prepared(recognised))
        if found is not None:
            self._bound[key] = found
        return found

    async def bind(self, recognised: Recognised) -> ActiveDecision | None:
        """The decision that a request belongs to, new if it is none that is known; None where there are too many, or no log."""
        found = self.find(recognised)
        if found is None and self._log is not None:
            async with self._binding:
                found = self.find(recognised) or await asyncio.to_thread(self._add, self._prepared(recognised))
        return found

    def _prepared(self, recognised: Recognised) -> Sought:
        named = recognised.name is not None
        return Sought(
            slug(recognised.name or recognised.hint),
            named,
            stored_place(recognised, named),
            list(recognised.labels),
            recognised.system if self._redact is None else self._redact(recognised.system),
            recognised.request.model,
        )

    def _match(self, sought: Sought) -> ActiveDecision | None:
        for active in reversed(self.active):
            row = active.row
            same_labels = not sought.labels or set(row.labels) == set(sought.labels)
            exact = bool(sought.place.get("question"))
            if (
                same_labels
                and is_version_of(row, sought)
                and is_same_prompt(row.prompt, sought.prompt, sought.named, exact)
            ):
                return active
        return None

    def _add(self, sought: Sought) -> ActiveDecision | None:
        """Add a decision or a version of one; None where there are too many."""
        with self._lock:
            rows = [active.row for active in self.active]
            same = [row for row in rows if is_version_of(row, sought)]
            taken = {row.name for row in rows}
            if len(same) >= MOST_VERSIONS or (not same and len(taken) >= MOST_DECISIONS):
                limit = MOST_VERSIONS if same else MOST_DECISIONS
                log_sometimes(f"more than {limit} {'versions of a decision' if same else 'decisions'}", logging.WARNING)
                return None
            names = (sought.name, *(f"{sought.name}-{number}" for number in range(2, MOST_DECISIONS + 2)))
            name = same[0].name if same else next(one for one in names if one not in taken)
            row = self._store.add_decision(
                name, len(same) + 1, "observe", sought.place, sought.labels, sought.prompt, sought.model
            )
            self._active[row.id] = ActiveDecision(row, DriftMonitor(self.limit))
        log("new version of a decision" if same else "new decision", name=name, version=row.version)
        return self._active[row.id]

    # --- one request

    async def propose(self, active: ActiveDecision, recognised: Recognised, may_answer: bool) -> Proposal | None:
        """What the student says to a request; None where it says nothing.

        Args:
            may_answer: whether the caller may get an answer of this server's own.
        """
        mode, model, monitor, cutoff = active.row.mode, active.model, active.monitor, active.cutoff
        if model is None or mode == "observe":
            return None
        try:
            response_format = requested_format(recognised.request, model)
            messages = without_template(conversation_of(recognised.request.messages), model.user_template)
            decision = await self._chat.student_decision(model, messages, response_format.allowed)
        except ApiError:
            return None
        sure = decision.whole_confidence >= cutoff
        in_service = mode == "on" or (mode == "canary" and self._random.random() < active.row.share)
        answers = sure and in_service and may_answer and not monitor.probation
        check = answers and self._random.random() < monitor.share_to_check(active.answered)
        return Proposal(monitor, decision, response_format, sure, answers, check)

    async def answered_by_student(
        self, active: ActiveDecision, recognised: Recognised, proposal: Proposal, request_id: str, key: str | None
    ) -> None:
        """Log a request that the student has answered."""
        active.answered += 1
        decision = proposal.decision
        self._count(active, "student")
        await self._write(
            active, recognised, request_id, key, decision.label, "student", decision.latency_s, None, proposal
        )

    async def answered_upstream(
        self,
        active: ActiveDecision,
        recognised: Recognised,
        proposal: Proposal | None,
        answer: UpstreamAnswer,
        reply: ObservedReply | None,
        request_id: str,
        key: str | None,
    ) -> None:
        """Log an upstream answer, and compare the student's with it."""
        self._count(active, "upstream")
        if answer.status != 200 or reply is None:
            return
        task = active.task
        label = label_of_reply(active.row, task, reply)
        teacher = self._teacher_reply(recognised, reply, label, answer.seconds)
        await self._write(active, recognised, request_id, key, label, "upstream", answer.seconds, teacher, proposal)
        collecting = active.panel.repeated is None and len(active.panel.requests) < self._panel
        if label is not None and collecting:
            with self._lock:
                active.new_panel = active.panel.add_request(recognised, label, self._redact) or active.new_panel
        probation = active.monitor.probation and active.row.mode in ("canary", "on")
        if proposal is not None and proposal.sure and probation and task is not None:
            self._compare(active, proposal, label)

    async def checked(
        self,
        active: ActiveDecision,
        recognised: Recognised,
        proposal: Proposal,
        answer: UpstreamAnswer,
        reply: ObservedReply | None,
        request_id: str,
    ) -> None:
        """Compare an answer that the student has given with the upstream's, which came after it."""
        if reply is None or answer.status != 200:
            return
        label = label_of_reply(active.row, active.task, reply)
        teacher = self._teacher_reply(recognised, reply, label, answer.seconds)
        await asyncio.to_thread(self._store.set_teacher_reply, request_id, active.row.id, teacher)
        self._compare(active, proposal, label)

    def _compare(self, active: ActiveDecision, proposal: Proposal, label: str | None) -> None:
        """Count whether the student says what the upstream says. A reply without a label differs, too."""
        disagrees = proposal.decision.label != label
        with self._lock:
            monitor = active.monitor
            if monitor is not proposal.monitor:  # of an earlier student
                return
            monitor.add(disagrees)
            active.changed = True
            if monitor.alarm and active.row.mode in ("canary", "on"):  # before `sync` can take it for a person's reset
                self._raise_alarm(active)
        self._metrics.decision_checks.labels(active.row.name, "different" if disagrees else "same").inc()

    def _raise_alarm(self, active: ActiveDecision) -> None:
        """Take a student out of service."""
        monitor = active.monitor
        wrong, n = sum(monitor.outcomes), len(monitor.outcomes)
        reason = f"{wrong} of {n} checked answers differ from the upstream's: more than {monitor.limit:.0%}, with 95 % confidence"
        log("decision alarm", logging.WARNING, decision=active.row.name, reason=reason)
        self._metrics.decision_alarms.labels(active.row.name).inc()
        self.set_mode(active, "shadow", alarm=reason)
        active.new_alarm = active.changed = True

    def set_mode(self, active: ActiveDecision, mode: Mode, alarm: str | None = None, share: float = 1.0) -> None:
        """Change the mode of a decision, unless a person has changed it in the meantime."""
        with self._lock:
            before = active.row.mode
            changed = self._store.change_mode(active.row.id, before, mode=mode, alarm=alarm, share=share)
            if changed is not None and alarm is not None:
                changed = self._store.change_decision(active.row.id, announced=False)
            active.row = changed or active.row
        if changed is not None:
            log("decision mode", decision=active.row.name, version=active.row.version, before=before, mode=mode)

    async def _write(
        self,
        active: ActiveDecision,
        recognised: Recognised,
        request_id: str,
        key: str | None,
        label: str | None,
        by: str,
        seconds: float,
        teacher: LoggedTeacherReply | None,
        proposal: Proposal | None,
    ) -> None:
        if self._log is None:
            return
        try:
            messages: Conversation = conversation_of(recognised.request.messages)
        except ApiError:
            return
        decision = proposal.decision if proposal is not None else None
        await self._log.write(
            RequestLogEntry(
                request_id, now(), key, recognised.request.model, messages, label,
                decision.whole_confidence if decision is not None else 0.0, by, seconds, teacher, active.row.id,
                decision.label if decision is not None else None,
            )
        )  # fmt: skip

    def _teacher_reply(
        self, recognised: Recognised, reply: ObservedReply, label: str | None, seconds: float
    ) -> LoggedTeacherReply:
        model = recognised.request.model
        prompt, completion = count(reply.usage.get("prompt_tokens")), count(reply.usage.get("completion_tokens"))
        details = reply.usage.get("prompt_tokens_details")
        cached = count(details.get("cached_tokens")) if isinstance(details, dict) else None
        usage = Usage(prompt, cached, completion, None, seconds)
        if prompt is not None:
            with suppress(TeacherError):  # its price may not be known
                usage = replace(usage, cost_usd=prices.cost(TeacherSettings(model=model), usage))
        raw = (reply.tool or "") if recognised.place.by_tool else reply.text or ""
        return LoggedTeacherReply(
            model, label, raw, None, usage, dict(reply.probabilities) if reply.probabilities else None
        )

    def _count(self, active: ActiveDecision, by: str) -> None:
        self._metrics.decisions.labels(active.row.name, by, "").inc()

    # --- in the background

    def sync(self) -> None:
        """Store the monitors, read changed rows and changed models, and take the steps that are due. Blocks: for a thread."""
        with self._lock:
            for active in self.active:
                if active.changed:
                    active.changed = False
                    self._store.change_decision(active.row.id, monitor=stored_monitor(active))
                if active.new_panel:
                    active.new_panel = False
                    self._store.put_panel(active.row.id, asdict(active.panel))
            for row in self._store.decisions():
                if row.id not in self._active:
                    answered = int(row.monitor.get("answered", 0))
                    self._active[row.id] = ActiveDecision(
                        row,
                        monitor_of(row, self.limit),
                        None,
                        answered,
                        panel=panel_of(self._store.get_panel(row.id)),
                        new_alarm=bool(row.monitor.get("new_alarm")),
                    )
                active = self._active[row.id]
                active.row = row
                if active.monitor.alarm and row.alarm is None:  # a person has put the student back into service
                    active.monitor, active.changed = active.new_monitor(self.limit), True
        for active in self.active:
            if active.new_alarm:
                queued = queue_disagreements(self._store, active.row, self.folder)
                active.new_alarm, active.changed = False, True
                log("questions behind an alarm put into the review queue", decision=active.row.name, questions=queued)
            self._load(active)
            if self.auto:
                self._promote(active)

    def clean_up(self) -> None:
        """Delete the oldest logged requests beyond MOST_LOGGED. Blocks: for a thread."""
        for active in self.active:
            self._store.delete_decision_log(active.row.id, MOST_LOGGED)

    def _load(self, active: ActiveDecision) -> None:
        """Load the student if it is new. Its alarm begins anew."""
        row = active.row
        folder = self.folder / row.folder / "models" / STUDENT
        try:
            stamp = (folder / MANIFEST).stat().st_mtime_ns
        except OSError:
            return
        if stamp == active.stamp or row.training.get("stamp") != stamp:
            return
        try:
            model = load_model(row, folder)
        except ModelError as error:
            log("a decision's student cannot be loaded", logging.ERROR, decision=row.name, problem=str(error))
            return
        with self._lock:
            if row.monitor.get("stamp") != stamp:
                active.monitor, active.answered, active.changed = active.new_monitor(self.limit), 0, True
            active.model, active.stamp = model, stamp
        log("decision's student loaded", decision=row.name, version=row.version, cutoff=row.training.get("cutoff"))

    def _promote(self, active: ActiveDecision) -> None:
        """The next mode, where it is proven. An alarm ends when a new student has been trained."""
        row = active.row
        if active.model is None:
            return
        proven = active.cutoff < math.inf
        if row.mode == "observe":
            self.set_mode(active, "shadow")
        elif row.mode == "shadow" and proven and not active.monitor.alarm:
            self.set_mode(active, "canary", share=CANARY_SHARE)
        elif row.mode == "canary" and not active.monitor.probation and active.answered >= 20:
            self.set_mode(active, "on")
