"""Files and batches as OpenAI's API has them, for the test teacher: in memory, a batch is answered when it is created."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

Answer = Callable[[dict[str, Any]], Awaitable[tuple[int, dict[str, str], Any] | None]]


@dataclass
class Batches:
    """The files and batches of one endpoint.

    Attributes:
        polls: how often a batch is still in progress when it is looked at.
        lose: so many requests of the next batch come back unanswered.
        hide: so many answers of the next batch are not in its output, although they count as completed.
        fail: the reason why all batches fail.
        none: the endpoint has files, but no batches.
        created: number of batches so far.
    """

    polls: int = 0
    lose: int = 0
    hide: int = 0
    fail: str = ""
    none: bool = False
    created: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)

    async def handle(self, method: str, path: str, data: bytes, answer: Answer) -> tuple[int, bytes]:
        """The status and the body for a request to /v1/files or /v1/batches."""
        parts = path.split("?")[0].split("/")[2:]
        if parts[0] == "files" and method == "POST":
            key = f"file-{len(self.files)}"
            self.files[key] = _file(data)
            return 200, json.dumps({"id": key, "object": "file", "purpose": "batch", "bytes": 1, "created_at": 0, "filename": "x", "status": "processed"}).encode()  # fmt: skip
        if parts[0] == "files" and parts[-1] == "content":
            return 200, self.files[parts[1]]
        if parts[0] == "batches" and self.none:
            return 404, json.dumps({"error": {"message": f"no {path}", "type": "x", "code": None}}).encode()
        if parts[0] == "batches" and method == "POST":
            return 200, json.dumps(await self._create(json.loads(data), answer)).encode()
        if parts[0] == "batches" and len(parts) == 1:
            return 200, json.dumps({"object": "list", "data": list(self.batches.values()), "has_more": False}).encode()
        if parts[0] == "batches" and parts[1] in self.batches:
            return 200, json.dumps(self._poll(parts[1])).encode()
        return 404, json.dumps({"error": {"message": f"no {path}", "type": "x", "code": None}}).encode()

    async def _create(self, request: dict[str, Any], answer: Answer) -> dict[str, Any]:
        self.created += 1
        key = f"batch_{self.created}"
        lines = [
            json.loads(line) for line in self.files[request["input_file_id"]].splitlines() if line.startswith(b"{")
        ]
        found = []
        for line in lines[self.lose :]:
            status, _, body = await answer(line["body"]) or (500, {}, {})
            found.append({"id": "x", "custom_id": line["custom_id"], "response": {"status_code": status, "request_id": "y", "body": body}, "error": None})  # fmt: skip
        self.lose = 0
        output = f"file-out-{self.created}"
        self.files[output] = "".join(json.dumps(line) + "\n" for line in found[self.hide :]).encode()
        self.hide = 0
        self.batches[key] = {
            "id": key, "object": "batch", "endpoint": request["endpoint"], "input_file_id": request["input_file_id"],
            "completion_window": "24h", "created_at": 0, "status": "in_progress", "output_file_id": output,
            "request_counts": {"total": len(lines), "completed": len(found), "failed": 0}, "polls": self.polls,
        }  # fmt: skip
        return self.batches[key]

    def _poll(self, key: str) -> dict[str, Any]:
        batch = self.batches[key]
        batch["polls"] -= 1
        if batch["polls"] < 0:
            batch["status"] = "failed" if self.fail else "completed"
            if self.fail:
                error = {"code": "x", "message": self.fail, "line": 1, "param": None}
                batch |= {"errors": {"object": "list", "data": [error]}, "output_file_id": None}
        return batch


def _file(data: bytes) -> bytes:
    """The content of the uploaded file: the part of the form that has a file name."""
    boundary = data.split(b"\r\n", 1)[0]
    part = next(part for part in data.split(boundary) if b"filename" in part)
    return part.split(b"\r\n\r\n", 1)[1]
