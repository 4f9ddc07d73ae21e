"""Older stores open: every value and row is there, in the words of today."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from fingerpost.core.types import Message, Question, Usage, Verdict
from fingerpost.core.verdicts import QuestionVerdicts
from fingerpost.store.project import Store
from fingerpost.store.server import ServerStore


def restore(file: Path, dump: str) -> Path:
    with sqlite3.connect(file) as raw:
        raw.executescript(Path(__file__).with_name(dump).read_text())
    return file


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A store written by version 0.1.0 with format 0004."""
    return restore(tmp_path / "fingerpost.db", "project_0004.sql")


def test_questions_verdicts_drafts_and_costs_are_kept(old: Path) -> None:
    with Store(old) as store:
        splits = {question.id[0]: question.split for question in store.questions()}
        verdicts = {key[0]: found for key, found in store.verdicts().items()}
        (draft,) = store.drafts()
        account = store.ledger.account()
    assert splits == {"a": "train", "b": "train", "c": "excluded", "d": "test", "e": "train"}
    review, answer = verdicts["a"]
    assert (review.kind, review.label, review.mark, review.note) == ("human", "delivery", "m1", "sure")
    assert (answer.kind, answer.order, answer.prompt, answer.usage.cost_usd) == ("teacher", 1, "p" * 16, 0.002)
    assert QuestionVerdicts(verdicts["b"], ["other"]).human == []  # it was taken back
    (written,) = verdicts["e"]
    assert (written.kind, written.draft, written.item, written.prompt, written.order) == ("writer", 1, 0, None, None)
    assert draft.outcomes == {"kept": 1} and draft.answered
    assert (account.calls, round(account.committed_usd, 6)) == (2, 0.003)


def test_what_is_stored_still_cannot_be_edited(old: Path) -> None:
    Store(old).close()
    with sqlite3.connect(old) as raw:
        for statement in (
            "UPDATE verdicts SET label = 'x'",
            "DELETE FROM verdicts",
            "UPDATE questions SET split = 'dev'",
        ):
            with pytest.raises(sqlite3.IntegrityError):
                raw.execute(statement)


def test_an_import_of_an_older_version_is_not_imported_twice(old: Path) -> None:
    with Store(old) as store:
        assert store.add_verdicts([Verdict("d" * 16, "human", "import", "delivery")]) == 0


def test_the_servers_jobs_files_and_log_are_kept(old: Path) -> None:
    store = ServerStore(old)
    assert store.job_of_model("ft:m:local::1") is not None
    (entry,) = store.log_entries()
    store.close()
    assert entry.messages == (Message("user", "where is it"),)
    assert entry.teacher is not None
    assert entry.teacher.usage == Usage(prompt=1, cached=0, completion=1, cost_usd=0.1, latency_s=0.5)


def test_the_first_format_opens(tmp_path: Path) -> None:
    file = restore(tmp_path / "fingerpost.db", "project_0004.sql")
    with sqlite3.connect(file) as raw:
        for column in ("mark", "note"):
            raw.execute(f"ALTER TABLE verdicts DROP COLUMN {column}")
        for column in ("latency_s", "posted"):
            raw.execute(f"ALTER TABLE calls DROP COLUMN {column}")
        for table in ("files", "jobs", "job_events", "batches", "keys", "requests", "posted", "drafts"):
            raw.execute(f"DROP TABLE {table}")
        raw.execute("UPDATE alembic_version SET version_num = '0001'")
    with Store(file) as store:
        store.add_questions([Question("x", (Message("user", "x"),), "user", "x", "train")])
        assert store.add_verdicts([Verdict("x", "human", "me", "other", mark="m", note="n")]) == 1
        (found,) = store.verdicts()["x"]
    assert (found.mark, found.note) == ("m", "n")
