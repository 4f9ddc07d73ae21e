"""Better descriptions for labels that the teacher misreads: written by the teacher, from what people confirmed."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from fingerpost.errors import BudgetError, TaskError, TeacherError
from fingerpost.llm import gguf, prices
from fingerpost.llm.chat import ChatModel, Lost
from fingerpost.opinions import fits_none, known, shares
from fingerpost.prompt.writing import DESCRIPTION_SCHEMA, describe, parse_description
from fingerpost.store import Call, Settlement, Store
from fingerpost.text import preview
from fingerpost.types import Label, Task, Usage

STEP = "define"
OFTEN = 3  # a confusion seen so often is a misreading, not a slip
EXAMPLES = 8
REPLY_TOKENS = 200


@dataclass(frozen=True, slots=True)
class Misread:
    """A label that the teacher misreads: texts confirmed to be of it, and (text, other label) of both mistakes.

    `missed` are of this label and the teacher said the other; `mistaken` the teacher gave this label, they are of the
    other.
    """

    label: Label
    confirmed: tuple[str, ...]
    missed: tuple[tuple[str, str], ...]
    mistaken: tuple[tuple[str, str], ...]

    @property
    def messages(self) -> list[dict[str, str]]:
        """What the teacher is asked."""
        return describe(self.label, self.confirmed[:EXAMPLES], self.missed[:EXAMPLES], self.mistaken[:EXAMPLES])


@dataclass(frozen=True, slots=True)
class Proposal:
    """A description to replace a label's own; None where the teacher's reply had none."""

    label: Label
    description: str | None


def misread(task: Task, store: Store) -> list[Misread]:
    """The labels that the teacher confused with one other at least OFTEN times, by people's verdicts; worst first.

    Test questions are left out: a description that has seen them could not be measured on them.
    """
    verdicts = store.verdicts()
    name = task.teacher.model if task.teacher else None
    confirmed: dict[str, list[str]] = defaultdict(list)
    confused: dict[tuple[str, str], list[str]] = defaultdict(list)
    for question in store.questions("train", "dev"):
        mine = known(verdicts.get(question.id, []), task.names)
        person, teacher = shares(mine, "human"), shares(mine, "teacher", name)
        if person is None or fits_none(mine):
            continue
        right = max(person, key=person.__getitem__)
        text = preview(question.messages[-1].content, 300)
        confirmed[right].append(text)
        if teacher and (said := max(teacher, key=teacher.__getitem__)) != right:
            confused[right, said].append(text)
    often = {pair: texts for pair, texts in confused.items() if len(texts) >= OFTEN}
    found = []
    for label in task.labels:
        missed = tuple((text, said) for (right, said), texts in often.items() if right == label.name for text in texts)
        mistaken = tuple(
            (text, right) for (right, said), texts in often.items() if said == label.name for text in texts
        )
        if missed or mistaken:
            found.append(Misread(label, tuple(confirmed[label.name]), missed, mistaken))
    return sorted(found, key=lambda each: -len(each.missed) - len(each.mistaken))


def at_most_usd(task: Task, found: list[Misread]) -> float:
    """The most that asking for descriptions can cost, in US dollars."""
    return sum(call.at_most_usd for call in _calls(task, found))


def propose(
    task: Task, store: Store, found: list[Misread], folder: Path, *, budget_usd: float | None = None
) -> list[Proposal]:
    """Ask the teacher for a description of each label.

    Raises:
        TaskError: the task has no teacher.
        TeacherError: it cannot be used.
        BudgetError: the budget does not reach.
    """
    if task.teacher is None:
        raise TaskError('the task has no teacher: add to task.toml a table [teacher] with a line model = "..."')
    committed = store.ledger.account().committed_usd
    if budget_usd is not None and committed + at_most_usd(task, found) > budget_usd:
        raise BudgetError(
            f"nothing was asked: {len(found)} descriptions can cost up to ${at_most_usd(task, found):.4f}, and of the "
            f"budget of ${budget_usd:g} for this project not so much is left; see 'fingerpost status', raise --budget"
        )
    teacher = task.teacher.model_copy(update={"max_tokens": REPLY_TOKENS})
    with ExitStack() as stack:
        if teacher.gguf and not teacher.recorded:
            url = stack.enter_context(gguf.serving(folder / Path(teacher.gguf).expanduser()))
            teacher = teacher.model_copy(update={"base_url": url})

        async def work() -> list[Proposal]:
            async with ChatModel(teacher, folder) as model:
                return [
                    await _one(model, store, call, each, budget_usd)
                    for call, each in zip(_calls(task, found), found, strict=True)
                ]

        return asyncio.run(work())


async def _one(model: ChatModel, store: Store, call: Call, each: Misread, budget_usd: float | None) -> Proposal:
    (call_id,) = store.ledger.book([], [call], budget_usd)
    if call_id is None:
        raise BudgetError(
            f"a description can cost up to ${call.at_most_usd:.4f}, and of the budget of ${budget_usd:g} for this "
            "project not so much is left; see 'fingerpost status', raise --budget"
        )
    try:
        reply = await model.ask(each.messages, DESCRIPTION_SCHEMA)
    except Lost:
        store.ledger.book([Settlement(call_id, "lost")], [], budget_usd)
        return Proposal(each.label, None)
    except TeacherError:
        store.ledger.book([Settlement(call_id, "unsent")], [], budget_usd)
        raise
    cost = call.at_most_usd if reply.usage.prompt is None else prices.cost(model.settings, reply.usage)
    usage: Usage = replace(reply.usage, cost_usd=0.0 if reply.rejected else cost)
    store.ledger.book([Settlement(call_id, "paid", usage)], [], budget_usd)
    return Proposal(each.label, parse_description(reply.text))


def _calls(task: Task, found: list[Misread]) -> list[Call]:
    if task.teacher is None:
        return []
    teacher = task.teacher.model_copy(update={"max_tokens": REPLY_TOKENS})
    sizes = [sum(len(each["content"].encode()) + 64 for each in one.messages) for one in found]
    return [Call(STEP, teacher.model, prices.at_most(teacher, size)) for size in sizes]
