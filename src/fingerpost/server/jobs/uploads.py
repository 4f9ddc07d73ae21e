"""Uploads in parts: what has arrived is on disk before it is acknowledged, and becomes a file when the upload is completed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from fingerpost.server.jobs.files import FileStorage, sync_folder
from fingerpost.server.schemas import ApiError
from fingerpost.store.server import new_id, now
from fingerpost.store.server_rows import FileRow

LIFETIME_S = 3600
MAX_PENDING = 100
ID = re.compile(r"upload_[0-9a-f]{24}")
STATE = "upload.json"
PARTS = "part_"


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload. `bytes` is the size that was announced; `file_id` is set when it is completed."""

    id: str
    filename: str
    purpose: str
    bytes: int
    created_at: int
    expires_at: int
    status: str = "pending"
    file_id: str | None = None


class UploadStorage:
    """The uploads of a server, each in a folder of its own."""

    def __init__(self, folder: Path, files: FileStorage) -> None:
        self._folder, self._files = folder, files
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()

    def create(self, filename: str, purpose: str, size: int) -> Upload:
        """Start an upload.

        Raises:
            ApiError: 429, MAX_PENDING uploads are open.
        """
        with self._lock:
            if sum(1 for _ in self._folder.iterdir()) >= MAX_PENDING:
                raise ApiError(
                    429, f"{MAX_PENDING} uploads are kept already; complete or cancel them, or try again later",
                    code="too_many_uploads", retry_after_s=60,
                )  # fmt: skip
            upload = Upload(new_id("upload_"), filename, purpose, size, now(), now() + LIFETIME_S)
            (self._folder / upload.id).mkdir()
            self._write(upload)
        return upload

    def get(self, upload_id: str) -> Upload:
        """The upload with this id.

        Raises:
            ApiError: 404, there is none.
        """
        path = self._folder / upload_id / STATE
        if not ID.fullmatch(upload_id) or not path.is_file():
            raise ApiError(404, f"there is no upload '{upload_id}'; create one with POST /v1/uploads")
        return Upload(**json.loads(path.read_bytes()))

    def add_part(self, upload_id: str, content: BinaryIO) -> str:
        """Store a part; returns its id.

        Raises:
            ApiError: there is no such upload, it has ended, or its parts are larger than was announced.
        """
        with self._lock:
            upload = self._pending(upload_id)
            folder, part_id = self._folder / upload_id, new_id(PARTS)
            size = content.seek(0, os.SEEK_END)
            if size + sum(path.stat().st_size for path in folder.glob(f"{PARTS}*")) > upload.bytes:
                raise ApiError(
                    400, f"the parts have more than the {upload.bytes:,} bytes that were announced", param="data"
                )
            content.seek(0)
            _write_synced(folder / part_id, content)
        return part_id

    def complete(self, upload_id: str, part_ids: Sequence[str], md5: str | None) -> tuple[Upload, FileRow]:
        """Make a file of the parts, in this order.

        Raises:
            ApiError: a part is missing, or size or hash are not those that were announced.
        """
        with self._lock:
            upload = self._pending(upload_id)
            folder = self._folder / upload_id
            known = {path.name for path in folder.glob(f"{PARTS}*")}
            missing = next((part for part in part_ids if part not in known), None)
            if missing is not None or len(set(part_ids)) != len(part_ids):
                raise ApiError(400, f"'{missing or part_ids[0]}' is not one part of this upload", param="part_ids")
            paths = [folder / part for part in part_ids]
            size = sum(path.stat().st_size for path in paths)
            if size != upload.bytes:
                raise ApiError(
                    400, f"the parts have {size:,} bytes, {upload.bytes:,} were announced; send the missing parts",
                    param="part_ids",
                )  # fmt: skip
            if md5 is not None and _md5(paths) != md5.lower():
                raise ApiError(400, "the parts have another MD5 hash; upload them again", param="md5")
            file = self._files.add(upload.filename, upload.purpose, lambda stream: _copy(paths, stream))
            upload = replace(upload, status="completed", file_id=file.id)
            self._write(upload)
            for path in folder.glob(f"{PARTS}*"):
                path.unlink(missing_ok=True)
        return upload, file

    def cancel(self, upload_id: str) -> Upload:
        """End an upload and delete its parts.

        Raises:
            ApiError: there is no such upload, or it has ended.
        """
        with self._lock:
            upload = replace(self._pending(upload_id), status="cancelled")
            self._write(upload)
            for path in (self._folder / upload_id).glob(f"{PARTS}*"):
                path.unlink(missing_ok=True)
        return upload

    def clean_up(self) -> None:
        """Delete what is over, an hour after it began."""
        for folder in self._folder.iterdir():
            state = folder / STATE
            if not state.is_file() or json.loads(state.read_bytes())["expires_at"] <= now():
                shutil.rmtree(folder, ignore_errors=True)

    def _pending(self, upload_id: str) -> Upload:
        upload = self.get(upload_id)
        status = "expired" if upload.expires_at <= now() else upload.status
        if status != "pending":
            raise ApiError(400, f"the upload is {status}; create a new one with POST /v1/uploads")
        return upload

    def _write(self, upload: Upload) -> None:
        state = self._folder / upload.id / STATE
        new = state.with_suffix(".new")
        new.write_text(json.dumps(asdict(upload)), encoding="utf-8")
        new.replace(state)
        sync_folder(state.parent)


def _write_synced(path: Path, content: BinaryIO) -> None:
    unfinished = path.with_name(f".{path.name}")
    try:
        with unfinished.open("wb") as stream:
            shutil.copyfileobj(content, stream)
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _copy(paths: Sequence[Path], target: Any) -> None:
    for path in paths:
        with path.open("rb") as stream:
            shutil.copyfileobj(stream, target)


def _md5(paths: Sequence[Path]) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    for path in paths:
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
