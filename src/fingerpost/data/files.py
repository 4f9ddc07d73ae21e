"""Read files of rows as streams: CSV, TSV, JSON Lines, JSON, Parquet, plain text.

A row that cannot be read is returned with its line and the reason; reading continues with the next row.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from fingerpost.core.errors import InputError
from fingerpost.core.text import parse_json

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".txt")
BATCH = 10_000
"""Rows of Parquet that are decoded at once."""
MIN_MERGED, MERGED = 3, 0.8
"""So many lines, and so large a share of the lines inside a quoted field, make it suspicious if they look like rows."""
FIX_QUOTES = "remove the stray one, double it, or read all quotes as ordinary characters with --quote none"
MAX_FIELD = 10_000_000
"""Characters in one field of CSV."""


@dataclass(frozen=True, slots=True)
class FileFormat:
    """How a file is written.

    Attributes:
        quotes: whether double quotes enclose fields of CSV; else they are ordinary characters.
    """

    quotes: bool = True


DEFAULT_FORMAT = FileFormat()


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its line (in JSON and Parquet, its number) and its values by column, or why it cannot be read."""

    line: int
    values: dict[str, Any] = field(default_factory=dict)
    error: str = ""


def read_rows(path: Path, format: FileFormat = DEFAULT_FORMAT) -> Iterator[Row]:
    """Stream the rows of a file. In plain text, every line is a row with the column `text`.

    Raises:
        InputError: the file is missing, empty, of an unknown kind, or not of the kind that its name says.
    """
    kind = path.suffix.lower()
    if not path.is_file():
        raise InputError(f"there is no file {path}; check its name and folder")
    if kind not in SUFFIXES:
        raise InputError(f"{path}: unknown kind of file '{kind}'; rename it to one of {', '.join(SUFFIXES)}")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty; give a file with at least one row")
    if kind in (".csv", ".tsv"):
        return _read_csv(path, format)
    if kind == ".parquet":
        return _read_parquet(path)
    return {".txt": _read_text, ".json": _read_json}.get(kind, _read_jsonl)(path)


def columns(path: Path) -> list[str]:
    """The names of a file's columns; in JSON, of the first row's fields.

    Raises:
        InputError: as `read_rows` does; or no row can be read.
    """
    for row in read_rows(path):
        if not row.error:
            return list(row.values)
    raise InputError(f"{path} has no row that can be read; check that its content matches its file extension")


def _read_csv(path: Path, format: FileFormat) -> Iterator[Row]:
    csv.field_size_limit(MAX_FIELD)
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        first = stream.readline()
        separator = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=first.count)
        lines: list[str] = []
        reader = csv.reader(
            _remembered(chain([first], stream), lines),
            delimiter=separator,
            quoting=csv.QUOTE_MINIMAL if format.quotes else csv.QUOTE_NONE,
            strict=True,
        )
        try:
            header = [name.strip() for name in next(reader, [])]
        except csv.Error as error:
            raise InputError(f"{path}: the header in line 1 is not CSV ({error}); look at its quotes") from None
        if not any(header):
            raise InputError(f"{path} has no header; its first line must name the columns")
        while True:
            line = reader.line_num + 1
            lines.clear()
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                stray = _stray_quote(lines, line, separator, len(header))
                yield Row(line, error=stray or f"not CSV: {error}; look at its quotes: {FIX_QUOTES}")
                continue
            if not values:
                continue
            if format.quotes and (reason := _stray_quote(lines, line, separator, len(header))):
                yield Row(line, error=reason)
            elif len(values) != len(header):
                yield Row(
                    line,
                    error=f"{len(values)} fields where the header has {len(header)}; quote fields with commas",
                )
            elif any(_has_invalid_bytes(value) for value in values):
                yield Row(line, error="not UTF-8; save the file as UTF-8")
            else:
                yield Row(line, dict(zip(header, values, strict=True)))


def _remembered(stream: Iterator[str], lines: list[str]) -> Iterator[str]:
    """The lines of a stream, which are also added to `lines`."""
    for line in stream:
        lines.append(line)
        yield line


def _stray_quote(lines: list[str], first: int, separator: str, columns: int) -> str:
    """Why a row that was read from these lines probably holds several rows, because of a stray quote; empty if it does not.

    A field with line breaks is usual. But where the lines inside it look like rows themselves, or its quote is never closed,
    the file has a quote too many or too few.
    """
    last = first + len(lines) - 1
    if len(lines) > 1 and sum(line.count('"') for line in lines) % 2:
        return f"a quote is opened and never closed, up to line {last}; {FIX_QUOTES}"
    inner = [line for line in lines[1:-1] if line.strip()]
    like_rows = sum(line.count(separator) == columns - 1 for line in inner)
    if columns > 1 and len(inner) >= MIN_MERGED and like_rows >= MERGED * len(inner):
        return (
            f"a quoted field ends on line {last}, and the lines inside it look like rows; look at the quotes on the lines "
            f"{first} and {last}: {FIX_QUOTES}"
        )
    return ""


def _read_jsonl(path: Path) -> Iterator[Row]:
    for line, text in _lines(path):
        if _has_invalid_bytes(text):
            yield Row(line, error="not UTF-8; save the file as UTF-8")
            continue
        try:
            values = parse_json(text)
        except ValueError as error:
            yield Row(line, error=f"not JSON: {error}")
            continue
        yield (Row(line, values) if isinstance(values, dict) else Row(line, error="not a JSON object; write {...}"))


def _read_json(path: Path) -> Iterator[Row]:
    try:
        items = parse_json(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); JSON Lines end with .jsonl") from None
    if not isinstance(items, list):
        raise InputError(f"{path} is not a list of rows; write [{{...}}, ...], or JSON Lines in a .jsonl file")
    for number, values in enumerate(items, 1):
        yield (Row(number, values) if isinstance(values, dict) else Row(number, error="not a JSON object; write {...}"))


def _read_text(path: Path) -> Iterator[Row]:
    for line, text in _lines(path):
        yield (
            Row(line, error="not UTF-8; save the file as UTF-8")
            if _has_invalid_bytes(text)
            else Row(line, {"text": text})
        )


def _read_parquet(path: Path) -> Iterator[Row]:
    import polars

    try:
        number = 0
        for frame in polars.scan_parquet(path, glob=False).collect_batches(chunk_size=BATCH, maintain_order=True):
            for values in frame.iter_rows(named=True):
                number += 1
                yield Row(number, values)
    except polars.exceptions.PolarsError as error:
        raise InputError(
            f"{path} cannot be read as Parquet ({str(error).splitlines()[0][:100]}); export it again"
        ) from None


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number, text) of the lines that are not blank."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield number, line.strip("\r\n")


def _has_invalid_bytes(text: str) -> bool:
    """Whether decoding met bytes that are not UTF-8 (`surrogateescape` maps them to U+DC80 to U+DCFF)."""
    return not text.isascii() and any("\udc80" <= character <= "\udcff" for character in text)
