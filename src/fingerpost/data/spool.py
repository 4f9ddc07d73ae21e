"""The questions and verdicts of an import in temporary files, so that memory hardly grows with their number."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from fingerpost.core.types import Split, Verdict
from fingerpost.data.records import Records, ShingleRecords
from fingerpost.data.sketches import BANDS, Sketches, sketches_of
from fingerpost.data.splits import SPLIT_PRIORITY, NewQuestion

_QUESTION, _VERDICT = TypeAdapter(NewQuestion), TypeAdapter(Verdict)
_ADDED = np.dtype([("id", "S16"), ("request", "u1")])
_REQUESTS: tuple[Split | None, ...] = (*SPLIT_PRIORITY, None)


class QuestionSpool(Sequence[NewQuestion]):
    """The new questions of an import, each once, and all of its verdicts. Use it in a `with`.

    Of the splits that the rows of one question request, the first of SPLIT_PRIORITY wins. Add all rows before you read.

    Args:
        folder: where the temporary files are.
    """

    def __init__(self, folder: Path) -> None:
        self._questions, self._sketches, self._verdicts = Records(folder), Records(folder), Records(folder)
        self.shingles = ShingleRecords(folder)
        self._added: list[NDArray[np.void]] = []
        self._unique: tuple[NDArray[np.int64], NDArray[np.uint8]] | None = None

    def __enter__(self) -> QuestionSpool:
        return self

    def __exit__(self, *_: object) -> None:
        for records in (self._questions, self._sketches, self._verdicts, self.shingles):
            records.close()

    def extend(self, rows: Sequence[tuple[NewQuestion, Verdict | None]], known: Container[str]) -> None:
        """Add rows: questions, unless they are known, and verdicts."""
        new = [question for question, _ in rows if question.id not in known]
        self._questions.extend(map(_QUESTION.dump_json, new))
        self._sketches.extend(row.tobytes() for row in sketches_of(question.messages for question in new))
        self.shingles.extend(question.messages for question in new)
        requests = [(question.id, _REQUESTS.index(question.requested_split)) for question in new]
        self._added.append(np.array(requests, dtype=_ADDED))
        self._verdicts.extend(_VERDICT.dump_json(verdict) for _, verdict in rows if verdict is not None)

    def __len__(self) -> int:
        return len(self._places[0])

    @overload
    def __getitem__(self, position: int) -> NewQuestion: ...

    @overload
    def __getitem__(self, position: slice) -> Sequence[NewQuestion]: ...

    def __getitem__(self, position: int | slice) -> NewQuestion | Sequence[NewQuestion]:
        places, requests = self._places
        if isinstance(position, slice):
            return [self[number] for number in range(*position.indices(len(places)))]
        if position >= len(places):
            raise IndexError(position)
        question = _QUESTION.validate_json(self._questions[int(places[position])])
        return replace(question, requested_split=_REQUESTS[requests[position]])

    @property
    def sketches(self) -> Sketches:
        """The sketches of the questions."""
        places = self._places[0]
        found = np.empty((len(places), 1 + BANDS), dtype="<u4")
        for row, place in enumerate(map(int, places)):
            found[row] = np.frombuffer(self._sketches[place], dtype="<u4")
        return found

    def verdicts(self) -> Iterator[Verdict]:
        """All verdicts, in the order of the rows."""
        for position in range(len(self._verdicts)):
            yield _VERDICT.validate_json(self._verdicts[position])

    @property
    def _places(self) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """The place of each question's first row, and the index in _REQUESTS of the split that wins."""
        if self._unique is None:
            added = np.concatenate([*self._added, np.empty(0, dtype=_ADDED)])
            _, first, inverse = np.unique(added["id"], return_index=True, return_inverse=True)
            requests = np.full(len(first), len(_REQUESTS) - 1, dtype=np.uint8)
            np.minimum.at(requests, inverse, added["request"])
            order = np.argsort(first)
            self._unique, self._added = (first[order], requests[order]), []
        return self._unique
