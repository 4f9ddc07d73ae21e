"""A brief: what one request asks a writer for.

Briefs are stored as JSON. The field names and the values of `Form` and `Kind` are part of the database format.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from fingerpost.core.text import humanise
from fingerpost.core.types import Label

Form: TypeAlias = Literal["messages", "wordings", "follow_ups", "beyond"]
"""`messages`: messages for several labels; `wordings`: one label in different words; `follow_ups`: conversations whose
last message counts; `beyond`: topics that users may ask about and that no label covers."""

OUT_OF_SCOPE: Form = "beyond"

Kind: TypeAlias = Literal["plain", "named", "border", "near", "far", "error"]
"""`named`: described by the label's name alone; `border`: could be mistaken for another label; `near`, `far`: out of
scope, close to the assistant's topics or not; `error`: similar to a question that a student gets wrong."""


@dataclass(frozen=True, slots=True)
class Item:
    """One message to be written.

    Attributes:
        label: the label that the message is written for.
        opening: the words that it should begin with; empty for any.
        about: out of scope, the topic; of a border case, the other label; of an error, the text to paraphrase.
    """

    kind: Kind
    label: str
    opening: str = ""
    about: str = ""


@dataclass(frozen=True, slots=True)
class Brief:
    """What one request asks a writer for: a message for each item.

    Labels in one request are told apart better. Several wordings of one label in one request differ more from each
    other, and so use words that the label's description lacks.

    Attributes:
        samples: messages by users whose way of writing is to be imitated.
    """

    form: Form
    items: tuple[Item, ...]
    style: str = ""
    persona: str = ""
    language: str = ""
    samples: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The stored form."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Brief:
        """The inverse of `to_json`."""
        items = tuple(Item(**item) for item in stored["items"])
        return cls(**{**stored, "items": items, "samples": tuple(stored["samples"])})


def label_description(label: Label) -> str:
    """The label's description without the final full stop, or its name as words if there is none."""
    return label.description.strip().rstrip(".") or humanise(label.name)


def has_informative_name(label: Label) -> bool:
    """Whether the name has words that the description lacks, as users may use them. Numbers are not words."""
    new_words = set(humanise(label.name).split()) - set(humanise(label_description(label)).split())
    return any(re.search(r"[^\W\d_]", word) for word in new_words)
