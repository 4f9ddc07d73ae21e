"""Batches of chat completions: a file of requests in, a file of answers out, resumed after a restart."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import ValidationError

from fingerpost.server.jobs.files import Files
from fingerpost.server.ops.logs import log
from fingerpost.server.ops.supervise import forever
from fingerpost.server.schemas import ChatRequest, Json, WireError, clean, error_body
from fingerpost.store.server import BATCHES, Record, ServerStore, new_id, now

ENDPOINT = "/v1/chat/completions"

WINDOW = "24h"

WINDOW_S = 24 * 3600

MOST_LINES, MOST_BYTES, MOST_ERRORS = 50_000, 4_000_000, 20

AT_ONCE = 16

Answer = Callable[[ChatRequest, Json], Awaitable[Json]]


class Batches:
    """Works off the open batches, the oldest first, `AT_ONCE` lines at a time. Answered lines are never asked again."""

    def __init__(self, store: ServerStore, files: Files, folder: Path, answer: Answer) -> None:
        self._store, self._files, self._answer = store, files, answer
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._wake = asyncio.Event()

    def wake(self) -> None:
        self._wake.set()

    async def run(self) -> None:
        """For as long as the server does."""
        await forever("batches", self._round)

    async def _round(self) -> None:
        self._wake.clear()
        open_ones = await asyncio.to_thread(self._store.open_batches)
        for path in self._folder.iterdir():
            if path.stem not in {each["id"] for each in open_ones}:
                path.unlink(missing_ok=True)  # of a server that was killed between the batch's end and this
        for batch in open_ones:
            await self._work(batch)
        if not open_ones:
            await self._wake.wait()

    async def _work(self, batch: Record) -> None:
        key = batch["id"]
        lines, errors = await asyncio.to_thread(self._read, batch)
        if errors:
            await self._ends(batch, "failed", errors={"object": "list", "data": errors})
            return
        parts = {kind: self._folder / f"{key}.{kind}" for kind in ("output", "error")}
        done = {kind: _answered(path) for kind, path in parts.items()}
        left = [line for line in lines if line["custom_id"] not in done["output"] | done["error"]]
        counts = {"total": len(lines), "completed": len(done["output"]), "failed": len(done["error"])}
        started = {"status": "in_progress", "counts": counts, "in_progress_at": now()}
        batch = await self._change(batch, "validating", **started) or batch
        for start in range(0, len(left), AT_ONCE):
            current = await asyncio.to_thread(self._store.get, BATCHES, key)
            if current is None or current["status"] == "cancelling":
                break
            if now() > batch["created_at"] + WINDOW_S:
                await self._finish(batch, "expired", parts)
                return
            found = await asyncio.gather(*(self._one(line) for line in left[start : start + AT_ONCE]))
            for kind, path in parts.items():
                mine = [each for each in found if (each["response"]["status_code"] == 200) == (kind == "output")]
                await asyncio.to_thread(_append, path, mine)
                counts["completed" if kind == "output" else "failed"] += len(mine)
            await asyncio.to_thread(self._store.change, BATCHES, key, ("in_progress",), counts=dict(counts))
        current = await asyncio.to_thread(self._store.get, BATCHES, key) or batch
        await self._finish(current, "cancelled" if current["status"] == "cancelling" else "completed", parts)

    def _read(self, batch: Record) -> tuple[list[Json], list[Json]]:
        """The lines of the input, and what is wrong with them."""
        path = self._files.path(batch["request"]["input_file_id"])
        lines: list[Json] = []
        errors: list[Json] = []
        seen: set[str] = set()

        def wrong(number: int, code: str, message: str) -> None:
            errors.append({"code": code, "line": number, "message": message, "param": None})

        if not path.is_file():
            wrong(0, "file_not_found", "the input file was deleted")
            return lines, errors
        with path.open("rb") as stream:
            number = 0
            while (raw := stream.readline(MOST_BYTES)) and len(errors) < MOST_ERRORS:
                number += 1
                if len(lines) == MOST_LINES:
                    wrong(number, "too_many_requests", f"more than {MOST_LINES:,} requests; split the file")
                    break
                if raw.strip():
                    self._read_line(number, raw, seen, lines, wrong)
        if not lines and not errors:
            wrong(0, "empty_file", "the input file holds no requests")
        return lines, errors

    @staticmethod
    def _read_line(
        number: int, raw: bytes, seen: set[str], lines: list[Json], wrong: Callable[[int, str, str], None]
    ) -> None:
        try:
            line = clean(json.loads(raw))
        except (ValueError, RecursionError):
            wrong(number, "invalid_json_line", f"this line is not JSON, or longer than {MOST_BYTES:,} bytes")
            return
        name = line.get("custom_id") if isinstance(line, dict) else None
        if not isinstance(name, str) or not isinstance(line.get("body"), dict):
            wrong(number, "invalid_request", "a line is {custom_id, method, url, body}")
        elif name in seen:
            wrong(number, "duplicate_custom_id", f"custom_id '{name[:60]}' stands on an earlier line")
        elif line.get("url", ENDPOINT) != ENDPOINT:
            wrong(number, "mismatched_endpoint", f"url must be {ENDPOINT}")
        else:
            seen.add(name)
            lines.append(line)

    async def _one(self, line: Json) -> Json:
        """The answer to a line; while the server is overloaded, it waits."""
        status, body = 503, {}
        while status == 503:
            try:
                request = ChatRequest.model_validate(line["body"])
                status, body = 200, await self._answer(request, line["body"])
            except ValidationError as error:
                first = error.errors()[0]
                status, body = 400, error_body(400, first["msg"], None, ".".join(map(str, first["loc"])))
            except WireError as error:
                status, body = error.status, error.body
            except Exception as error:  # noqa: BLE001 - it is this line's error, and the batch goes on
                log("a line of a batch failed", logging.ERROR, error, custom_id=line["custom_id"])
                status, body = 500, error_body(500, "the server failed; its log has more", "server_error")
            if status == 503:
                await asyncio.sleep(1)
        response = {"status_code": status, "request_id": new_id("req_"), "body": body}
        return {"id": new_id("batch_req_"), "custom_id": line["custom_id"], "response": response, "error": None}

    async def _finish(self, batch: Record, how: str, parts: dict[str, Path]) -> None:
        """Make files of what was answered, and end the batch."""
        await self._change(batch, "in_progress", status="finalizing", finalizing_at=now())
        ids: dict[str, str | None] = {"output": None, "error": None}
        for kind, path in parts.items():
            if path.is_file() and path.stat().st_size:
                name = f"{batch['id']}_{kind}.jsonl"
                record = await asyncio.to_thread(self._files.add, name, "batch_output", partial(_copy, path))
                ids[kind] = record["id"]
        await self._ends(batch, how, output_file=ids["output"], error_file=ids["error"])
        for path in parts.values():
            path.unlink(missing_ok=True)

    async def _ends(self, batch: Record, how: str, **values: Any) -> None:
        log("batch", batch=batch["id"], status=how)
        await self._change(batch, None, status=how, **{f"{how}_at": now()}, **values)

    async def _change(self, batch: Record, only: str | None, **values: Any) -> Record | None:
        """Update the batch, if its status is `only`; what ends in `_at` goes with its times."""

        def change() -> Record | None:
            current = self._store.get(BATCHES, batch["id"]) or batch
            times = {**current["times"], **{key: values.pop(key) for key in list(values) if key.endswith("_at")}}
            return self._store.change(BATCHES, batch["id"], None if only is None else (only,), times=times, **values)

        return await asyncio.to_thread(change)


def _copy(path: Path, stream: BinaryIO) -> None:
    with path.open("rb") as source:
        shutil.copyfileobj(source, stream)


def _append(path: Path, found: list[Json]) -> None:
    if found:
        with path.open("ab") as stream:
            stream.write("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in found).encode())
            stream.flush()
            os.fsync(stream.fileno())


def _answered(path: Path) -> set[str]:
    """The lines that were answered before; half a line, of a server that was killed, is cut off."""
    if not path.is_file():
        return set()
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        path.write_bytes(whole)
    return {json.loads(line)["custom_id"] for line in whole.splitlines()}
