"""Reviews in a spreadsheet: the queue goes out, labels come back, and nothing is stored twice."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from reviewing import GOLD, bag_of_words, fill

from fingerpost.consensus.review import ReviewQueue
from fingerpost.consensus.session import ReviewSession, UniformSample
from fingerpost.consensus.spreadsheet import COLUMNS, export_queue, import_labels
from fingerpost.core.errors import InputError
from fingerpost.core.verdicts import active
from fingerpost.store.project import Store
from fingerpost.task.settings import Task


@pytest.fixture
def filled(store: Store) -> Store:
    fill(store)
    return store


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.DictReader(stream))


def write(file: Path, rows: list[dict[str, str]]) -> Path:
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, delimiter=";")  # as a German Excel saves it
        writer.writeheader()
        writer.writerows(rows)
    return file


def test_the_queue_goes_out_and_labels_come_back(filled: Store, task: Task, tmp_path: Path) -> None:
    queue = ReviewQueue(task, filled, "ann", bag_of_words)
    assert export_queue(queue, tmp_path / "queue.csv", 40) == 40
    rows = rows_of(tmp_path / "queue.csv")
    assert len({row["id"] for row in rows}) == 40 and tuple(rows[0]) == COLUMNS
    assert all(row["suggestion"] in task.names and not row["label"] for row in rows)
    for row in rows[:10]:
        row["label"] = GOLD[row["id"].removeprefix("q-")].upper()
    rows[10] |= {"label": "-", "note": "spam"}
    rows[11]["label"] = "nonsense"
    rows[12] |= {"id": "0" * 16, "label": "billing"}
    done = import_labels(ReviewSession(task, filled, "ann"), filled, write(tmp_path / "back.csv", rows))
    assert (done.answers, done.blank, len(done.rejected)) == (11, 27, 2)
    assert [row.line for row in done.rejected] == [13, 14] and "unknown label 'nonsense'" in done.rejected[0].reason
    verdicts = filled.verdicts()
    for row in rows[:10]:
        assert active(verdicts[row["id"].removeprefix("q-")])[-1].label == GOLD[row["id"].removeprefix("q-")]
    spam = active(verdicts[rows[10]["id"].removeprefix("q-")])[-1]
    assert (spam.label, spam.note, spam.by) == (None, "spam", "ann")
    again = import_labels(ReviewSession(task, filled, "ann"), filled, tmp_path / "back.csv")
    assert (again.answers, again.known) == (0, 11)
    other = import_labels(ReviewSession(task, filled, "ben"), filled, tmp_path / "back.csv")
    assert other.answers == 11, "another reviewer's labels are their own"


@pytest.mark.parametrize("split", ["test", "dev"])
def test_a_sample_has_no_hints(filled: Store, task: Task, tmp_path: Path, split: str) -> None:
    count = len(filled.questions(split))  # type: ignore[arg-type]
    sample = UniformSample(task, filled, "ann", 500, split)  # type: ignore[arg-type]
    assert export_queue(sample, tmp_path / "sample.csv", 500) == count > 10
    assert {row["suggestion"] for row in rows_of(tmp_path / "sample.csv")} == {""}


def test_another_file_is_refused(filled: Store, task: Task, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("text,label\na,b\n")
    with pytest.raises(InputError, match="no columns id and label"):
        import_labels(ReviewSession(task, filled, "ann"), filled, tmp_path / "x.csv")
