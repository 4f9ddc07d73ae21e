"""From replies to questions: what a writer wrote is filtered, and what passes is stored."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fingerpost.core.languages import LANGUAGES
from fingerpost.core.text import question_id
from fingerpost.core.types import Conversation, Verdict
from fingerpost.data.splits import NewQuestion, assign_in_store
from fingerpost.generation.brief import OUT_OF_SCOPE, Brief, Item
from fingerpost.generation.filters import KEPT, NoveltyFilter, find_fault
from fingerpost.generation.prompts import count_surplus, read_conversations
from fingerpost.generation.requests import SOURCE, STEP
from fingerpost.generation.state import expected_language
from fingerpost.store.project import Draft, Store
from fingerpost.task.settings import Task

if TYPE_CHECKING:
    from fingerpost.generation.rounds import Embed


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A text without a fault of its own: the answer to item `number` of the draft."""

    draft: Draft
    number: int
    item: Item
    messages: Conversation


def judge_replies(task: Task, store: Store, embed: Embed) -> set[str]:
    """Filter the replies that were not judged yet. Outcomes, questions and verdicts are stored in one transaction.

    The stored questions are read here, not taken from a snapshot: a batch can take a day, and an import in the meantime
    may have added test questions.

    Returns:
        The ids of the questions that were kept.
    """
    drafts = [draft for draft in store.drafts() if draft.answered and draft.outcomes is None]
    if not drafts:
        return set()
    stored = store.questions()
    usual_language = expected_language(task, stored)
    outcomes: dict[int, Counter[str]] = {draft.id: Counter() for draft in drafts}
    candidates: list[_Candidate] = []
    for draft in drafts:
        candidates += _candidates(task, draft, usual_language, outcomes[draft.id])
    novelty = NoveltyFilter(stored, embed).admit([candidate.messages for candidate in candidates])
    kept: dict[str, NewQuestion] = {}
    verdicts: list[Verdict] = []
    for candidate, outcome in zip(candidates, novelty, strict=True):
        draft = candidate.draft
        outcomes[draft.id][outcome] += 1
        if outcome == KEPT:
            key, label = question_id(candidate.messages), candidate.item.label
            kept[key] = NewQuestion(key, candidate.messages, SOURCE, None)
            verdicts.append(Verdict(key, "writer", draft.model, label, STEP, draft=draft.id, item=candidate.number))
    with store.split_lock():
        placed, sketches = assign_in_store(store, list(kept.values()), task.split)
        store.finish_drafts({draft: dict(+counts) for draft, counts in outcomes.items()}, placed, verdicts, sketches)
    return set(kept)


def _candidates(task: Task, draft: Draft, usual_language: str, outcomes: Counter[str]) -> list[_Candidate]:
    """The reply's texts that have no fault of their own; the others are counted in `outcomes`."""
    brief = Brief.from_json(draft.brief)
    if brief.form == OUT_OF_SCOPE:
        return []
    conversations = read_conversations(brief, draft.raw)
    outcomes["no reply"] += len(brief.items) - len(conversations)
    outcomes["surplus"] += count_surplus(brief, draft.raw)
    language = next((code for code, name in LANGUAGES.items() if name == brief.language), usual_language)
    found = []
    for number, messages in conversations.items():
        item = brief.items[number]
        fault = find_fault(task, item, messages, language) if item.label in task.names else "no label"
        if fault:
            outcomes[fault] += 1
        else:
            found.append(_Candidate(draft, number, item, messages))
    return found
