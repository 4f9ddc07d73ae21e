"""The prompt of a classifier: its list of labels in any order, with names or codes, with labels left out or added.

A model that always sees the same list learns positions and names by heart. One that sees another list in each step has to read it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fingerpost.core.types import Label
from fingerpost.task.reply_format import ReplyTemplate, list_item, render

KEPT = 0.75
"""With varied labels, the share of the labels that are not needed and are listed all the same."""
MAX_CODE = 99


@dataclass(frozen=True, slots=True)
class ListedLabel:
    """A label as a prompt lists it: how replies write it, and the text of its line after the marker."""

    label: Label
    value: str | int
    line: str


@dataclass(frozen=True, slots=True)
class LabelPrompt:
    """A system prompt around its list of labels.

    Attributes:
        before, after: the text around the list; of a prompt that lists no labels, `before` is all of it.
        markers: what each line of the list begins with, such as `- `.
        listed: the labels in the list; all labels, if the prompt does not list them.
        template: the form of the replies.
    """

    before: str
    after: str
    markers: tuple[str, ...]
    listed: tuple[ListedLabel, ...]
    template: ReplyTemplate

    @classmethod
    def of(cls, system: str, labels: Sequence[Label], template: ReplyTemplate) -> LabelPrompt:
        """A system prompt that was written as one text."""
        lines = system.split("\n")
        values = {
            label.name: label.code if template.codes and label.code is not None else label.name for label in labels
        }
        places: dict[int, Label] = {}
        for label in labels:
            for number, line in enumerate(lines):
                item = list_item(line)
                if item and item[0] == str(values[label.name]) and number not in places:
                    places[number] = label
                    break
        complete = bool(places) and len(places) == len(labels) and max(places) - min(places) + 1 == len(places)
        if not complete:
            listed = tuple(ListedLabel(label, values[label.name], "") for label in labels)
            return cls(system, "", (), listed, template)
        first, last = min(places), max(places)
        markers, listed_lines = [], []
        for number in range(first, last + 1):
            marker = re.match(r"\s*(?:[-*•+]\s+|\(?\d+[.)]\s+)?", lines[number])
            assert marker is not None
            markers.append(marker[0])
            label = places[number]
            listed_lines.append(ListedLabel(label, values[label.name], lines[number][marker.end() :]))
        before, after = "\n".join(lines[:first]), "\n".join(lines[last + 1 :])
        return cls(
            f"{before}\n" if first else "", f"\n{after}" if last + 1 < len(lines) else "",
            tuple(markers), tuple(listed_lines), template,
        )  # fmt: skip

    @property
    def is_listed(self) -> bool:
        """Whether the prompt lists the labels."""
        return bool(self.markers)

    @property
    def text(self) -> str:
        """The system prompt."""
        markers = [*self.markers, *[self.markers[-1]] * (len(self.listed) - len(self.markers))] if self.markers else []
        lines = (f"{marker}{one.line}" for marker, one in zip(markers, self.listed, strict=False))
        return f"{self.before}{chr(10).join(lines)}{self.after}"

    def reply(self, name: str) -> str:
        """The reply that names a label."""
        return render(self.template, next(one.value for one in self.listed if one.label.name == name))

    def shuffled(self, draw: random.Random) -> LabelPrompt:
        """With the list in another order."""
        return replace(self, listed=tuple(draw.sample(self.listed, len(self.listed)))) if self.is_listed else self

    def without(self, names: Sequence[str]) -> LabelPrompt:
        """With these labels left out."""
        return replace(self, listed=tuple(one for one in self.listed if one.label.name not in names))

    def with_labels(self, labels: Sequence[Label]) -> LabelPrompt:
        """With further labels at the end of the list."""
        more = (ListedLabel(label, label.name, f"{label.name}: {label.description}") for label in labels)
        return replace(self, listed=(*self.listed, *more))

    def with_codes(self, codes: Sequence[int]) -> LabelPrompt:
        """With integers in place of the names in the replies; a line of the list then begins with the code."""
        coded = tuple(
            ListedLabel(
                one.label, code,
                f"{code}: {one.line}" if not isinstance(one.value, int) else one.line.replace(str(one.value), str(code), 1),
            )
            for one, code in zip(self.listed, codes, strict=True)
        )  # fmt: skip
        return replace(self, listed=coded, template=self.template.model_copy(update={"codes": True}))

    def varied(self, draw: random.Random, needed: Sequence[str]) -> LabelPrompt:
        """With codes or names, and with some of the labels that are not needed left out."""
        left_out = [one.label.name for one in self.listed if one.label.name not in needed and draw.random() > KEPT][
            : max(0, len(self.listed) - 2)
        ]
        found = self.without(left_out)
        if draw.random() < 0.5:
            return found
        return found.with_codes(draw.sample(range(1, max(MAX_CODE, 2 * len(found.listed)) + 1), len(found.listed)))
