"""Finds the line of task.toml that sets a value, for error messages."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Any


def line_of(source: str, path: tuple[Any, ...]) -> int:
    """The line number (from 1) that sets a value.

    Args:
        source: the text of a TOML file.
        path: keys from the top level down to the value; an integer selects an entry of an array of tables.

    Returns:
        The line of the value, else of the closest enclosing table, else 1.
    """
    best, line = 0, 1
    for number, key_path in _key_lines(source):
        shared = 0
        while shared < min(len(key_path), len(path)) and key_path[shared] == path[shared]:
            shared += 1
        if shared == len(key_path) and shared > best:
            best, line = shared, number
    return line


def _key_lines(source: str) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Line number and full path of every key and table header. The path of an array's table ends with its index."""
    table: tuple[Any, ...] = ()
    counts: dict[tuple[Any, ...], int] = {}
    open_quote = ""
    for number, line in enumerate(source.splitlines(), 1):
        if open_quote:
            open_quote = "" if open_quote in line else open_quote
            continue
        stripped = line.strip()
        if header := re.match(r"""(\[\[?)((?:"[^"]*"|'[^']*'|[^\[\]"'])+)\]""", stripped):
            table = _split_key(header[2])
            if header[1] == "[[":
                counts[table] = counts.get(table, -1) + 1
                table = (*table, counts[table])
            yield number, table
        elif key := re.match(
            r"""((?:"[^"]*"|'[^']*'|[\w\-]+)(?:\s*\.\s*(?:"[^"]*"|'[^']*'|[\w\-]+))*)\s*=""", stripped
        ):
            yield number, table + _split_key(key[1])
            for quote in ('"""', "'''"):
                open_quote = quote if stripped.count(quote) == 1 else open_quote


def _split_key(key: str) -> tuple[Any, ...]:
    """The parts of a dotted TOML key; of one that this module does not understand, the key itself."""
    try:
        node: Any = tomllib.loads(f"{key.strip()} = 0")
    except tomllib.TOMLDecodeError:
        return (key,)
    path: tuple[Any, ...] = ()
    while isinstance(node, dict):
        (name, node), *_ = node.items()
        path += (name,)
    return path
