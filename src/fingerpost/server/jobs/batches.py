"""Batches of chat completions and responses: a file of requests in, files of answers and errors out. Resumed after a restart."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO, Unpack

from pydantic import ValidationError

from fingerpost.core.text import parse_json
from fingerpost.server.jobs.files import FileStorage
from fingerpost.server.ops.clock import WallClock
from fingerpost.server.ops.logs import log
from fingerpost.server.ops.supervise import run_forever
from fingerpost.server.schemas import ApiError, Json, error_body, require_storable_text
from fingerpost.store.server import ServerStore, new_id, now
from fingerpost.store.server_rows import BatchChanges, BatchCounts, BatchRow

ENDPOINTS = ("/v1/chat/completions", "/v1/responses")
WINDOW = "24h"
WINDOW_S = 24 * 3600
MAX_LINES = 50_000
MAX_LINE_BYTES = 4_000_000
MAX_ERRORS = 20  # errors of an input file that are reported
CONCURRENCY = 16  # lines that are answered at the same time
OVERLOADED_S = 1.0  # pause before a line is tried again

AnswerLine = Callable[[str, Json], Awaitable[Json]]
"""The response to the body of a line, for one of ENDPOINTS. Raises ValidationError if it is no such request."""


class BatchRunner:
    """Answers the open batches one after the other, oldest first.

    Answers are appended to a file in `folder` as they come, so that no line is answered twice after a restart.
    """

    def __init__(
        self, store: ServerStore, files: FileStorage, folder: Path, answer: AnswerLine, clock: WallClock
    ) -> None:
        self._store, self._files, self._answer, self._clock = store, files, answer, clock
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Look for new batches."""
        self._wake.set()

    async def run(self) -> None:
        """Answer batches until cancelled."""
        await run_forever("batches", self._run_open_batches)

    async def _run_open_batches(self) -> None:
        self._wake.clear()
        batches = await asyncio.to_thread(self._store.open_batches)
        for path in self._folder.iterdir():
            if path.stem not in {batch.id for batch in batches}:
                path.unlink(missing_ok=True)  # the server was killed after the batch ended
        for batch in batches:
            await self._run(batch)
        if not batches:
            await self._wake.wait()

    async def _run(self, batch: BatchRow) -> None:
        parsed = await asyncio.to_thread(self._read_input, batch)
        if parsed.errors:
            await self._end(batch, "failed", errors={"object": "list", "data": parsed.errors})
            return
        parts = {kind: self._folder / f"{batch.id}.{kind}" for kind in ("output", "error")}
        done = {kind: _answered(path) for kind, path in parts.items()}
        remaining = [line for line in parsed.lines if line["custom_id"] not in done["output"] | done["error"]]
        completed, failed = len(done["output"]), len(done["error"])
        counts = BatchCounts(len(parsed.lines), completed, failed)
        batch = await self._change(batch, "in_progress", "validating", counts=counts) or batch
        for start in range(0, len(remaining), CONCURRENCY):
            current = await asyncio.to_thread(self._store.get_batch, batch.id)
            if current is None or current.status == "cancelling":
                break
            if now() > batch.created_at + WINDOW_S and self._clock.is_steady:
                await self._finish(batch, "expired", parts)
                return
            answers = await asyncio.gather(
                *(self._answer_line(batch.request["endpoint"], line) for line in remaining[start : start + CONCURRENCY])
            )
            output = [answer for answer in answers if answer["response"]["status_code"] == 200]
            errors = [answer for answer in answers if answer["response"]["status_code"] != 200]
            await asyncio.to_thread(_append, parts["output"], output)
            await asyncio.to_thread(_append, parts["error"], errors)
            completed, failed = completed + len(output), failed + len(errors)
            counts = BatchCounts(counts.total, completed, failed)
            await asyncio.to_thread(self._store.change_batch, batch.id, ("in_progress",), counts=counts)
        current = await asyncio.to_thread(self._store.get_batch, batch.id) or batch
        await self._finish(current, "cancelled" if current.status == "cancelling" else "completed", parts)

    def _read_input(self, batch: BatchRow) -> _InputFile:
        """The lines of the input file, and what is wrong with them."""
        path = self._files.path(batch.request["input_file_id"])
        parsed = _InputFile(batch.request["endpoint"])
        if not path.is_file():
            parsed.add_error(0, "file_not_found", "the input file was deleted; upload it again")
            return parsed
        with path.open("rb") as stream:
            number = 0
            while (raw := stream.readline(MAX_LINE_BYTES)) and len(parsed.errors) < MAX_ERRORS:
                number += 1
                if len(parsed.lines) == MAX_LINES:
                    message = f"the file has more than {MAX_LINES:,} requests; split it"
                    parsed.add_error(number, "too_many_requests", message)
                    break
                if raw.strip():
                    parsed.add_line(number, raw)
        if not parsed.lines and not parsed.errors:
            parsed.add_error(0, "empty_file", "the input file has no requests; write one JSON object per line")
        return parsed

    async def _answer_line(self, endpoint: str, line: Json) -> Json:
        """The output line for an input line. Waits while the server is overloaded."""
        status, body = 503, {}
        while status == 503:
            try:
                status, body = 200, await self._answer(endpoint, line["body"])
            except ValidationError as error:
                first = error.errors()[0]
                status, body = 400, error_body(400, first["msg"], None, ".".join(map(str, first["loc"])))
            except ApiError as error:
                status, body = error.status, error.body
            except Exception as error:  # noqa: BLE001 - only this line fails, and the batch goes on
                log("batch line failed", logging.ERROR, error, custom_id=line["custom_id"])
                status, body = 500, error_body(500, "internal server error; see the server's log", "server_error")
            if status == 503:
                await asyncio.sleep(OVERLOADED_S)
        response = {"status_code": status, "request_id": new_id("req_"), "body": body}
        return {"id": new_id("batch_req_"), "custom_id": line["custom_id"], "response": response, "error": None}

    async def _finish(self, batch: BatchRow, status: str, parts: dict[str, Path]) -> None:
        """Store the answers as files and end the batch."""
        await self._change(batch, "finalizing", "in_progress")
        ids: dict[str, str | None] = {"output": None, "error": None}
        for kind, path in parts.items():
            if path.is_file() and path.stat().st_size:
                name = f"{batch.id}_{kind}.jsonl"
                file = await asyncio.to_thread(self._files.add, name, "batch_output", partial(_copy, path))
                ids[kind] = file.id
        await self._end(batch, status, output_file=ids["output"], error_file=ids["error"])
        for path in parts.values():
            path.unlink(missing_ok=True)

    async def _end(self, batch: BatchRow, new_status: str, **changes: Unpack[BatchChanges]) -> None:
        log("batch ended", batch=batch.id, status=new_status)
        await self._change(batch, new_status, **changes)

    async def _change(
        self, batch: BatchRow, new_status: str, only_from: str | None = None, **changes: Unpack[BatchChanges]
    ) -> BatchRow | None:
        """Set the status and its time; with `only_from`, only if the batch has that status. None: not changed."""

        def change() -> BatchRow | None:
            current = self._store.get_batch(batch.id) or batch
            changes["status"] = new_status
            changes["times"] = {**current.times, f"{new_status}_at": now()}
            return self._store.change_batch(batch.id, None if only_from is None else (only_from,), **changes)

        return await asyncio.to_thread(change)


