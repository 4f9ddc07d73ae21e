"""Reading keys and lines from the terminal or a pipe, and making text safe for rich."""

from __future__ import annotations

import sys

from fingerpost.core.printable import printable

ESCAPE = "\x1b"
QUIT = ("q", "", "\x03", "\x04")  # the key, the end of the input, Ctrl-C, Ctrl-D
BACKSPACES = ("\x7f", "\b")


def read_key() -> str:
    """One key press of a terminal, or one character of a pipe; empty at the end of the input."""
    sys.stdout.flush()
    if not sys.stdin.isatty():
        while (key := sys.stdin.read(1)) == "\n":
            pass
        return key
    import click

    try:
        return click.getchar()
    except (KeyboardInterrupt, EOFError):
        return ""


def read_line(prompt: str) -> str:
    """A line of input. On a terminal, Esc and Ctrl-C give an empty one."""
    print(prompt, end="", flush=True)
    if not sys.stdin.isatty():
        return sys.stdin.readline().strip()
    line = ""
    while (key := read_key()) not in ("\r", "\n"):
        if key in ("", ESCAPE, "\x03", "\x04"):
            line = ""
            break
        if key in BACKSPACES:
            if line:
                line = line[:-1]
                print("\b \b", end="", flush=True)
        elif key.isprintable():
            line += key
            print(printable(key), end="", flush=True)
    print()
    return line.strip()


def parse_numbers(text: str, most: int) -> list[int] | None:
    """Parse '3, 5-7' into positions counted from 0; None where it is invalid or exceeds `most`."""
    chosen: set[int] = set()
    for part in text.replace(",", " ").split():
        first, dash, last = part.partition("-")
        ends = (first, last if dash else first)
        if not all(end.isascii() and end.isdigit() and len(end) < 9 for end in ends):
            return None
        start, stop = int(ends[0]), int(ends[1])
        if not 1 <= start <= stop <= most:
            return None
        chosen |= set(range(start - 1, stop))
    return sorted(chosen)


def escape_markup(text: str) -> str:
    """The text without control characters and with rich's markup escaped."""
    from rich.markup import escape

    return escape(printable(text))
