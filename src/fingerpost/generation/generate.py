"""The teacher writes questions: planned, asked for, sifted, labelled blind, and measured, round after round.

A question is trusted where the teacher, asked blind, gives the label that it was written for. Where it does not, the
question is a border case: kept for review, and learnt from only when a person has decided.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from fingerpost.core.errors import BudgetError, TaskError, TeacherError
from fingerpost.core.text import fingerprint, shorten
from fingerpost.core.types import Message, Question, Usage
from fingerpost.generation.brief import Brief, meaning
from fingerpost.generation.plan import Error, Known, plan_round
from fingerpost.generation.prompts import write, written_schema
from fingerpost.generation.requests import WritingRequests
from fingerpost.generation.rounds import WRITER, Desk, Embed, Round
from fingerpost.labelling.requests import LabelJob, LabelRequests, LabelSelection, open_jobs
from fingerpost.llm import prices
from fingerpost.llm.batch import Say, run_requests_or_batch
from fingerpost.llm.requests import BYTES_PER_TOKEN, RequestSpec, RunProgress, size, teacher_endpoint, teacher_of
from fingerpost.store.project import Store
from fingerpost.students.folder import dev_answers, read_manifest
from fingerpost.task.settings import Task, TeacherSettings

REPLY_TOKENS, TEXT_TOKENS = 600, 30  # of one call at most, of one question about
TRUSTED_OF_ASKED = 0.7  # for the estimate
MOST_ASKED, FEW = 4, 25  # times the questions wanted, and no fewer: then too few are trusted
MOST = 2_000  # questions, where no count is given
PATIENCE = 2  # rounds without progress
GAIN, SHRINKS = 0.01, 0.02
ERROR_WIDTH = 300  # characters of a question that the writer is shown
UNSURE = 0.6  # a calibrated confidence below which the student is unsure

J = TypeVar("J")


@dataclass(slots=True)
class Generated:
    """What there is now, round by round; `why` it ended, `stopped` where that was before its time."""

    rounds: list[Round] = field(default_factory=list)
    why: str = ""
    stopped: Literal["", "budget", "interrupted"] = ""

    @property
    def kept(self) -> int:
        return sum(each.kept for each in self.rounds)


@dataclass(frozen=True, slots=True)
class Estimate:
    """About what `count` questions take, and what they cost at most, in US dollars, with briefs of usual length."""

    calls: int
    about_usd: float
    at_most_usd: float


def errors_of(task: Task, store: Store, model: Path) -> list[Error]:
    """The dev questions that a student got wrong or was unsure of before it learnt them, the least sure first.

    Raises:
        ModelError: the folder is no model.
    """
    read_manifest(model)
    texts = {each.id: shorten(each.messages[-1].content, ERROR_WIDTH) for each in store.questions("dev")}
    poor = [each for each in dev_answers(model) if each.answer != each.label or each.confidence < UNSURE]
    names = set(task.names)
    return [
        Error(texts[each.id], each.label)
        for each in sorted(poor, key=lambda each: each.confidence)
        if each.id in texts and each.label in names
    ]


def writers_of(task: Task) -> list[TeacherSettings]:
    """The models that write: the task's own writers, else its teacher.

    Raises:
        TaskError: there is no teacher, or its answers are only played back.
    """
    writers = task.generate.writers or (teacher_of(task),)
    if any(each.recorded for each in (teacher_of(task), *writers)):
        raise TaskError(
            "the teacher's answers are played back from a file, which holds none to new questions: "
            "take 'recorded' out of [teacher] in task.toml"
        )
    return [each.model_copy(update={"max_tokens": max(REPLY_TOKENS, each.max_tokens)}) for each in writers]


def estimate(task: Task, count: int, *, batch: bool = False) -> Estimate:
    """What writing and labelling so many questions takes.

    Raises:
        TaskError: the task has no teacher.
        TeacherError: no price is known.
    """
    teacher, writers = teacher_of(task), writers_of(task)
    briefs = plan_round(task, Known(), math.ceil(count / TRUSTED_OF_ASKED), "estimate")
    calls = len(briefs) + 1
    texts = sum(len(brief.items) for brief in briefs) / len(briefs)
    sizes = [size(write(task, brief), written_schema(brief)) for brief in briefs]
    ask = LabelRequests(task).request(LabelJob(Question("", (Message("user", "x" * 80),), "", "", "train"), 0))
    call = Usage(prompt=round(sum(sizes) / len(briefs) / BYTES_PER_TOKEN), completion=round(TEXT_TOKENS * texts))
    about = at_most = 0.0
    for writer in writers:
        share = (writer.batch_price if batch else 1.0) * calls / len(writers)
        about += share * prices.cost(writer, call)
        at_most += share * MOST_ASKED * prices.at_most(writer, 2 * max(sizes))
    share = teacher.batch_price if batch else 1.0
    tokens = round(size(*ask) / BYTES_PER_TOKEN)
    about += share * count / TRUSTED_OF_ASKED * prices.cost(teacher, Usage(prompt=tokens, cached=0, completion=10))
    at_most += share * MOST_ASKED * count * prices.at_most(teacher, size(*ask) + 600)
    return Estimate(calls, about, at_most)


def open_questions(task: Task, store: Store) -> int:
    """How many questions of earlier runs are still to be written or labelled: these are asked first."""
    unwritten = sum(len(Brief.of_json(each.brief).items) for each in store.drafts() if not each.answered)
    written = {key for key, found in store.verdicts().items() if any(each.kind == WRITER for each in found)}
    return unwritten + len(open_jobs(task, store, LabelSelection(only=written)))


def generate(
    task: Task,
    store: Store,
    folder: Path,
    embed: Embed,
    *,
    count: int | None = None,
    errors: Sequence[Error] = (),
    seed: int = 0,
    budget_usd: float | None = None,
    batch: bool = False,
    on_progress: Callable[[str, RunProgress], None] = lambda _what, _progress: None,
    on_round: Callable[[Round], None] = lambda _: None,
    show: Say = lambda _: None,
) -> Generated:
    """Go on until `count` written questions of the project can be learnt from; without it, until more bring nothing.

    With `errors`, `count` more like these are written. `embed` gives unit vectors of questions, (questions, width).
    What is planned, answered and judged is stored at once: started again, it goes on where it was.

    Raises:
        TaskError: the task has no teacher.
        TeacherError: a model cannot be used, or none of its replies is of use.
        BudgetError: not even one request fits into the budget.
    """
    teacher, writers = teacher_of(task), writers_of(task)
    mark = fingerprint([task.name, task.generate.about, *(f"{each.name}: {meaning(each)}" for each in task.labels)])
    desk = Desk(task, store, embed, mark, teacher.model, [each.model for each in writers])
    result, planned = Generated(), 0
    before: tuple[int, int] | None = None  # questions asked for and trusted before this run
    with ExitStack() as stack:
        models = _Models(store, folder, stack, batch, budget_usd, on_progress, show)
        while True:
            for writer in writers:
                models.ask("writing", WritingRequests(task, desk.drafts()), desk.open_drafts(writer.model), writer)
            desk.judge()
            models.ask(
                "labelling", LabelRequests(task), open_jobs(task, store, LabelSelection(only=desk.written())), teacher
            )
            told, result.rounds, result.stopped = len(result.rounds), desk.rounds(), models.stopped
            for each in result.rounds[told:]:
                on_round(each)
            asked, good = desk.tally(errors)
            before = before or (asked, good)
            tried = asked - before[0] if planned else 0
            result.why = result.stopped or _why(result.rounds, planned, tried, good, (count or MOST) - before[1], count)
            if result.why:
                return result
            if not any(desk.open_drafts(each.model) for each in writers):
                desk.plan((count or MOST) - good, errors, seed)
                planned += 1


@dataclass(slots=True)
class _Models:
    """The models of one run: each is served once, and asked until the budget or the user says stop."""

    store: Store
    folder: Path
    stack: ExitStack
    batch: bool
    budget_usd: float | None
    on_progress: Callable[[str, RunProgress], None]
    show: Say
    stopped: Literal["", "budget", "interrupted"] = ""
    spent: bool = False
    served: dict[str, TeacherSettings] = field(default_factory=dict)

    def ask(self, what: str, work: RequestSpec[J], jobs: Sequence[J], settings: TeacherSettings) -> None:
        """Ask all of these, if nothing has said stop.

        Raises:
            TeacherError: none was answered.
            BudgetError: not even the first request of the run fits into the budget.
        """
        if self.stopped or not (jobs or self.batch):
            return
        try:
            done = run_requests_or_batch(
                work,
                jobs,
                self.store,
                self._ready(settings),
                self.folder,
                batch=self.batch,
                budget_usd=self.budget_usd,
                on_progress=lambda progress: self.on_progress(what, progress),
                show=self.show,
            )
        except BudgetError:
            if not self.spent:
                raise
            self.stopped = "budget"
            return
        self.spent = self.spent or done.done > 0
        if jobs and not done.done and not done.stopped:
            raise TeacherError(f"none of {len(jobs):,} requests for {what} was answered; run the command again")
        self.stopped = done.stopped

    def _ready(self, settings: TeacherSettings) -> TeacherSettings:
        key = str((settings.model, settings.base_url, settings.gguf))
        if key not in self.served:
            self.served[key] = self.stack.enter_context(teacher_endpoint(settings, self.folder))
        there = self.served[key]
        return settings.model_copy(update={"base_url": there.base_url, "concurrency": there.concurrency})


def _why(rounds: Sequence[Round], planned: int, tried: int, good: int, wanted: int, count: int | None) -> str:
    """Why no further round is needed; empty where one is.

    `planned` rounds, `tried` questions and `wanted` ones are those of this run: an earlier failure is no reason.
    """
    if good >= (count or MOST):
        return f"there are {good:,} questions to learn from" + ("" if count else ", the most without --count")
    if tried >= MOST_ASKED * max(wanted, FEW):
        return f"{tried:,} questions were asked for, and there are only {good:,} to learn from"
    if planned > PATIENCE and all(each.kept < 0.1 * each.asked for each in rounds[-PATIENCE:]):
        return "the writer repeats itself: of the last rounds hardly anything is kept"
    if count is not None or len(rounds) <= PATIENCE:
        return ""
    gaps = [each.gap for each in rounds]
    if all(gap is not None for gap in gaps[-PATIENCE - 1 :]):
        values = [gap.value for gap in gaps if gap is not None]
        if min(values[-PATIENCE:]) > min(values[:-PATIENCE]) - SHRINKS:
            return f"the synthetic gap no longer shrinks (it is {values[-1]:.2f})"
        return ""
    curves = [each.curve for each in rounds[-PATIENCE:]]
    if all(curve is not None and curve.gain < GAIN for curve in curves):
        return "the learning curve no longer rises: twice as many questions teach less than a point more"
    return ""
