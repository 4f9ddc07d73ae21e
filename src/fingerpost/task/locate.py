"""The line of task.toml that sets a value, for error messages."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Any


def line_of(source: str, path: tuple[Any, ...]) -> int:
    """The line that sets the value at `path`, or the nearest table above it; 1 where nothing matches."""
    best, line = 0, 1
    for number, found in _keys(source):
        shared = 0
        while shared < min(len(found), len(path)) and found[shared] == path[shared]:
            shared += 1
        if shared == len(found) and shared > best:
            best, line = shared, number
    return line


def _keys(source: str) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Line number and full path of every key and table header; tables of an array carry their number."""
    table: tuple[Any, ...] = ()
    counts: dict[tuple[Any, ...], int] = {}
    closing = ""
    for number, line in enumerate(source.splitlines(), 1):
        if closing:
            closing = "" if closing in line else closing
            continue
        stripped = line.strip()
        if header := re.match(r"(\[\[?)([^\[\]]+)\]", stripped):
            table = _path(header[2])
            if header[1] == "[[":
                counts[table] = counts.get(table, -1) + 1
                table = (*table, counts[table])
            yield number, table
        elif key := re.match(
            r"""((?:"[^"]*"|'[^']*'|[\w\-]+)(?:\s*\.\s*(?:"[^"]*"|'[^']*'|[\w\-]+))*)\s*=""", stripped
        ):
            yield number, table + _path(key[1])
            for mark in ('"""', "'''"):
                closing = mark if stripped.count(mark) == 1 else closing


def _path(key: str) -> tuple[Any, ...]:
    node: Any = tomllib.loads(f"{key.strip()} = 0")
    path: tuple[Any, ...] = ()
    while isinstance(node, dict):
        (name, node), *_ = node.items()
        path += (name,)
    return path
