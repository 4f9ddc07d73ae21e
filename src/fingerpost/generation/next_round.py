"""The drafts of the next round, by what the rounds before have brought."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from fingerpost.core.languages import LANGUAGES
from fingerpost.core.text import question_id
from fingerpost.core.types import Message, Question
from fingerpost.generation.brief import OUT_OF_SCOPE, Brief, label_description
from fingerpost.generation.plan import HardExample, PlanContext, plan_hard_examples, plan_round
from fingerpost.generation.prompts import read_out_of_scope_topics
from fingerpost.generation.requests import writers_of
from fingerpost.generation.rounds import Embed, style_weights
from fingerpost.generation.state import GenerationState, task_fingerprint
from fingerpost.store.project import Draft
from fingerpost.task.settings import Task

ROUND_SIZE = 120  # questions; more if that is below ROUND_SIZE_PER_LABEL for each label
ROUND_SIZE_PER_LABEL = 5
MIN_TRUSTED_RATIO = 0.2  # no round is planned for a lower yield
MAX_TOPIC_QUESTIONS = 3  # without a single trusted one; then the topic is dropped
NEAREST_LABELS = 2


def plan_next_round(
    state: GenerationState, embed: Embed, missing: int, hard_examples: Sequence[HardExample], seed: int
) -> list[Draft]:
    """Drafts for about `missing` more trusted questions, to be stored. The same state and seed give the same drafts.

    If the task has a fallback label, the first plan only asks each writer for out-of-scope topics.

    Args:
        hard_examples: if given, all questions are to be similar to these.
    """
    task, writers = state.task, [writer.model for writer in writers_of(state.task)]
    needs_topics = bool(task.fallback) and not hard_examples
    if needs_topics and not any(brief.form == OUT_OF_SCOPE for brief in state.briefs.values()):
        number, briefs = 0, [Brief(OUT_OF_SCOPE, ()) for _ in writers]
    else:
        number = 1 + max((draft.round for draft in state.drafts), default=0)
        asked, trusted = state.tally(hard_examples)
        ratio = max(MIN_TRUSTED_RATIO, trusted / asked) if asked else 1.0
        count = min(math.ceil(missing / ratio), max(ROUND_SIZE, ROUND_SIZE_PER_LABEL * len(task.labels)))
        context = _plan_context(state, embed)
        if hard_examples:
            briefs = plan_hard_examples(task, hard_examples, context, count, f"{seed}/{number}")
        else:
            briefs = plan_round(task, context, count, f"{seed}/{number}")
        if needs_topics:
            briefs = [*briefs, Brief(OUT_OF_SCOPE, ())]  # for the round after this one
    mark = task_fingerprint(task)
    # Requests of one form share their few-shot examples: in sequence they keep the prompt cache warm.
    return [
        Draft(0, number, brief.to_json(), mark, writers[place % len(writers)])
        for place, brief in enumerate(sorted(briefs, key=lambda brief: brief.form))
    ]


def _plan_context(state: GenerationState, embed: Embed) -> PlanContext:
    trusted = [state.intended[key] for key in state.trusted]
    forms = {draft: brief.form for draft, brief in state.briefs.items()}
    languages = [LANGUAGES[code] for code in state.task.generate.languages]
    if not languages and state.language not in ("", "en"):
        languages = [LANGUAGES[state.language]]
    return PlanContext(
        trusted=Counter((forms.get(verdict.draft or 0, "messages"), str(verdict.label)) for verdict in trusted),
        asked=Counter((brief.form, item.label) for brief in state.briefs.values() for item in brief.items),
        nearest=_nearest_labels(state.task, embed),
        out_of_scope=_out_of_scope_topics(state),
        user_texts=state.user_texts,
        style_weights=style_weights(state, embed),
        languages=languages,
    )


def _out_of_scope_topics(state: GenerationState) -> list[str]:
    """The topics that writers named, without those that seem to be in scope: no question about them is trusted."""
    trusted = {(state.intended[key].draft, state.intended[key].item) for key in state.trusted}
    asked: Counter[str] = Counter()
    confirmed: set[str] = set()
    for draft, brief in state.briefs.items():
        for number, item in enumerate(brief.items):
            if item.kind == "near":
                asked[item.about] += 1
                if (draft, number) in trusted:
                    confirmed.add(item.about)
    replies = (draft.raw for draft in state.drafts if state.briefs[draft.id].form == OUT_OF_SCOPE)
    topics = dict.fromkeys(topic for raw in replies for topic in read_out_of_scope_topics(raw))
    return [topic for topic in topics if topic in confirmed or asked[topic] < MAX_TOPIC_QUESTIONS]


def _nearest_labels(task: Task, embed: Embed) -> dict[str, list[str]]:
    """The labels whose descriptions are most similar to each label's, by cosine of the vectors."""
    texts = [(Message("user", label_description(label)),) for label in task.labels]
    vectors = embed([Question(question_id(messages), messages, "", "", "train") for messages in texts])
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)
    names = task.names
    return {name: [names[j] for j in np.argsort(-cosines[i])[:NEAREST_LABELS]] for i, name in enumerate(names)}
