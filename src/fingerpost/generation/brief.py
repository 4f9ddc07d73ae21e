"""A brief: what a writer is asked for in one request."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from fingerpost.core.text import humanise
from fingerpost.core.types import Label

Form: TypeAlias = Literal["messages", "wordings", "follow_ups", "beyond"]
"""Messages of several labels side by side; one label in ever other words; conversations whose last message counts;
things that users may want and no label covers."""

Kind: TypeAlias = Literal["plain", "named", "border", "near", "far", "error"]
"""`named`: by the label's name alone; `border`: near another label, too; `near` and `far`: out of scope; `error`: like
one that a student gets wrong."""


@dataclass(frozen=True, slots=True)
class Item:
    """One message to be written: the label that it is meant for and the words that it begins with.

    `about` is, out of scope, the thing that is wanted; of a border question the other label that it could be taken for;
    of an error the text that is to be said in other words.
    """

    kind: Kind
    label: str
    opening: str = ""
    about: str = ""


@dataclass(frozen=True, slots=True)
class Brief:
    """What a writer is asked for in one call: a message for each item.

    Several labels side by side are kept apart from each other. Wordings of one label, asked for at once, differ from
    those before them, and so find words that its description does not have. `samples` are messages of users whose
    manner is to be met.
    """

    form: Form
    items: tuple[Item, ...]
    style: str = ""
    persona: str = ""
    language: str = ""
    samples: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_json(cls, kept: dict[str, Any]) -> Brief:
        items = tuple(Item(**each) for each in kept["items"])
        return cls(**{**kept, "items": items, "samples": tuple(kept["samples"])})


def meaning(label: Label) -> str:
    """What belongs to a label, in words."""
    return label.description.strip().rstrip(".") or humanise(label.name)


def telling(label: Label) -> bool:
    """Whether the name has words that the description does not have: users may have them. A number is no word."""
    more = set(humanise(label.name).split()) - set(humanise(meaning(label)).split())
    return any(re.search(r"[^\W\d_]", word) for word in more)
