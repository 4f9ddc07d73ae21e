"""Write files of rows as streams: CSV, JSON Lines, Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from fingerpost.core.errors import InputError


class Writer(Protocol):
    """Writes rows in batches. All rows have the same columns."""

    def write(self, rows: list[dict[str, Any]]) -> None: ...


@contextmanager
def writing(path: Path) -> Iterator[Writer]:
    """A writer of CSV, JSON Lines or Parquet, chosen by the file's extension.

    The file appears when everything is written; after an error, there is none.

    Raises:
        InputError: another extension, or the folder does not exist.
    """
    kind = path.suffix.lower()
    writers: dict[str, Any] = {
        ".csv": _CsvWriter,
        ".jsonl": _JsonlWriter,
        ".ndjson": _JsonlWriter,
        ".parquet": _ParquetWriter,
    }
    if kind not in writers:
        raise InputError(f"{path}: cannot write '{kind}' files; use .csv, .jsonl or .parquet")
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent}; create it first")
    partial = path.with_name(path.name + ".partial")
    writer = writers[kind](partial)
    try:
        yield writer
        writer.close()
        partial.replace(path)
    finally:
        writer.close()
        partial.unlink(missing_ok=True)


class _CsvWriter:
    def __init__(self, path: Path) -> None:
        self._stream = path.open("w", encoding="utf-8", newline="")
        self._writer: csv.DictWriter[str] | None = None

    def write(self, rows: list[dict[str, Any]]) -> None:
        if self._writer is None and rows:
            self._writer = csv.DictWriter(self._stream, list(rows[0]), lineterminator="\n")
            self._writer.writeheader()
        if self._writer:
            if different := next((row for row in rows if row.keys() - set(self._writer.fieldnames)), None):
                raise InputError(
                    f"not all rows have the same columns ({', '.join(different)}); write a .jsonl file instead"
                )
            self._writer.writerows([{key: _cell(value) for key, value in row.items()} for row in rows])

    def close(self) -> None:
        self._stream.close()


class _JsonlWriter:
    def __init__(self, path: Path) -> None:
        self._stream = path.open("w", encoding="utf-8")

    def write(self, rows: Iterable[dict[str, Any]]) -> None:
        self._stream.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)

    def close(self) -> None:
        self._stream.close()


class _ParquetWriter:
    """Each batch of rows becomes a file in a temporary folder; at the end they are joined into one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._parts = path.with_name(path.name + ".parts")
        self._parts.mkdir(exist_ok=True)
        self._count = 0

    def write(self, rows: list[dict[str, Any]]) -> None:
        import polars

        if rows:
            polars.DataFrame(rows, infer_schema_length=None).write_parquet(self._parts / f"{self._count:08}.parquet")
            self._count += 1

    def close(self) -> None:
        import shutil

        import polars

        if self._parts.is_dir():
            if self._count:
                files = sorted(self._parts.iterdir())
                frames = [polars.scan_parquet(file) for file in files]
                polars.concat(frames, how="diagonal_relaxed").sink_parquet(self._path)
            shutil.rmtree(self._parts)


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, dict | list) else value
