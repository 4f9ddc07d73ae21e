"""A wall clock that jumps: nothing is deleted or ended because of it."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from fingerpost.server.app import Server
from fingerpost.server.jobs.batches import BatchRunner
from fingerpost.server.ops.clock import HOLD_S, START_S, WallClock
from fingerpost.server.settings import Settings
from fingerpost.store.server import now
from fingerpost.store.server_rows import BatchCounts, BatchRow

DAY_S = 86_400


class Clocks:
    """Both clocks, moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall, self.steady = 0.0, 0.0
        real_wall, real_steady = time.time, time.monotonic
        monkeypatch.setattr(time, "time", lambda: real_wall() + self.wall)
        monkeypatch.setattr(time, "monotonic", lambda: real_steady() + self.steady)


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


def test_time_that_passes_is_no_jump(clocks: Clocks) -> None:
    clock = WallClock()
    assert not clock.is_steady
    for _ in range(3):
        clocks.wall += DAY_S
        clocks.steady += DAY_S
        assert clock.is_steady


@pytest.mark.parametrize("jump", [-2 * DAY_S, 2 * DAY_S])
def test_after_a_jump_files_and_log_are_kept_for_an_hour(tmp_path: Path, clocks: Clocks, jump: float) -> None:
    server = Server(Settings(tmp_path))
    file = server.files.add("x.txt", "user_data", lambda stream: stream.write(b"x"), expires_at=now() + DAY_S)
    clocks.wall += START_S
    clocks.steady += START_S
    server._clean_up_files()
    clocks.wall += jump
    server._clean_up_files()
    assert server.files.path(file.id).is_file()
    clocks.wall += HOLD_S
    clocks.steady += HOLD_S
    server._clean_up_files()
    assert server.files.path(file.id).is_file() == (jump < 0)
    server.store.close()


def test_a_batch_does_not_expire_because_the_clock_jumps(tmp_path: Path, clocks: Clocks) -> None:
    server = Server(Settings(tmp_path))
    lines = [
        {"custom_id": str(i), "body": {"model": "m", "messages": [{"role": "user", "content": "x"}]}} for i in range(50)
    ]
    data = "\n".join(map(json.dumps, lines)).encode()
    file = server.files.add("x.jsonl", "batch", lambda stream: stream.write(data))
    batch = BatchRow(
        "batch_1",
        now(),
        "validating",
        {"input_file_id": file.id, "endpoint": "/v1/chat/completions"},
        BatchCounts(0, 0, 0),
        {},
    )
    server.store.add_batch(batch)

    async def answer(_endpoint: str, _body: dict[str, Any]) -> dict[str, Any]:
        if clocks.wall == 0:
            clocks.wall = 30 * DAY_S
        return {}

    runner = BatchRunner(server.store, server.files, tmp_path / "parts", answer, server.clock)
    asyncio.run(runner._run(batch))
    done = server.store.get_batch("batch_1")
    assert done is not None and (done.status, done.counts.completed) == ("completed", 50)
    server.store.close()
