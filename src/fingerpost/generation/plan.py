"""Which questions are to be written: planned before they are asked for, every draw by a seed.

What is drawn is the label, the kind of question, the style, who writes, the length and the first words of each: a model
that is merely asked for "common questions" repeats itself, one that is told how each begins does not (attributes as in
Yu et al. 2023, "Large Language Model as Attributed Training Data Generator"). Several labels stand side by side in one
call, near ones above all: so the writer keeps them apart.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fingerpost.generation.brief import Brief, Form, Item, telling
from fingerpost.generation.styles import FAR, LENGTHS, LIKE_THEM, PERSONAS, SITUATIONS, STYLES, Style
from fingerpost.task.settings import Task

PER_CALL: Mapping[Form, int] = {"messages": 5, "wordings": 6, "follow_ups": 3}
FORMS: Mapping[Form, float] = {"messages": 0.62, "wordings": 0.32, "follow_ups": 0.06}
"""By form: how many questions a call asks for, and the share of the calls."""
FALLBACK_SHARE = 4.0  # of messages; what belongs nowhere is wider than any label
BORDER, CLOSE = 0.1, 0.5  # shares: of questions, of calls with near labels side by side
NAMED = 0.3  # of labels whose name has other words than their description
NEAR = 0.5  # of the out-of-scope questions; the others are far from what the assistant is for
WITH_OPENING = 0.2  # without, messages are nearer to what is meant; with, they are less alike
WITH_PERSONA, WITH_SITUATION, LIKE_USERS, BY_USERS = 0.2, 0.15, 0.5, 0.5
SAMPLES = 4
TRIES = 3.0  # questions asked for count 1 / TRIES as much as trusted ones: no label is asked for in vain for ever


@dataclass(frozen=True, slots=True)
class Error:
    """A question that the student gets wrong, or is unsure of, and the label it should have."""

    text: str
    label: str


@dataclass(frozen=True, slots=True)
class Known:
    """What a plan goes by.

    `trusted` and `asked` count questions by form and label, those to learn from and those asked for; `close` are each
    label's nearest ones, `beyond` things that no label covers; `real` are texts that users wrote; `styles` weigh the
    styles by what is told of them; `languages` are names of languages.
    """

    trusted: Mapping[tuple[Form, str], int] = field(default_factory=dict)
    asked: Mapping[tuple[Form, str], int] = field(default_factory=dict)
    close: Mapping[str, Sequence[str]] = field(default_factory=dict)
    beyond: Sequence[str] = ()
    real: Sequence[str] = ()
    styles: Mapping[str, float] = field(default_factory=dict)
    languages: Sequence[str] = ()


def plan_round(task: Task, known: Known, count: int, seed: str) -> list[Brief]:
    """Briefs for `count` questions or a few more, in each form the labels in turn by what they lack.

    The same seed and knowledge give the same plan.
    """
    draw = random.Random(f"{task.name}/{seed}")
    have: dict[Form, dict[str, float]] = {
        form: {
            name: max(known.trusted.get((form, name), 0), known.asked.get((form, name), 0) / TRIES)
            for name in task.names
        }
        for form in FORMS
    }
    found: list[Brief] = []
    while sum(len(each.items) for each in found) < count:
        form = draw.choices(list(FORMS), list(FORMS.values()))[0]
        if form == "wordings":
            found.append(_wordings(task, known, have[form], draw))
        else:
            labels = _labels(task, known, have[form], PER_CALL[form], draw)
            found.append(_brief(task, form, [_item(task, label, known, draw) for label in labels], known, draw))
    return found


def plan_errors(task: Task, errors: Sequence[Error], known: Known, count: int, seed: str) -> list[Brief]:
    """Briefs for `count` questions like those that a student gets wrong, each of which comes up in turn."""
    draw = random.Random(f"{task.name}/errors/{seed}")
    order = draw.sample(list(errors), len(errors))
    turn = [order[i % len(order)] for i in range(count)] if order else []
    items = [Item("error", each.label, about=each.text) for each in turn]
    size = PER_CALL["messages"]
    return [_brief(task, "messages", items[i : i + size], known, draw) for i in range(0, len(items), size)]


def _wordings(task: Task, known: Known, have: dict[str, float], draw: random.Random) -> Brief:
    """What one label means, in the words of several people; whose manner is left open where no user has shown his."""
    label = _next([name for name in task.names if name != task.fallback], task, have, draw)
    count = PER_CALL["wordings"]
    have[label] += count / TRIES
    samples = _samples(known, draw) if draw.random() < LIKE_USERS else ()
    style = LIKE_THEM.told if samples else ""
    return Brief("wordings", (_plain(task, label, draw),) * count, style, "", _language(known, draw), samples)


def _labels(task: Task, known: Known, have: dict[str, float], count: int, draw: random.Random) -> list[str]:
    """The labels of one call: by turns those that lack most, and one of these with its nearest."""
    found: list[str] = []

    def take(label: str) -> None:
        found.append(label)
        have[label] += 1 / TRIES

    def fresh() -> list[str]:
        return [name for name in task.names if name not in found] or task.names

    take(_next(fresh(), task, have, draw))
    if draw.random() < CLOSE:
        for name in known.close.get(found[0], ())[: count - 1]:
            take(name)
    while len(found) < count:
        take(_next(fresh(), task, have, draw))
    return draw.sample(found, count)


def _next(names: Sequence[str], task: Task, have: Mapping[str, float], draw: random.Random) -> str:
    """Of these labels, one that lacks most."""
    lacks = {name: have[name] / (FALLBACK_SHARE if name == task.fallback else 1.0) for name in names}
    least = min(lacks.values())
    return draw.choice([name for name in names if lacks[name] <= least])


def _item(task: Task, label: str, known: Known, draw: random.Random) -> Item:
    if label == task.fallback:
        near = known.beyond and draw.random() < NEAR
        return (
            Item("near", label, about=draw.choice(known.beyond)) if near else Item("far", label, about=draw.choice(FAR))
        )
    others = [name for name in known.close.get(label, ()) if name not in (task.fallback, label)]
    if others and draw.random() < BORDER:
        return Item("border", label, about=draw.choice(others))
    return _plain(task, label, draw)


def _plain(task: Task, label: str, draw: random.Random) -> Item:
    named = any(each.name == label and telling(each) for each in task.labels) and draw.random() < NAMED
    return Item("named" if named else "plain", label)


def _brief(task: Task, form: Form, items: Sequence[Item], known: Known, draw: random.Random) -> Brief:
    """The items with their first words, and what they have in common."""
    style = _style(known, draw)
    openings = _openings(style, known, len(items), draw)
    persona = draw.choice(task.generate.personas or PERSONAS) if draw.random() < WITH_PERSONA else ""
    situation = draw.choice(SITUATIONS) if draw.random() < WITH_SITUATION else ""
    samples = _samples(known, draw) if style is LIKE_THEM else ()
    length = "" if samples else draw.choices([text for text, _ in LENGTHS], [weight for _, weight in LENGTHS])[0]
    return Brief(
        form,
        tuple(Item(each.kind, each.label, opening, each.about) for each, opening in zip(items, openings, strict=True)),
        style.told + length,
        ", ".join(each for each in (persona, situation) if each),
        _language(known, draw),
        samples,
    )


def _samples(known: Known, draw: random.Random) -> tuple[str, ...]:
    return tuple(draw.sample(list(known.real), min(SAMPLES, len(known.real))))


def _language(known: Known, draw: random.Random) -> str:
    return draw.choice(list(known.languages)) if known.languages else ""


def _style(known: Known, draw: random.Random) -> Style:
    if known.real and draw.random() < LIKE_USERS:
        return LIKE_THEM
    return draw.choices(STYLES, [style.weight * known.styles.get(style.told, 1.0) for style in STYLES])[0]


def _openings(style: Style, known: Known, count: int, draw: random.Random) -> tuple[str, ...]:
    """First words: of what users wrote, where there is any, or of the style. In another language, none."""
    if known.languages and list(known.languages) != ["English"]:
        return ("",) * count
    if known.real and (style is LIKE_THEM or draw.random() < BY_USERS):
        texts = draw.choices(list(known.real), k=count)
        return tuple(" ".join(text.split()[: draw.choice((0, 1, 1, 2))]) for text in texts)
    pool = list(style.openings) * (1 + count // len(style.openings))
    return tuple(each if draw.random() < WITH_OPENING else "" for each in draw.sample(pool, count))
