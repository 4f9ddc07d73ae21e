"""Plans the questions of a round: label, kind, style, persona, length and opening words are drawn before any request.

A model that is asked for "common questions" repeats itself; one that is told the attributes of each question does not
(Yu et al. 2023, "Large Language Model as Attributed Training Data Generator"). One request names several labels,
often similar ones, so that the writer keeps them apart. All draws depend on a seed: changing their order changes every
plan.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fingerpost.generation.brief import Brief, Form, Item, has_informative_name
from fingerpost.generation.styles import (
    LENGTHS,
    LIKE_USERS,
    PERSONAS,
    SITUATIONS,
    STYLES,
    UNRELATED_TOPICS,
    Style,
)
from fingerpost.task.settings import Task

PER_CALL: Mapping[Form, int] = {"messages": 5, "wordings": 6, "follow_ups": 3}
FORM_RATIOS: Mapping[Form, float] = {"messages": 0.62, "wordings": 0.32, "follow_ups": 0.06}
"""By form: the number of questions in a request, and the ratio of requests."""
FALLBACK_WEIGHT = 4.0  # messages per message of another label: out of scope is broader than any label
BORDER_RATIO = 0.1  # of questions
NEAREST_RATIO = 0.5  # of requests: names a label together with the nearest ones
NAMED_RATIO = 0.3  # of questions for labels with an informative name
NEAR_RATIO = 0.5  # of out-of-scope questions; the others are unrelated to the assistant
OPENING_RATIO = 0.2  # of messages; openings make them less alike, and less typical of the label
PERSONA_RATIO, SITUATION_RATIO, LIKE_USERS_RATIO, USERS_OPENING_RATIO = 0.2, 0.15, 0.5, 0.5
SAMPLES = 4
REQUESTED_PER_TRUSTED = (
    3.0  # so many requested questions count as a trusted one: a hopeless label is left at some point
)


@dataclass(frozen=True, slots=True)
class HardExample:
    """A question that the student gets wrong or is unsure of, and its correct label."""

    text: str
    label: str


@dataclass(frozen=True, slots=True)
class PlanContext:
    """What a plan depends on, besides the task.

    Attributes:
        trusted, asked: number of trusted and of requested questions, by form and label.
        nearest: the most similar labels of each label, nearest first.
        out_of_scope: topics close to the assistant's that no label covers.
        user_texts: messages by users.
        style_weights: factor on each style's weight, by the style's instruction; 1 if missing.
        languages: names of languages, such as "German"; empty for the writer's choice.
    """

    trusted: Mapping[tuple[Form, str], int] = field(default_factory=dict)
    asked: Mapping[tuple[Form, str], int] = field(default_factory=dict)
    nearest: Mapping[str, Sequence[str]] = field(default_factory=dict)
    out_of_scope: Sequence[str] = ()
    user_texts: Sequence[str] = ()
    style_weights: Mapping[str, float] = field(default_factory=dict)
    languages: Sequence[str] = ()


def plan_round(task: Task, context: PlanContext, count: int, seed: str) -> list[Brief]:
    """Briefs for `count` questions or slightly more. In each form, the labels with the fewest questions come first.

    The same seed and context give the same plan.
    """
    draw = random.Random(f"{task.name}/{seed}")
    have: dict[Form, dict[str, float]] = {
        form: {
            name: max(context.trusted.get((form, name), 0), context.asked.get((form, name), 0) / REQUESTED_PER_TRUSTED)
            for name in task.names
        }
        for form in FORM_RATIOS
    }
    briefs: list[Brief] = []
    while sum(len(brief.items) for brief in briefs) < count:
        form = draw.choices(list(FORM_RATIOS), list(FORM_RATIOS.values()))[0]
        if form == "wordings":
            briefs.append(_wordings_brief(task, context, have[form], draw))
        else:
            labels = _draw_labels(task, context, have[form], PER_CALL[form], draw)
            items = [_draw_item(task, label, context, draw) for label in labels]
            briefs.append(_brief(task, form, items, context, draw))
    return briefs


def plan_hard_examples(
    task: Task, examples: Sequence[HardExample], context: PlanContext, count: int, seed: str
) -> list[Brief]:
    """Briefs for `count` questions similar to these examples, each of which is used equally often."""
    draw = random.Random(f"{task.name}/errors/{seed}")
    order = draw.sample(list(examples), len(examples))
    used = [order[i % len(order)] for i in range(count)] if order else []
    items = [Item("error", example.label, about=example.text) for example in used]
    size = PER_CALL["messages"]
    return [_brief(task, "messages", items[i : i + size], context, draw) for i in range(0, len(items), size)]


def _wordings_brief(task: Task, context: PlanContext, have: dict[str, float], draw: random.Random) -> Brief:
    """One label in the words of several users. Without samples of users' messages, no style is prescribed."""
    label = _draw_rarest([name for name in task.names if name != task.fallback], task, have, draw)
    count = PER_CALL["wordings"]
    have[label] += count / REQUESTED_PER_TRUSTED
    samples = _draw_samples(context, draw) if draw.random() < LIKE_USERS_RATIO else ()
    style = LIKE_USERS.instruction if samples else ""
    items = (_draw_plain_item(task, label, draw),) * count
    return Brief("wordings", items, style, "", _draw_language(context, draw), samples)


