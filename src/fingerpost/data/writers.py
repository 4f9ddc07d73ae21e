"""Write files of rows as streams: CSV, JSON Lines, Parquet.

A spreadsheet runs a cell of CSV that begins with one of FORMULA_STARTS as a formula, which may send data elsewhere (CWE-1236).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from fingerpost.core.errors import InputError
from fingerpost.core.utils import require_extra

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


class Writer(Protocol):
    """Writes rows in batches. All rows have the same columns.

    Attributes:
        formulas: the number of cells of CSV that a spreadsheet would run as formulas.
    """

    formulas: int

    def write(self, rows: list[dict[str, Any]]) -> None: ...


@contextmanager
def writing(path: Path, safe_csv: bool = False, delimiter: str = ",", encoding: str = "utf-8") -> Iterator[Writer]:
    """A writer of CSV, JSON Lines or Parquet, chosen by the file's extension.

    The file appears when everything is written; after an error, there is none.

    Args:
        safe_csv: write an apostrophe before cells of CSV that a spreadsheet would run as formulas.
        delimiter, encoding: of CSV.

    Raises:
        InputError: another extension, or the folder does not exist.
    """
    kind = path.suffix.lower()
    writers: dict[str, Any] = {
        ".csv": partial(_CsvWriter, safe=safe_csv, delimiter=delimiter, encoding=encoding),
        ".tsv": partial(_CsvWriter, safe=safe_csv, delimiter="\t", encoding=encoding),
        ".jsonl": _JsonlWriter,
        ".ndjson": _JsonlWriter,
        ".parquet": _ParquetWriter,
    }
    if kind == ".parquet":
        require_extra("parquet", "writing Parquet")
    if kind not in writers:
        raise InputError(f"{path}: cannot write '{kind}' files; use .csv, .jsonl or .parquet")
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent}; create it first")
    unfinished = path.with_name(path.name + ".partial")
    writer = writers[kind](unfinished)
    try:
        yield writer
        writer.close()
        unfinished.replace(path)
    finally:
        writer.close()
        unfinished.unlink(missing_ok=True)


class _CsvWriter:
    def __init__(self, path: Path, safe: bool, delimiter: str, encoding: str) -> None:
        self.formulas, self._safe, self._delimiter = 0, safe, delimiter
        self._stream = path.open("w", encoding=encoding, newline="")
        self._writer: csv.DictWriter[str] | None = None

    def write(self, rows: list[dict[str, Any]]) -> None:
        if self._writer is None and rows:
            self._writer = csv.DictWriter(self._stream, list(rows[0]), delimiter=self._delimiter, lineterminator="\n")
            self._writer.writerow({name: self._cell(str(name)) for name in self._writer.fieldnames})
        if self._writer:
            if different := next((row for row in rows if row.keys() - set(self._writer.fieldnames)), None):
                raise InputError(
                    f"not all rows have the same columns ({', '.join(different)}); write a .jsonl file instead"
                )
            self._writer.writerows([{key: self._cell(value) for key, value in row.items()} for row in rows])

    def _cell(self, value: Any) -> Any:
        if isinstance(value, dict | list):
            value = json.dumps(value, ensure_ascii=False, default=str)
        if isinstance(value, str) and value.startswith(FORMULA_STARTS) and not _is_number(value):
            self.formulas += 1
            return f"'{value}" if self._safe else value
        return value

    def close(self) -> None:
        self._stream.close()


class _JsonlWriter:
    formulas = 0

    def __init__(self, path: Path) -> None:
        self._stream = path.open("w", encoding="utf-8")

    def write(self, rows: Iterable[dict[str, Any]]) -> None:
        self._stream.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)

    def close(self) -> None:
        self._stream.close()


class _ParquetWriter:
    """Each batch of rows becomes a file in a temporary folder; at the end they are joined into one."""

    formulas = 0

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


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
