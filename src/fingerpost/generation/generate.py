"""Generates questions in rounds: plan, write, filter, label, measure.

A question is trusted if the teacher, who is not told the intended label, gives that label. If it gives another one, the
question is a border case: it is kept for review, and trained on only after a human has decided.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeVar

from fingerpost.core.errors import BudgetError, TeacherError
from fingerpost.core.text import shorten
from fingerpost.core.types import Progress, ProgressCallback, no_progress
from fingerpost.generation.estimate import MAX_REQUESTED_RATIO
from fingerpost.generation.judge import judge_replies
from fingerpost.generation.next_round import plan_next_round
from fingerpost.generation.plan import HardExample
from fingerpost.generation.requests import STEP, WritingRequests, writers_of
from fingerpost.generation.rounds import Embed, Round, RoundMeasurer
from fingerpost.generation.state import GenerationState
from fingerpost.labelling.requests import LabelRequests, LabelSelection, open_jobs
from fingerpost.llm.batch import run_requests_or_batch
from fingerpost.llm.requests import Jobs, RequestSpec, teacher_endpoint, teacher_of
from fingerpost.store.project import Store
from fingerpost.students.folder import dev_answers, read_manifest
from fingerpost.task.settings import Task, TeacherSettings

MAX_QUESTIONS = 2_000  # if no count is given
MIN_WANTED = 25  # for the limit of requested questions; in small runs the ratio of trusted ones varies widely
PATIENCE = 2  # rounds without progress, then a run ends
MIN_KEPT_RATIO = 0.1  # of a round's questions, else the writer repeats itself
MIN_CURVE_GAIN, MIN_GAP_DECREASE = 0.01, 0.02
HARD_EXAMPLE_CHARACTERS = 300  # that the writer is shown
UNSURE_CONFIDENCE = 0.6  # calibrated; below it the student is unsure

J = TypeVar("J")


@dataclass(slots=True)
class Generated:
    """The result of a run.

    Attributes:
        rounds: all rounds of the project so far, with those of earlier runs.
        reason: why the run ended, for humans.
        stopped: what stopped the run before it was done; empty if nothing did.
    """

    rounds: list[Round] = field(default_factory=list)
    reason: str = ""
    stopped: Literal["", "budget", "interrupted"] = ""

    @property
    def kept(self) -> int:
        """Number of questions that passed all filters."""
        return sum(result.kept for result in self.rounds)


def find_hard_examples(task: Task, store: Store, model: Path) -> list[HardExample]:
    """The dev questions that a student got wrong or was unsure of, least confident first.

    The answers are those that the student gave before the dev questions were added to its training data.

    Raises:
        ModelError: the folder is not a model folder.
    """
    read_manifest(model)
    texts = {
        question.id: shorten(question.messages[-1].content, HARD_EXAMPLE_CHARACTERS)
        for question in store.questions("dev")
    }
    answers = sorted(dev_answers(model), key=lambda answer: answer.confidence)
    return [
        HardExample(texts[answer.id], answer.label)
        for answer in answers
        if (answer.answer != answer.label or answer.confidence < UNSURE_CONFIDENCE)
        and answer.id in texts
        and answer.label in task.names
    ]


def generate(
    task: Task,
    store: Store,
    folder: Path,
    embed: Embed,
    *,
    count: int | None = None,
    hard_examples: Sequence[HardExample] = (),
    seed: int = 0,
    budget_usd: float | None = None,
    batch: bool = False,
    on_progress: ProgressCallback = no_progress,
) -> Generated:
    """Generate questions until the project has `count` trusted ones; without a count, until more bring no improvement.

    Plans, replies and outcomes are stored at once: after an interruption, the next call continues.

    Args:
        embed: unit vectors of questions, shape (questions, width).
        hard_examples: if given, `count` questions similar to these are generated.
        on_progress: gets the progress of the requests, with the step "generate" or "label", and for each completed
            round its `Round` as `data`.

    Raises:
        TaskError: the task has no teacher, or recorded answers stand in for it.
        TeacherError: a model is unusable, or none of its replies is usable.
        BudgetError: not even one request fits into the budget.
    """
    teacher, writers = teacher_of(task), writers_of(task)
    measurer, result, planned = RoundMeasurer(embed), Generated(), 0
    before: tuple[int, int] | None = None  # requested and trusted questions of earlier runs
    state = _read_state(task, store)
    with ExitStack() as stack:
        models = _Models(store, folder, stack, batch, budget_usd, on_progress)
        while True:
            for writer in writers:
                models.ask("writing", WritingRequests(task, state.drafts), state.open_drafts(writer.model), writer)
            kept = judge_replies(task, store, embed)
            unlabelled = open_jobs(task, store, LabelSelection(only=kept | state.intended.keys()))
            models.ask("labelling", LabelRequests(task), unlabelled.read(store), teacher, unlabelled.planned_at)
            state = _read_state(task, store)
            reported, result.rounds, result.stopped = len(result.rounds), measurer.rounds(state), models.stopped
            for ended in result.rounds[reported:]:
                on_progress(Progress(STEP, ended.summary(), cost_usd=models.cost_usd, data=ended))
            asked, trusted = state.tally(hard_examples)
            before = before or (asked, trusted)
            requested = asked - before[0] if planned else 0
            wanted = (count or MAX_QUESTIONS) - before[1]
            result.reason = result.stopped or _stop_reason(result.rounds, planned, requested, trusted, wanted, count)
            if result.reason:
                return result
            if not state.open_drafts():
                missing = (count or MAX_QUESTIONS) - trusted
                store.plan_drafts(plan_next_round(state, embed, missing, hard_examples, seed))
                state = state.with_drafts_of(store)
                planned += 1


def _read_state(task: Task, store: Store) -> GenerationState:
    """A new snapshot. Drafts that nobody will ask for any more are deleted."""
    state = GenerationState.read(task, store)
    if state.stale:
        store.drop_drafts(state.stale)
    return state


@dataclass(slots=True)
class _Models:
    """The models of one run. Each is started once; after the budget or the user has stopped the run, none is asked."""

    store: Store
    folder: Path
    stack: ExitStack
    batch: bool
    budget_usd: float | None
    on_progress: ProgressCallback
    stopped: Literal["", "budget", "interrupted"] = ""
    asked: bool = False
    cost_usd: float = 0.0
    endpoints: dict[str, TeacherSettings] = field(default_factory=dict)

    def ask(
        self,
        activity: str,
        spec: RequestSpec[J],
        jobs: Jobs[J],
        settings: TeacherSettings,
        planned_at: int | None = None,
    ) -> None:
        """Run these requests, unless the run was stopped.

        Raises:
            TeacherError: no request was answered.
            BudgetError: not even the first request of the run fits into the budget.
        """
        if self.stopped or not (len(jobs) or self.batch):
            return
        spent = self.cost_usd

        def report(progress: Progress) -> None:
            self.on_progress(replace(progress, cost_usd=spent + progress.cost_usd))

        try:
            done = run_requests_or_batch(
                spec,
                jobs,
                self.store,
                self._endpoint(settings),
                self.folder,
                planned_at=planned_at,
                batch=self.batch,
                budget_usd=self.budget_usd,
                on_progress=report,
            )
        except BudgetError:
            if not self.asked:
                raise
            self.stopped = "budget"
            return
        self.cost_usd += done.cost_usd
        self.asked = self.asked or done.done > 0
        if len(jobs) and not done.done + done.elsewhere and not done.stopped:
            raise TeacherError(f"none of {len(jobs):,} requests for {activity} was answered; run the command again")
        self.stopped = done.stopped

    def _endpoint(self, settings: TeacherSettings) -> TeacherSettings:
        key = str((settings.model, settings.base_url, settings.gguf))
        if key not in self.endpoints:
            self.endpoints[key] = self.stack.enter_context(teacher_endpoint(settings, self.folder))
        started = self.endpoints[key]
        return settings.model_copy(update={"base_url": started.base_url, "concurrency": started.concurrency})


def _stop_reason(
    rounds: Sequence[Round], planned: int, requested: int, trusted: int, wanted: int, count: int | None
) -> str:
    """Why no further round is needed, for humans; empty if one is needed.

    Args:
        planned, requested, wanted: rounds planned, questions requested and questions wanted by this run alone: failures
            of earlier runs are no reason to stop.
        trusted: trusted questions of all runs.
    """
    if trusted >= (count or MAX_QUESTIONS):
        return f"there are {trusted:,} trusted questions" + ("" if count else ", the maximum without --count")
    if requested >= MAX_REQUESTED_RATIO * max(wanted, MIN_WANTED):
        return f"{requested:,} questions were requested, but only {trusted:,} are trusted"
    if planned > PATIENCE and all(result.kept < MIN_KEPT_RATIO * result.asked for result in rounds[-PATIENCE:]):
        return "the writer repeats itself: hardly any text of the last rounds was kept"
    if count is not None or len(rounds) <= PATIENCE:
        return ""
    gaps = [result.gap for result in rounds]
    if all(gap is not None for gap in gaps[-PATIENCE - 1 :]):
        values = [gap.value for gap in gaps if gap is not None]
        if min(values[-PATIENCE:]) > min(values[:-PATIENCE]) - MIN_GAP_DECREASE:
            return f"the synthetic gap no longer shrinks (it is {values[-1]:.2f})"
        return ""
    curves = [result.curve for result in rounds[-PATIENCE:]]
    if all(curve is not None and curve.gain < MIN_CURVE_GAIN for curve in curves):
        return "the learning curve no longer rises: doubling the questions adds less than one point of accuracy"
    return ""