@dataclass(slots=True)
class _InputFile:
    """The requests of an input file, and its errors as the API lists them."""

    endpoint: str
    lines: list[Json] = field(default_factory=list)
    errors: list[Json] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)

    def add_error(self, number: int, code: str, message: str) -> None:
        self.errors.append({"code": code, "line": number, "message": message, "param": None})

    def add_line(self, number: int, raw: bytes) -> None:
        try:
            line = require_storable_text(parse_json(raw))
        except ValueError:
            message = f"the line is not valid JSON, or longer than {MAX_LINE_BYTES:,} bytes"
            self.add_error(number, "invalid_json_line", message)
            return
        custom_id = line.get("custom_id") if isinstance(line, dict) else None
        if not isinstance(custom_id, str) or not isinstance(line.get("body"), dict):
            self.add_error(number, "invalid_request", "a line must be an object with custom_id, method, url and body")
        elif custom_id in self.ids:
            message = f"custom_id '{custom_id[:60]}' is used by an earlier line; make it unique"
            self.add_error(number, "duplicate_custom_id", message)
        elif line.get("url", self.endpoint) != self.endpoint:
            self.add_error(number, "mismatched_endpoint", f"url must be {self.endpoint}")
        else:
            self.ids.add(custom_id)
            self.lines.append(line)


def _copy(path: Path, stream: BinaryIO) -> None:
    with path.open("rb") as source:
        shutil.copyfileobj(source, stream)


def _append(path: Path, answers: list[Json]) -> None:
    if answers:
        with path.open("ab") as stream:
            stream.write("".join(json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers).encode())
            stream.flush()
            os.fsync(stream.fileno())


def _answered(path: Path) -> set[str]:
    """The custom ids in an answer file. Removes incomplete lines, such as a killed server leaves behind."""
    if not path.is_file():
        return set()
    data = path.read_bytes()
    whole = [(line, custom_id) for line in data.split(b"\n") if (custom_id := _custom_id(line)) is not None]
    kept = b"".join(line + b"\n" for line, _ in whole)
    if kept != data:
        path.write_bytes(kept)
    return {custom_id for _, custom_id in whole}


def _custom_id(line: bytes) -> str | None:
    try:
        value = parse_json(line)
    except ValueError:
        return None
    found = value.get("custom_id") if isinstance(value, dict) else None
    return found if isinstance(found, str) else None
