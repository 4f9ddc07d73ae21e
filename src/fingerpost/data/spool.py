"""The questions and verdicts of an import in temporary files, so that memory hardly grows with their number."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from fingerpost.core.types import Verdict
from fingerpost.data.records import Records, ShingleRecords
from fingerpost.data.sketches import BANDS, Shingles, Sketches, sketches_of
from fingerpost.data.splits import REQUEST, SPLIT_REQUESTS, NewQuestion, Requests, requests_of

_QUESTION, _VERDICT = TypeAdapter(NewQuestion), TypeAdapter(Verdict)


class QuestionSpool:
    """The new questions of an import, each once, and all of its verdicts. Use it in a `with`.

    Of the splits that the rows of one question request, the first of SPLIT_PRIORITY wins. Add all rows before you read.

    Args:
        folder: where the temporary files are.
    """

    def __init__(self, folder: Path) -> None:
        self._questions, self._sketches, self._verdicts = Records(folder), Records(folder), Records(folder)
        self._shingles = ShingleRecords(folder)
        self._added: list[Requests] = []

    def __enter__(self) -> QuestionSpool:
        return self

    def __exit__(self, *_: object) -> None:
        for records in (self._questions, self._sketches, self._verdicts, self._shingles):
            records.close()

    def extend(self, rows: Sequence[tuple[NewQuestion, Verdict | None]], known: Container[str]) -> None:
        """Add rows: questions, unless they are known, and verdicts."""
        new = [question for question, _ in rows if question.id not in known]
        self._questions.extend(map(_QUESTION.dump_json, new))
        self._sketches.extend(row.tobytes() for row in sketches_of(question.messages for question in new))
        self._shingles.extend(question.messages for question in new)
        self._added.append(requests_of(new))
        self._verdicts.extend(_VERDICT.dump_json(verdict) for _, verdict in rows if verdict is not None)

    def __iter__(self) -> Iterator[NewQuestion]:
        """The questions, in the order of their first rows."""
        for place, request in zip(map(int, self._places), self.requests["split"], strict=True):
            question = _QUESTION.validate_json(self._questions[place])
            yield replace(question, requested_split=SPLIT_REQUESTS[request])

    @property
    def requests(self) -> Requests:
        """The ids of the questions and the splits that win, in the same order."""
        return self._unique[1]

    @property
    def _places(self) -> NDArray[np.int64]:
        return self._unique[0]

    @cached_property
    def _unique(self) -> tuple[NDArray[np.int64], Requests]:
        """The place of each question's first row, and the requests of all its rows as one."""
        added = np.concatenate([*self._added, np.empty(0, dtype=REQUEST)])
        ids, first, inverse = np.unique(added["id"], return_index=True, return_inverse=True)
        found = np.zeros(len(ids), dtype=REQUEST)
        found["id"], found["split"] = ids, len(SPLIT_REQUESTS) - 1
        np.minimum.at(found["split"], inverse, added["split"])
        order = np.argsort(first)
        self._added = []
        return first[order], found[order]

    @property
    def sketches(self) -> Sketches:
        """The sketches of the questions, in the same order."""
        found = np.empty((len(self.requests), 1 + BANDS), dtype="<u4")
        for row, place in enumerate(map(int, self._places)):
            found[row] = np.frombuffer(self._sketches[place], dtype="<u4")
        return found

    def shingles(self, position: int) -> Shingles:
        """The shingles of a question by its position in this order."""
        return self._shingles(int(self._places[position]))

    def verdicts(self) -> Iterator[Verdict]:
        """All verdicts, in the order of the rows."""
        for position in range(len(self._verdicts)):
            yield _VERDICT.validate_json(self._verdicts[position])
