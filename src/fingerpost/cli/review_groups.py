"""Corrects many questions with the same confusion at once, in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fingerpost.cli.terminal import QUIT, escape_markup, parse_numbers, read_key, read_line
from fingerpost.core.printable import printable
from fingerpost.core.text import shorten

if TYPE_CHECKING:
    from rich.console import Console

    from fingerpost.consensus.review import QuestionGroup, ReviewQueue
    from fingerpost.core.types import Question

GROUP_KEYS = "y correct all   x leave some out   a show all   s next group   q back"
SHOWN = 12


def correct_groups(queue: ReviewQueue, screen: Console) -> None:
    """Show the groups one by one; correct all or part of a group, or go to the next."""
    queue.refresh()
    found = queue.groups()
    if not found:
        print("  no group of questions to correct; review more questions first")
        return
    for number, group in enumerate(found, 1):
        _show_group(group, f"{number} of {len(found)}", screen)
        while True:
            key = read_key()
            if key in ("y", "x"):
                numbers = read_line("  leave out (numbers, or ranges such as 3-5): ") if key == "x" else ""
                leave_out = parse_numbers(numbers, len(group.questions))
                if leave_out is None or (key == "x" and not leave_out):
                    print(f"  nothing changed; type numbers from 1 to {len(group.questions)}")
                    continue
                mark = queue.correct(group, leave_out=leave_out)
                count = len(group.questions) - len(leave_out)
                print(
                    f"  {count:,} questions labelled {printable(group.consensus_label)}; "
                    f"to undo: 'fingerpost review --take-back {mark}'"
                )
                break
            if key == "a":
                _list(group, screen)
            elif key == "s":
                break
            elif key in QUIT:
                return
            else:
                print(f"  {GROUP_KEYS}")
    print("  no more groups")


def _show_group(group: QuestionGroup, position: str, screen: Console) -> None:
    screen.print(f"\n[dim]{'─' * 72}\ngroup {position}[/]")
    screen.print(
        f"{len(group.questions):,} questions: teacher's label {escape_markup(group.teacher_label)}, "
        f"consensus [bold]{escape_markup(group.consensus_label)}[/]"
    )
    _list(group, screen, SHOWN)
    screen.print(f"[dim]{GROUP_KEYS}[/]")


def _list(group: QuestionGroup, screen: Console, most: int | None = None) -> None:
    for number, question in enumerate(group.questions[:most], 1):
        screen.print(f"  {number:3}  {escape_markup(last_message(question, 100))}")
    if most is not None and len(group.questions) > most:
        screen.print(f"  [dim]... and {len(group.questions) - most:,} less certain ones; press a to show all[/]")


def last_message(question: Question, width: int) -> str:
    """The question's last message, shortened."""
    return shorten(question.messages[-1].content, width)
