"""A decision with its student and its alarm, and what a student proposes to answer."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

from fingerpost.evaluation.drift import DriftMonitor
from fingerpost.evaluation.thresholds import CutoffChoice
from fingerpost.server.inference.answers import Decision
from fingerpost.server.inference.registry import ServedModel, read_model
from fingerpost.server.inference.response_format import ResponseFormat
from fingerpost.server.loop.panel import Panel
from fingerpost.server.loop.projects import task_of_decision
from fingerpost.server.schemas import Json
from fingerpost.store.server_rows import DecisionRow
from fingerpost.task.reply_format import ReplyTemplate, UserTemplate
from fingerpost.task.settings import Task

MOST_LIMIT = 0.5
"""Of the alarm, however much a reviewed student differs from the upstream."""


@dataclass(slots=True)
class ActiveDecision:
    """A version of a decision, with its student if there is one.

    Attributes:
        model: the trained student.
        monitor: the alarm for drift.
        answered: requests that this student has answered.
        changed: the monitor has to be stored.
        stamp: identifies the model's files.
        panel: its panel, while requests are still being added.
        new_panel: it has to be stored.
        new_alarm: the answers behind its alarm have to be put into the review queue.
    """

    row: DecisionRow
    monitor: DriftMonitor
    model: ServedModel | None = None
    answered: int = 0
    changed: bool = False
    stamp: int = 0
    panel: Panel = field(default_factory=Panel)
    new_panel: bool = False
    new_alarm: bool = False

    @property
    def task(self) -> Task | None:
        """Its labels; None while they are not known."""
        return task_of_decision(self.row)

    def new_monitor(self, limit: float) -> DriftMonitor:
        """An alarm that begins: for the promised limit, or for what a reviewed student differed by when it was trained."""
        return DriftMonitor(min(MOST_LIMIT, max(limit, float(self.row.training.get("differs", limit)))))

    @property
    def cutoff(self) -> float:
        """The confidence from which on the student answers; infinite where none is proven."""
        found = self.model.choice.cutoff if self.model is not None else None
        return math.inf if found is None else found


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a student says to a request.

    Attributes:
        answers: it is the answer to the client; else it is only compared with the upstream's.
        check: the upstream endpoint is asked as well, after the reply.
        sure: its confidence is at or above the cut-off.
        monitor: the alarm of the student that says it.
    """

    monitor: DriftMonitor
    decision: Decision
    response_format: ResponseFormat
    sure: bool
    answers: bool
    check: bool


def load_model(row: DecisionRow, folder: Path) -> ServedModel:
    """A decision's student.

    Raises:
        ModelError: the folder is damaged.
    """
    model = read_model(row.name, folder, CutoffChoice(row.training.get("cutoff")))
    return replace(
        model,
        reply_template=ReplyTemplate(**row.reply_template) if row.reply_template else model.reply_template,
        user_template=UserTemplate(**row.user_template) if row.user_template else UserTemplate(),
        system_prompt=row.prompt or model.system_prompt,
    )


def stored_monitor(active: ActiveDecision) -> Json:
    """The state of a decision's alarm, as it is stored."""
    monitor = active.monitor
    return {
        "outcomes": "".join("1" if one else "0" for one in monitor.outcomes),
        "limit": monitor.limit,
        "probation": monitor.probation,
        "score": monitor.score,
        "alarm": monitor.alarm,
        "answered": active.answered,
        "stamp": active.stamp,
        "new_alarm": active.new_alarm,
    }


def monitor_of(row: DecisionRow, limit: float) -> DriftMonitor:
    """The alarm of a decision as it was stored, else a new one for this limit."""
    stored = row.monitor
    if not stored:
        return DriftMonitor(limit)
    outcomes = [one == "1" for one in stored["outcomes"]]
    return DriftMonitor(stored["limit"], outcomes, stored["probation"], stored["score"], stored["alarm"])
