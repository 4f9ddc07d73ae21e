"""Which questions are to be written: planned before they are asked for, every draw by a seed.

What is drawn is the label, the kind of question, the style, who writes, the first words and the subject of each: a
model that is merely asked for "common questions" repeats itself, one that is told how each begins and what it is about
does not (attributes as in Yu et al. 2023, "Large Language Model as Attributed Training Data Generator").
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fingerpost.prompt.styles import FAR, LIKE_THEM, PERSONAS, STYLES, Style
from fingerpost.prompt.writing import TOPICS, Brief, Kind
from fingerpost.types import Task

PER_CALL, FOLLOW_UPS_PER_CALL, ERRORS_PER_CALL = 5, 3, 3
FALLBACK_SHARE = 2.0  # what belongs nowhere is wider than any label
KINDS: tuple[tuple[Kind, float], ...] = (("plain", 0.82), ("border", 0.12), ("follow_up", 0.06))
NEAR = 0.6  # of the out-of-scope questions; the others are far from what the assistant is for
WITH_TOPIC, WITH_PERSONA, LIKE_USERS, BY_USERS = 0.7, 0.3, 0.5, 0.5
SAMPLES = 4
TRIES = 2.0  # questions asked for count 1 / TRIES as much as questions kept: no label is asked for in vain for ever


@dataclass(frozen=True, slots=True)
class Error:
    """A question that the student gets wrong, or is unsure of, and the label it should have."""

    text: str
    label: str


@dataclass(frozen=True, slots=True)
class Known:
    """What a plan goes by.

    `kept` and `asked` count questions by label, those kept and those asked for; `topics` and `close` are each label's
    subjects and its nearest labels; `real` are texts that users wrote; `styles` weigh the styles by name, `languages`
    are the languages' names.
    """

    kept: Mapping[str, int] = field(default_factory=dict)
    asked: Mapping[str, int] = field(default_factory=dict)
    topics: Mapping[str, Sequence[str]] = field(default_factory=dict)
    close: Mapping[str, Sequence[str]] = field(default_factory=dict)
    real: Sequence[str] = ()
    styles: Mapping[str, float] = field(default_factory=dict)
    languages: Sequence[str] = ()


def plan_topics(task: Task) -> list[Brief]:
    """A brief for each label that asks for subjects of questions."""
    return [Brief("topics", name, ("",) * TOPICS) for name in task.names]


def plan_round(task: Task, known: Known, calls: int, seed: str) -> list[Brief]:
    """So many briefs, the labels in turn by what they lack; the same seed and knowledge give the same plan."""
    draw = random.Random(f"{task.name}/{seed}")
    have = {name: max(known.kept.get(name, 0), known.asked.get(name, 0) / TRIES) for name in task.names}
    found = []
    for _ in range(calls):
        label = _next_label(task, have, draw)
        brief = _out_of_scope(task, known, draw) if label == task.fallback else _of_label(task, label, known, draw)
        found.append(brief)
        have[label] += len(brief.openings) / TRIES
    return found


def plan_errors(task: Task, errors: Sequence[Error], known: Known, calls: int, seed: str) -> list[Brief]:
    """Briefs for questions like those that a student gets wrong, each of which comes up in turn."""
    draw = random.Random(f"{task.name}/errors/{seed}")
    order = draw.sample(list(errors), len(errors))
    found = []
    for number in range(calls if order else 0):
        error = order[number % len(order)]
        style = _style(known, draw)
        openings = _openings(style, known, ERRORS_PER_CALL, draw)
        language = draw.choice(list(known.languages)) if known.languages else ""
        found.append(Brief("error", error.label, openings, style=style.told, language=language, samples=(error.text,)))
    return found


def _next_label(task: Task, have: Mapping[str, float], draw: random.Random) -> str:
    """The label that lacks most for its share."""
    lacks = {name: have[name] / (FALLBACK_SHARE if name == task.fallback else 1.0) for name in task.names}
    least = min(lacks.values())
    return draw.choice([name for name, value in lacks.items() if value <= least])


def _of_label(task: Task, label: str, known: Known, draw: random.Random) -> Brief:
    names, weights = zip(*KINDS, strict=True)
    kind: Kind = draw.choices(names, weights)[0]
    others = [name for name in known.close.get(label, ()) if name != task.fallback]
    if kind == "border" and not others:
        kind = "plain"
    topics = () if kind == "border" else known.topics.get(label, ())
    count = FOLLOW_UPS_PER_CALL if kind == "follow_up" else PER_CALL
    other = draw.choice(others) if kind == "border" else ""
    return _brief(task, kind, label, count, topics, known, draw, other)


def _out_of_scope(task: Task, known: Known, draw: random.Random) -> Brief:
    label = str(task.fallback)
    kind: Kind = "near" if draw.random() < NEAR else "far"
    topics = known.topics.get(label, ()) if kind == "near" else FAR
    return _brief(task, kind, label, PER_CALL, topics, known, draw, always=True)


def _brief(
    task: Task,
    kind: Kind,
    label: str,
    count: int,
    topics: Sequence[str],
    known: Known,
    draw: random.Random,
    other: str = "",
    always: bool = False,
) -> Brief:
    style = _style(known, draw)
    samples = tuple(draw.sample(list(known.real), min(SAMPLES, len(known.real)))) if style is LIKE_THEM else ()
    some = draw.sample(list(topics), min(count, len(topics)))
    drawn = [each if always or draw.random() < WITH_TOPIC else "" for each in some]
    people = task.generate.personas or PERSONAS
    return Brief(
        kind,
        label,
        _openings(style, known, count, draw),
        tuple(drawn + [""] * (count - len(drawn))),
        style.told,
        draw.choice(people) if draw.random() < WITH_PERSONA else "",
        draw.choice(list(known.languages)) if known.languages else "",
        samples,
        other,
    )


def _style(known: Known, draw: random.Random) -> Style:
    if known.real and draw.random() < LIKE_USERS:
        return LIKE_THEM
    return draw.choices(STYLES, [style.weight * known.styles.get(style.told, 1.0) for style in STYLES])[0]


def _openings(style: Style, known: Known, count: int, draw: random.Random) -> tuple[str, ...]:
    """First words: of what users wrote, where there is any, or of the style. In another language, none."""
    if known.languages and known.languages != ["English"]:
        return ("",) * count
    if known.real and (style is LIKE_THEM or draw.random() < BY_USERS):
        texts = draw.choices(list(known.real), k=count)
        return tuple(" ".join(text.split()[: draw.choice((1, 1, 2))]) for text in texts)
    pool = list(style.openings) * (1 + count // len(style.openings))
    return tuple(draw.sample(pool, count))
