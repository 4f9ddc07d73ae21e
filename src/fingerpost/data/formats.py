"""How a file is written: its encoding, delimiter and quotes, given by the user or recognised."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

from fingerpost.core.errors import InputError

UTF_8 = "utf-8-sig"
"""UTF-8, with or without a byte-order mark."""
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: UTF_8,
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""The longer ones first: the mark of UTF-32 begins with that of UTF-16."""
FILE_SIGNATURES = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a ZIP archive or an Excel file; if it is one, rename it to .xlsx",
    b"\xd0\xcf\x11\xe0": "an old Office file; if it is an Excel file, rename it to .xls",
    b"\x1f\x8b": "a gzip file; unpack it first",
    b"PAR1": "a Parquet file; rename it to .parquet",
    b"SQLite format 3\x00": "an SQLite database",
}
DELIMITERS = (",", ";", "\t", "|")
HEAD_LINES = 50
"""Lines that the delimiter is recognised by."""
SAMPLE_BYTES = 200_000
"""Bytes that a legacy encoding is recognised by."""
MIN_NON_ASCII_BYTES = 8
"""With fewer bytes beyond ASCII there is nothing to recognise an encoding by; windows-1252 is the most usual one."""
ENCODING_SUPERSETS = {
    "iso-8859-1": "windows-1252",
    "iso-8859-15": "windows-1252",
    "iso-8859-9": "windows-1254",
    "gb2312": "gb18030",
}
"""What spreadsheets really write where the encoding looks like one of these."""
BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class FileFormat:
    """How a file is written.

    Attributes:
        quotes: whether double quotes enclose fields of CSV; else they are ordinary characters.
        encoding: a name of Python's codecs; None to recognise it.
        delimiter: the character between fields of CSV; None to recognise it.
    """

    quotes: bool = True
    encoding: str | None = None
    delimiter: str | None = None

    def options(self) -> dict[str, str]:
        """What differs from the default, by the names of the options."""
        given = {
            "quote": None if self.quotes else "none",
            "encoding": self.encoding,
            "delimiter": self.delimiter,
        }
        return {name: value for name, value in given.items() if value}


DEFAULT_FORMAT = FileFormat()


def format_of_options(
    quote: str | None = None, encoding: str | None = None, delimiter: str | None = None
) -> FileFormat:
    """A format from the values of options.

    Raises:
        InputError: an unknown value.
    """
    if quote not in (None, "auto", "none"):
        raise InputError(f"--quote takes auto or none, not '{quote}'")
    if encoding is not None:
        try:
            "".encode(encoding)
            encoding = UTF_8 if codecs.lookup(encoding).name == "utf-8" else encoding
        except (LookupError, ValueError):
            raise InputError(
                f"there is no encoding '{encoding}'; write utf-8, utf-16, windows-1252 or the like with --encoding"
            ) from None
    if delimiter is not None:
        delimiter = {"tab": "\t", "\\t": "\t"}.get(delimiter, delimiter)
        if len(delimiter) != 1 or delimiter in '"\r\n':
            raise InputError(f"--delimiter takes one character or tab, not '{delimiter}'")
    return FileFormat(quote != "none", encoding, delimiter)


def with_detected_encoding(path: Path, form: FileFormat) -> FileFormat:
    """The format with the encoding of a text file, with_detected_encoding if it was not given.

    Raises:
        InputError: the file is not text.
    """
    if form.encoding is not None:
        return form
    facts = path.stat()
    return replace(form, encoding=_encoding_of(path, facts.st_size, facts.st_mtime_ns))


@lru_cache(maxsize=16)
def _encoding_of(path: Path, size: int, changed: int) -> str:  # noqa: ARG001 - the key of the cache
    """The encoding of a text file.

    A byte-order mark decides. Otherwise it is UTF-8, even if a few lines are damaged: text in another encoding hardly ever
    has as many valid sequences of UTF-8 as invalid ones. Other encodings are told apart by chardet.

    Raises:
        InputError: the file is not text.
    """
    with path.open("rb") as stream:
        head = stream.read(BLOCK)
    mark = next((name for mark, name in BYTE_ORDER_MARKS.items() if head.startswith(mark)), None)
    if mark is not None:
        return mark
    kind = next((kind for start, kind in FILE_SIGNATURES.items() if head.startswith(start)), None)
    if kind is not None:
        raise InputError(f"{path} is no text file: it begins like {kind}")
    if zeros := head.count(0):
        if zeros < len(head) * 0.2:
            raise InputError(f"{path} is no text file: it holds binary zeros; export it again")
        odd = head[1::2].count(0)
        return "utf-16-le" if odd * 2 > zeros else "utf-16-be"
    valid, invalid, sample = _scan(path)
    if invalid <= valid:
        return UTF_8
    if sum(byte > 127 for byte in sample) < MIN_NON_ASCII_BYTES:
        return "windows-1252"
    import chardet

    found = str(chardet.detect(sample)["encoding"] or "windows-1252").lower()
    return ENCODING_SUPERSETS.get(found, found)


def _scan(path: Path) -> tuple[int, int, bytes]:
    """How many lines beyond ASCII are UTF-8 and how many are not, and a sample of the latter with the first line."""
    valid = invalid = 0
    with path.open("rb") as stream:
        sample = [stream.readline(BLOCK)]
        size = len(sample[0])
        stream.seek(0)
        while line := stream.readline(BLOCK):
            if line.isascii():
                continue
            try:
                line.decode("utf-8")
                valid += 1
            except UnicodeDecodeError as error:
                if error.reason == "unexpected end of data" and len(line) == BLOCK:  # the line was cut here
                    continue
                invalid += 1
                if size < SAMPLE_BYTES:
                    sample.append(line)
                    size += len(line)
    return valid, invalid, b"".join(sample)


def delimiter_of(lines: Iterable[str], quotes: bool = True) -> str:
    """The delimiter of a CSV file, with_detected_encoding by its first lines: with it, the most lines have as many fields as the header.

    Where several do equally well, the one that gives the header more fields is taken; a comma where none splits it.
    """
    head = list(lines)[:HEAD_LINES]

    def score(delimiter: str) -> tuple[int, int]:
        quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
        try:
            rows = [row for row in csv.reader(head, delimiter=delimiter, quoting=quoting) if row]
        except csv.Error:
            return 0, 0
        width = len(rows[0]) if rows else 0
        return (sum(len(row) == width for row in rows), width) if width > 1 else (0, 0)

    return max(DELIMITERS, key=score)