def _draw_labels(
    task: Task, context: PlanContext, have: dict[str, float], count: int, draw: random.Random
) -> list[str]:
    """The labels of one request: those with the fewest questions, and in some requests the first one's nearest."""
    labels: list[str] = []

    def take(label: str) -> None:
        labels.append(label)
        have[label] += 1 / REQUESTED_PER_TRUSTED

    def unused() -> list[str]:
        return [name for name in task.names if name not in labels] or task.names

    take(_draw_rarest(unused(), task, have, draw))
    if draw.random() < NEAREST_RATIO:
        for name in context.nearest.get(labels[0], ())[: count - 1]:
            take(name)
    while len(labels) < count:
        take(_draw_rarest(unused(), task, have, draw))
    return draw.sample(labels, count)


def _draw_rarest(names: Sequence[str], task: Task, have: Mapping[str, float], draw: random.Random) -> str:
    """One of the labels with the fewest questions, relative to their weight."""
    counts = {name: have[name] / (FALLBACK_WEIGHT if name == task.fallback else 1.0) for name in names}
    least = min(counts.values())
    return draw.choice([name for name in names if counts[name] <= least])


def _draw_item(task: Task, label: str, context: PlanContext, draw: random.Random) -> Item:
    if label == task.fallback:
        if context.out_of_scope and draw.random() < NEAR_RATIO:
            return Item("near", label, about=draw.choice(context.out_of_scope))
        return Item("far", label, about=draw.choice(UNRELATED_TOPICS))
    others = [name for name in context.nearest.get(label, ()) if name not in (task.fallback, label)]
    if others and draw.random() < BORDER_RATIO:
        return Item("border", label, about=draw.choice(others))
    return _draw_plain_item(task, label, draw)


def _draw_plain_item(task: Task, name: str, draw: random.Random) -> Item:
    informative = any(label.name == name and has_informative_name(label) for label in task.labels)
    return Item("named" if informative and draw.random() < NAMED_RATIO else "plain", name)


def _brief(task: Task, form: Form, items: Sequence[Item], context: PlanContext, draw: random.Random) -> Brief:
    """The items with their openings, and what they have in common."""
    style = _draw_style(context, draw)
    openings = _draw_openings(style, context, len(items), draw)
    persona = draw.choice(task.generate.personas or PERSONAS) if draw.random() < PERSONA_RATIO else ""
    situation = draw.choice(SITUATIONS) if draw.random() < SITUATION_RATIO else ""
    samples = _draw_samples(context, draw) if style is LIKE_USERS else ()
    length = "" if samples else draw.choices([text for text, _ in LENGTHS], [weight for _, weight in LENGTHS])[0]
    return Brief(
        form,
        tuple(Item(item.kind, item.label, opening, item.about) for item, opening in zip(items, openings, strict=True)),
        style.instruction + length,
        ", ".join(part for part in (persona, situation) if part),
        _draw_language(context, draw),
        samples,
    )


def _draw_samples(context: PlanContext, draw: random.Random) -> tuple[str, ...]:
    return tuple(draw.sample(list(context.user_texts), min(SAMPLES, len(context.user_texts))))


def _draw_language(context: PlanContext, draw: random.Random) -> str:
    return draw.choice(list(context.languages)) if context.languages else ""


def _draw_style(context: PlanContext, draw: random.Random) -> Style:
    if context.user_texts and draw.random() < LIKE_USERS_RATIO:
        return LIKE_USERS
    weights = [style.weight * context.style_weights.get(style.instruction, 1.0) for style in STYLES]
    return draw.choices(STYLES, weights)[0]


def _draw_openings(style: Style, context: PlanContext, count: int, draw: random.Random) -> tuple[str, ...]:
    """First words, taken from users' messages or from the style. The styles' openings are English only."""
    if context.languages and list(context.languages) != ["English"]:
        return ("",) * count
    if context.user_texts and (style is LIKE_USERS or draw.random() < USERS_OPENING_RATIO):
        texts = draw.choices(list(context.user_texts), k=count)
        return tuple(" ".join(text.split()[: draw.choice((0, 1, 1, 2))]) for text in texts)
    pool = list(style.openings) * (1 + count // len(style.openings))
    return tuple(opening if draw.random() < OPENING_RATIO else "" for opening in draw.sample(pool, count))
