"""Jobs whose server is killed again and again, or whose files take for ever to check."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from fingerpost.server.jobs import runner
from fingerpost.server.jobs.runner import FREE_INTERRUPTIONS, MAX_INTERRUPTIONS, JobRunner
from fingerpost.server.settings import Settings
from fingerpost.store.server import ServerStore, now
from fingerpost.store.server_rows import JobRow


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ServerStore]:
    found = ServerStore(tmp_path / "fingerpost.db")
    (tmp_path / "models").mkdir()
    yield found
    found.close()


def job(store: ServerStore) -> JobRow:
    found = store.get_job("ftjob-1")
    assert found is not None
    return found


def add_job(store: ServerStore, status: str, attempts: int = 0) -> None:
    request = {"model": "m", "training_file": "file-none"}
    assert store.add_job(JobRow("ftjob-1", now(), status, request, attempts=attempts), 9)


def test_a_job_that_the_server_is_killed_with_restarts_then_waits_and_in_the_end_fails(
    tmp_path: Path, store: ServerStore
) -> None:
    add_job(store, "running", attempts=1)
    for number in range(1, MAX_INTERRUPTIONS):
        jobs = JobRunner(Settings(tmp_path), store)
        jobs._store.change_job("ftjob-1", status="running", attempts=1)
        jobs._handle_interruptions()
        assert (job(store).status, job(store).attempts, job(store).interrupted) == ("queued", 0, number)
        assert jobs._is_held(job(store)) == (number >= FREE_INTERRUPTIONS)
        assert (jobs._take("train") is None) == (number >= FREE_INTERRUPTIONS)
        jobs._started_at -= 30.0 * 2 ** max(0, number - FREE_INTERRUPTIONS)  # the server has run for so long
        assert not jobs._is_held(job(store))
    store.change_job("ftjob-1", status="running", attempts=1)
    JobRunner(Settings(tmp_path), store)._handle_interruptions()
    failed = job(store)
    assert failed.status == "failed" and failed.error is not None and failed.error.code == "server_died"


def test_a_job_that_waited_for_validation_was_not_interrupted(tmp_path: Path, store: ServerStore) -> None:
    add_job(store, "validating_files")
    JobRunner(Settings(tmp_path), store)._handle_interruptions()
    assert job(store).interrupted == 0
    store.change_job("ftjob-1", attempts=1)
    JobRunner(Settings(tmp_path), store)._handle_interruptions()
    assert (job(store).status, job(store).interrupted, job(store).attempts) == ("validating_files", 1, 0)


def test_validation_has_a_deadline(tmp_path: Path, store: ServerStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "VALIDATION_S", 0.01)
    add_job(store, "validating_files")

    async def run() -> None:
        jobs = JobRunner(Settings(tmp_path), store)
        jobs.start()
        while job(store).status == "validating_files":
            await asyncio.sleep(0.01)
        await jobs.stop()

    asyncio.run(run())
    error = job(store).error
    assert error is not None and error.code == "validation_timeout" and "make the files smaller" in str(error.message)
