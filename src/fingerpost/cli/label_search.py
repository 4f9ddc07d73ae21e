"""Searching a label in the terminal: the list narrows with every letter; Enter selects the highlighted one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fingerpost.cli.terminal import BACKSPACES, ESCAPE, escape_markup, parse_numbers, read_key, read_line
from fingerpost.core.printable import printable
from fingerpost.core.text import canonical_name
from fingerpost.core.types import Label

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

SHOWN = 9
"""Labels that are shown at once."""
UP, DOWN = ("\x1b[A", "\x1bOA"), ("\x1b[B", "\x1bOB", "\t")


def ranked(labels: Sequence[Label], query: str) -> list[Label]:
    """The labels that match, the best first: names that begin with the query, then words of names, parts of names, letters in
    order, and descriptions.
    """
    wanted = canonical_name(query)
    if not wanted:
        return list(labels)

    def rank(label: Label) -> int | None:
        name, words = canonical_name(label.name), label.name.replace("_", " ").replace("-", " ").lower().split()
        if name.startswith(wanted):
            return 0 if name == wanted else 1
        if any(word.startswith(wanted) for word in words):
            return 2
        if wanted in name:
            return 3
        if len(wanted) > 2 and query.lower() in label.description.lower():
            return 4
        letters = iter(name)
        return 5 if all(letter in letters for letter in wanted) else None

    found = [(place, label) for label in labels if (place := rank(label)) is not None]
    return [label for _, label in sorted(found, key=lambda item: item[0])]


def search_label(labels: Sequence[Label], screen: Console) -> str | None:
    """Have a label chosen; None where nothing is chosen. Esc and Ctrl-C go back."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return _search_in_pipe(labels, screen)
    from rich.live import Live

    query, marked = "", 0
    with Live(_list(labels, query, marked), console=screen, auto_refresh=False, transient=True) as live:
        while True:
            found = ranked(labels, query)
            key = read_key()
            if key in ("", "\x03", "\x04", ESCAPE):
                return None
            if key in ("\r", "\n"):
                if found:
                    return found[min(marked, len(found) - 1)].name
                continue
            if key in UP or key in DOWN:
                marked = max(0, min(len(found) - 1, marked + (1 if key in DOWN else -1)))
            elif key in BACKSPACES:
                query, marked = query[:-1], 0
            elif key.isprintable():
                query, marked = query + key, 0
            live.update(_list(labels, query, marked), refresh=True)


def _list(labels: Sequence[Label], query: str, marked: int) -> RenderableType:
    """What is shown while a label is searched."""
    from rich.table import Table
    from rich.text import Text

    found = ranked(labels, query)
    first = max(0, min(marked - SHOWN + 1, len(found) - SHOWN))
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis", style="dim")
    table.add_row(Text(f"  label: {printable(query)}▏"), Text("Enter selects, Esc cancels"))
    for number, label in enumerate(found[first : first + SHOWN], first):
        mark = "▸" if number == marked else " "
        style = "bold" if number == marked else ""
        table.add_row(Text(f"  {mark} {printable(label.name)}", style=style), Text(printable(label.description)))
    if not found:
        table.add_row(Text("    no label matches"), Text("Backspace"))
    elif len(found) > first + SHOWN:
        table.add_row(Text(f"    {len(found) - first - SHOWN:,} more"), Text(""))
    return table


def _search_in_pipe(labels: Sequence[Label], screen: Console) -> str | None:
    """Ask for part of a label's name; several matches are listed to choose from."""
    query = read_line("  label: ")
    exact = [label for label in labels if canonical_name(label.name) == canonical_name(query)]
    found = exact or [label for label in labels if canonical_name(query) in canonical_name(label.name)]
    if len(found) == 1:
        return found[0].name
    if not found:
        print(f"  no label contains '{printable(query)}'")
        return None
    for number, label in enumerate(found, 1):
        screen.print(f"  {number:3}  {escape_markup(label.name)}")
    chosen = parse_numbers(read_line("  number: "), len(found))
    return found[chosen[0]].name if chosen else None
