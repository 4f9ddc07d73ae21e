"""The server's database: typed rows, limits, pages, the request log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fingerpost.core.errors import InputError
from fingerpost.core.types import Message, Usage
from fingerpost.store.server import ServerStore, hash_key, new_id
from fingerpost.store.server_rows import (
    BatchCounts,
    BatchRow,
    FileRow,
    JobError,
    JobRow,
    LoggedTeacherReply,
    RequestLogEntry,
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ServerStore]:
    opened = ServerStore(tmp_path / "served.db")
    yield opened
    opened.close()


def job(status: str = "queued") -> JobRow:
    return JobRow(id=new_id("ftjob-"), created_at=1, status=status, request={"model": "m"})


def test_rows_come_back_as_they_were_added(store: ServerStore) -> None:
    file = FileRow("file-1", 1, "a.jsonl", "batch", 10, expires_at=99)
    batch = BatchRow("batch_1", 1, "validating", {"endpoint": "x"}, BatchCounts(3, 2, 1), {"in_progress_at": 5})
    assert store.add_file(file) == file == store.get_file("file-1")
    assert store.add_batch(batch) == batch == store.get_batch("batch_1")
    added = job()
    assert store.add_job(added, max_waiting=1) == added == store.get_job(added.id)
    assert store.get_job("none") is None
    store.delete_file("file-1")
    assert store.all_files() == []


def test_waiting_jobs_are_limited_and_only_expected_statuses_change(store: ServerStore) -> None:
    first = store.add_job(job(), max_waiting=2)
    assert first is not None
    assert store.add_job(job("validating_files"), max_waiting=2) is not None
    assert store.add_job(job(), max_waiting=2) is None
    assert store.change_job(first.id, ("running",), status="succeeded") is None
    changed = store.change_job(first.id, ("queued",), status="cancelled")
    assert changed == replace(first, status="cancelled")
    assert store.add_job(job(), max_waiting=2) is not None


def test_a_failed_job_has_its_error_and_an_event(store: ServerStore) -> None:
    added = job("running")
    store.add_job(added, max_waiting=1, events=["created"])
    store.add_event(added.id, "step", data={"step": 1})
    store.fail_job(added.id, "c", "m", "p")
    store.fail_job(added.id, "again", "m")  # it has ended
    failed = store.get_job(added.id)
    assert failed is not None
    assert (failed.status, failed.error) == ("failed", JobError("c", "m", "p"))
    events, more = store.events_page(added.id, 10)
    assert not more
    assert [(event.level, event.kind, event.message) for event in events[1:]] == [
        ("error", "message", "m"), ("info", "metrics", "step"), ("info", "message", "created"),
    ]  # fmt: skip
    assert store.events_page(added.id, 1, after=events[1].seq) == ([events[2]], True)
    assert store.unannounced() == [failed]
    store.mark_announced(failed)
    assert store.unannounced() == []


def test_pages_follow_a_cursor(store: ServerStore) -> None:
    files = [store.add_file(FileRow(f"file-{i}", i, "f", "a" if i % 2 else "b", 1)) for i in range(5)]
    assert store.files_page(2) == ([files[4], files[3]], True)
    assert store.files_page(9, after="file-3") == ([files[2], files[1], files[0]], False)
    assert store.files_page(9, after="file-3", newest_first=False) == ([files[4]], False)
    assert store.files_page(1, purpose="a") == ([files[3]], True)


def test_keys_are_stored_as_hashes_and_can_be_revoked(store: ServerStore) -> None:
    key = store.add_key("app")
    with pytest.raises(InputError):
        store.add_key("app")
    (row,) = store.all_keys()
    assert (row.name, row.sha256, row.revoked_at) == ("app", hash_key(key), None)
    store.revoke_key("app")
    (row,) = store.all_keys()
    assert row.revoked_at is not None
    with pytest.raises(InputError):
        store.revoke_key("app")


def test_the_request_log_is_ordered_by_confidence_and_old_entries_are_deleted(store: ServerStore) -> None:
    teacher = LoggedTeacherReply("t", "a", "raw", -0.5, Usage(1, 0, 2, 0.1, 0.2))
    messages = (Message("user", "x"), Message("assistant", "y"), Message("user", "z"))
    entries = [
        RequestLogEntry("r", at, None, "m", messages, "a", at / 10, "student", 0.1, teacher if at == 2 else None)
        for at in (3, 1, 2)
    ]
    store.add_log_entries(entries)
    assert list(store.log_entries()) == sorted(entries, key=lambda entry: entry.at)
    assert store.delete_log_entries(before=2) == 1
    assert [entry.at for entry in store.log_entries()] == [2, 3]
