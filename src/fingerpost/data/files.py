"""Read files of rows as streams: CSV, TSV, JSON Lines, JSON, Parquet, Excel, plain text.

A row that cannot be read is returned with its line and the reason; reading continues with the next row.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, Literal

from fingerpost.core.errors import InputError
from fingerpost.core.text import parse_json
from fingerpost.core.utils import require_extra
from fingerpost.data.formats import DEFAULT_FORMAT, HEAD_LINES, UTF_8, FileFormat, delimiter_of, with_detected_encoding

SPREADSHEETS = (".xlsx", ".xlsm", ".xls", ".ods")
TEXT_FILES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".txt")
SUFFIXES = (*TEXT_FILES, ".parquet", *SPREADSHEETS)
BATCH = 10_000
"""Rows of Parquet that are decoded at once."""
MIN_MERGED, MERGED = 3, 0.8
"""So many lines, and so large a share of the lines inside a quoted field, make it suspicious if they look like rows."""
FIX_QUOTES = "remove the stray one, double it, or read all quotes as ordinary characters with --quote none"
MAX_FIELD = 10_000_000
"""Characters in one field of CSV."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its line (in JSON and Parquet, its number) and its values by column, or why it cannot be read.

    Of a row with too few or too many fields, `values` are those that have a column.
    """

    line: int
    values: dict[str, Any] = field(default_factory=dict)
    error: str = ""


def read_rows(path: Path, format: FileFormat = DEFAULT_FORMAT) -> Iterator[Row]:
    """Stream the rows of a file. In plain text, every line is a row with the column `text`; of a workbook, the first sheet
    with content is read.

    Raises:
        InputError: the file is missing, empty, of an unknown kind, or not of the kind that its name says.
    """
    kind = path.suffix.lower()
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file in it, or a project, which has a task.toml")
    if not path.is_file():
        raise InputError(f"there is no file {path}; check its name and folder")
    if kind not in SUFFIXES:
        raise InputError(f"{path}: unknown kind of file '{kind}'; rename it to one of {', '.join(SUFFIXES)}")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty; give a file with at least one row")
    if kind == ".parquet":
        return _read_parquet(path)
    if kind in SPREADSHEETS:
        return _read_spreadsheet(path)
    format = with_detected_encoding(path, format)
    if kind in (".csv", ".tsv"):
        return _read_csv(path, format)
    return {".txt": _read_text, ".json": _read_json}.get(kind, _read_jsonl)(path, str(format.encoding))


def columns(path: Path, format: FileFormat = DEFAULT_FORMAT) -> list[str]:
    """The names of a file's columns; in JSON, of the first row's fields.

    Raises:
        InputError: as `read_rows` does; or no row can be read.
    """
    rows = read_rows(path, format)
    if path.suffix.lower() in (".csv", ".tsv"):
        format = with_detected_encoding(path, format)
        with _opened(path, format, newline="") as stream:
            head = list(islice(stream, HEAD_LINES))
            skipped, separator = _delimiter(path, format, head)
            quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if format.quotes else csv.QUOTE_NONE
            return [name.strip() for name in next(csv.reader(head[skipped:], delimiter=separator, quoting=quoting), [])]
    for row in rows:
        if not row.error:
            return list(row.values)
    raise InputError(f"{path} has no row that can be read; check that its content matches its file extension")


def _read_csv(path: Path, format: FileFormat) -> Iterator[Row]:
    csv.field_size_limit(MAX_FIELD)
    with _opened(path, format, newline="") as stream:
        head = list(islice(stream, HEAD_LINES))
        skipped, separator = _delimiter(path, format, head)
        lines: list[str] = []
        reader = csv.reader(
            _remembered(chain(head[skipped:], stream), lines),
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
            line = reader.line_num + 1 + skipped
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
                    dict(zip(header, values, strict=False)),
                    f"{len(values)} fields where the header has {len(header)}; quote fields with commas",
                )
            elif any(_has_invalid_bytes(value) for value in values):
                yield Row(line, error=_not_encoded(str(format.encoding)))
            else:
                yield Row(line, dict(zip(header, values, strict=True)))


def count_lines(path: Path) -> int:
    """The number of lines of a text file, to show progress by; 0 for other kinds of files."""
    if path.suffix.lower() not in TEXT_FILES:
        return 0
    with path.open("rb") as stream:
        return sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))


def delimiter_of_file(path: Path, format: FileFormat) -> str:
    """The delimiter of a CSV file."""
    format = with_detected_encoding(path, format)
    with _opened(path, format, newline="") as stream:
        return _delimiter(path, format, list(islice(stream, HEAD_LINES)))[1]


def _delimiter(path: Path, format: FileFormat, head: list[str]) -> tuple[int, str]:
    """The number of lines before the header, and the delimiter. Excel may name it in a first line such as `sep=;`."""
    named = head[0].strip('\r\n"') if head else ""
    skipped = int(len(named) == 5 and named.lower().startswith("sep="))
    if format.delimiter:
        return skipped, format.delimiter
    if skipped:
        return skipped, named[4]
    return 0, "\t" if path.suffix.lower() == ".tsv" else delimiter_of(head, format.quotes)


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


def _read_jsonl(path: Path, encoding: str) -> Iterator[Row]:
    for line, text in _lines(path, encoding):
        if _has_invalid_bytes(text):
            yield Row(line, error=_not_encoded(encoding))
            continue
        try:
            values = parse_json(text)
        except ValueError as error:
            yield Row(line, error=f"not JSON: {error}")
            continue
        yield (Row(line, values) if isinstance(values, dict) else Row(line, error="not a JSON object; write {...}"))


def _read_json(path: Path, encoding: str) -> Iterator[Row]:
    try:
        items = parse_json(path.read_bytes().decode(encoding))
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); JSON Lines end with .jsonl") from None
    if not isinstance(items, list):
        raise InputError(f"{path} is not a list of rows; write [{{...}}, ...], or JSON Lines in a .jsonl file")
    for number, values in enumerate(items, 1):
        yield (Row(number, values) if isinstance(values, dict) else Row(number, error="not a JSON object; write {...}"))


def _read_text(path: Path, encoding: str) -> Iterator[Row]:
    for line, text in _lines(path, encoding):
        yield (Row(line, error=_not_encoded(encoding)) if _has_invalid_bytes(text) else Row(line, {"text": text}))


def _read_spreadsheet(path: Path) -> Iterator[Row]:
    from python_calamine import CalamineError, CalamineWorkbook

    try:
        book = CalamineWorkbook.from_path(path)
        sheets = (book.get_sheet_by_name(name) for name in book.sheet_names)
        sheet = next((sheet for sheet in sheets if sheet.height > 1), None)
        rows = [] if sheet is None else [[_cell(value) for value in row] for row in sheet.iter_rows()]
    except (CalamineError, OSError) as error:
        raise InputError(
            f"{path} cannot be read as a workbook ({str(error)[:100]}); save it again, or as CSV"
        ) from None
    start = next((number for number, row in enumerate(rows) if any(row)), len(rows))
    if start >= len(rows) - 1:
        raise InputError(f"{path} has no sheet with a header and rows; put the names of the columns in the first row")
    names = [str(name or "").strip() for name in rows[start]]
    for number, row in enumerate(rows[start + 1 :], start + 2):
        if any(value not in (None, "") for value in row):
            yield Row(number, {name: value for name, value in zip(names, row, strict=True) if name})


def _cell(value: Any) -> Any:
    """A cell's value: whole numbers without a decimal point, dates as ISO 8601."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int | float | str) else str(value)


def _read_parquet(path: Path) -> Iterator[Row]:
    require_extra("parquet", "reading Parquet")
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


def _opened(path: Path, format: FileFormat, newline: str | None = None) -> IO[str]:
    """The file as text. Bytes that its encoding does not have become U+DC80 to U+DCFF."""
    encoding = str(format.encoding)
    errors = "replace" if encoding.startswith(("utf-16", "utf-32")) else "surrogateescape"
    return path.open(encoding=encoding, errors=errors, newline=newline)


def _lines(path: Path, encoding: str) -> Iterator[tuple[int, str]]:
    """(line number, text) of the lines that are not blank."""
    with _opened(path, FileFormat(encoding=encoding)) as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield number, line.strip("\r\n")


def _has_invalid_bytes(text: str) -> bool:
    """Whether decoding met bytes that are not of the encoding (`surrogateescape` maps them to U+DC80 to U+DCFF)."""
    return not text.isascii() and any("\udc80" <= character <= "\udcff" for character in text)


def _not_encoded(encoding: str) -> str:
    """Why a line cannot be read."""
    name = "UTF-8" if encoding == UTF_8 else encoding
    return f"not {name}; save the file as UTF-8, or name its encoding with --encoding"
