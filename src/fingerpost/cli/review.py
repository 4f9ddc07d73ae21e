"""review: one key a question, in the terminal. What to ask and what it teaches is decided elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fingerpost.cli.console import console
from fingerpost.cli.options import Folder
from fingerpost.project import Project

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from fingerpost.consensus.history import Stroke
    from fingerpost.consensus.review import Group, Review, Round
    from fingerpost.consensus.session import Card, Desk, Sample
    from fingerpost.core.types import Question

KEYS = "1-9 label   / other label   0 none of these   s skip   u undo   n note   g groups   q quit   ? help"
HELP = """\
  1-9   the label with this number
  Enter the first of them
  /     any label: type a part of its name, then Enter
  0     none of these: no label of the task fits
  s     skip: not again in this sitting
  u     undo the last answer
  n     a note, kept with the next answer
  g     groups: correct a whole confusion at one stroke
  q     quit: every answer is stored already"""
DIGITS = tuple("123456789")
SHOWN = 12


def review(
    folder: Path = Folder,
    test: Annotated[int | None, typer.Option(min=1, help="Decide a uniform sample of so many test questions.")] = None,
    groups: Annotated[bool, typer.Option("--groups", help="Correct whole confusions at one stroke.")] = False,
    by: Annotated[str | None, typer.Option(help="Your name, kept with your answers; else the user's.")] = None,
    history: Annotated[bool, typer.Option("--history", help="List what was decided, with its marks.")] = False,
    take_back: Annotated[str | None, typer.Option(metavar="MARK", help="Take back what has this mark.")] = None,
) -> None:
    """Decide the few questions that teach the student most; or a sample to measure with."""
    import getpass

    from fingerpost.consensus.history import strokes
    from fingerpost.consensus.history import take_back as withdraw
    from fingerpost.consensus.review import Review
    from fingerpost.consensus.session import Sample
    from fingerpost.core.errors import InputError
    from fingerpost.core.utils import require_training

    project = Project(folder)
    try:
        name = by or getpass.getuser()
    except (OSError, KeyError):  # in a container without users
        raise InputError("who are you? name yourself with --by") from None
    with project.store() as store:
        if history:
            _history(strokes(store))
            return
        if take_back is not None:
            print(f"{withdraw(store, take_back):,} answers taken back")
            return
        if test is not None:
            _measure(Sample(project.task, store, name, test))
            return
        require_training("reviewing")
        desk = Review(project.task, store, name, project.embed)
        if groups:
            _groups(desk, console())
        else:
            _decide(desk)


# --- one question after the other


def _decide(desk: Review) -> None:
    screen = console()
    asked = desk.next()
    if asked is None:
        print("nothing is left to review")
        return
    told = 0
    while asked is not None:
        if len(desk.rounds) > told:
            told = len(desk.rounds)
            _tell_round(desk.rounds[-1], desk, screen)
        status = f"{desk.reviewed:,} reviewed   {desk.log.rate:.0f} a minute   "
        status += f"{desk.round_left} to the next round"
        asked = _ask(desk, asked, status, screen)
    _farewell(desk)


def _measure(desk: Sample) -> None:
    screen = console()
    print(
        f"a uniform sample of {len(desk.questions):,} test questions, {desk.left:,} of them open; no hints, on purpose"
    )
    asked = desk.next()
    while asked is not None:
        asked = _ask(desk, asked, f"{desk.left:,} left   {desk.log.rate:.0f} a minute", screen)
    print(f"{len(desk.questions) - desk.left:,} of {len(desk.questions):,} are decided; 'fingerpost evaluate' measures")


def _ask(desk: Review | Sample, card: Card, status: str, screen: Console) -> Card | None:
    """Show a card until it is decided; returns the next card, or None to stop."""
    from fingerpost.consensus.review import Review

    labels = [label for label, _ in card.likely] or desk.task.names[:9]
    note: str | None = None
    _show(card, labels, status, screen)
    while True:
        key = _key()
        if key in ("q", "", "\x03", "\x04"):
            return None
        if key in ("\r", "\n") and card.likely:
            key = "1"
        if key in DIGITS and int(key) <= len(labels):
            _done(desk, card, labels[int(key) - 1], note, screen)
            return desk.next()
        if key == "0":
            _done(desk, card, None, note, screen)
            return desk.next()
        if key == "/":
            if (label := _search(desk.task.names, screen)) is not None:
                _done(desk, card, label, note, screen)
                return desk.next()
        elif key == "s":
            if isinstance(desk, Review):
                desk.skip(card.question)
            return desk.next()
        elif key == "u":
            if not (back := desk.undo()):
                print("  nothing to undo in this sitting")
                continue
            if len(back) > 1:
                print(f"  {len(back):,} answers taken back")
            desk.put_back(card.question.id)
            if len(back) == 1:
                desk.put_back(back[0])
            return desk.next()
        elif key == "n":
            note = _line("  note: ") or None
        elif key == "g" and isinstance(desk, Review):
            _groups(desk, screen)
            return desk.next()
        elif key == "?":
            print(HELP)
        else:
            print(f"  {KEYS}")


def _done(desk: Desk, card: Card, label: str | None, note: str | None, screen: Console) -> None:
    desk.answer(card.question, label, note)
    news = " (news)" if card.likely and label != card.likely[0][0] else ""
    screen.print(f"  [bold]{_plain(label or 'none of these')}[/]{news}")


def _show(card: Card, labels: Sequence[str], status: str, screen: Console) -> None:
    screen.print(f"\n[dim]{'─' * 72}\n{status}[/]")
    if card.reason:
        screen.print(f"[dim]{_plain(card.reason)}[/]")
    print()
    _turns(card.question, screen)
    print()
    probability = dict(card.likely)
    for number, label in enumerate(labels, 1):
        share = f"{probability[label]:4.0%}  " if label in probability else ""
        said = "   [dim]the teacher's[/]" if label == card.teacher else ""
        screen.print(f"  [bold]{number}[/]  {share}{_plain(label)}{said}")
    for question, label in card.neighbours:
        screen.print(f"  [dim]near: {_plain(_short(question, 56))}  ->  {_plain(label)}[/]")
    screen.print(f"[dim]{KEYS}[/]")


def _turns(question: Question, screen: Console) -> None:
    for turn in question.messages[:-1]:
        screen.print(f"  [dim]{turn.role}: {_plain(turn.content)}[/]")
    screen.print(f"  [bold]{_plain(question.messages[-1].content)}[/]")


def _tell_round(round_: Round, desk: Review, screen: Console) -> None:
    wrong = round_.answers - round_.foreseen
    screen.print(
        f"\nround {len(desk.rounds)}: {wrong} of {round_.answers} answers were news; the consensus changed "
        f"{round_.changed:,} of {round_.of:,} labels. The next {desk.round_left} answers may change about "
        f"{desk.expected_changes():,}."
    )
    if round_.enough:
        screen.print("[bold]Going on is hardly worth it:[/] the most doubtful questions bring no news. q to stop.")


def _farewell(desk: Review) -> None:
    count = desk.log.answers
    print(f"\n{count:,} answers of this sitting are stored" if count else "\nnothing was decided")
    if count:
        print("'fingerpost train' learns from them; 'fingerpost review --test 200' decides a sample to measure with")


# --- groups


def _groups(desk: Review, screen: Console) -> None:
    """Show the confusions one after the other; correct, leave members out, or pass on."""
    desk.refresh()
    found = desk.groups()
    if not found:
        print("  no confusion is large enough to be corrected at one stroke; review some more questions")
        return
    for number, group in enumerate(found, 1):
        _show_group(group, f"{number} of {len(found)}", screen)
        while True:
            key = _key()
            if key == "y" or key == "x":
                wish = _line("  leave out (numbers, or ranges as 3-5): ") if key == "x" else ""
                leave_out = _numbers(wish, len(group.questions))
                if leave_out is None or (key == "x" and not leave_out):
                    print(f"  numbers from 1 to {len(group.questions)}, please; nothing was changed")
                    continue
                mark = desk.correct(group, leave_out=leave_out)
                count = len(group.questions) - len(leave_out)
                print(f"  {count:,} questions are {group.likely} now; 'fingerpost review --take-back {mark}' undoes it")
                break
            if key == "a":
                _list(group, screen)
            elif key == "s":
                break
            elif key in ("q", "", "\x03", "\x04"):
                return
            else:
                print("  y all of them   x all but some   a show all   s next group   q back")
    print("  no more groups")


def _show_group(group: Group, place: str, screen: Console) -> None:
    screen.print(f"\n[dim]{'─' * 72}\ngroup {place}[/]")
    screen.print(
        f"{len(group.questions):,} questions that the teacher calls {_plain(group.said)}: are they "
        f"[bold]{_plain(group.likely)}[/]?"
    )
    _list(group, screen, SHOWN)
    screen.print("[dim]y all of them   x all but some   a show all   s next group   q back[/]")


def _list(group: Group, screen: Console, most: int | None = None) -> None:
    for number, question in enumerate(group.questions[:most], 1):
        screen.print(f"  {number:3}  {_plain(_short(question, 100))}")
    if most is not None and len(group.questions) > most:
        screen.print(f"  [dim]... and {len(group.questions) - most:,} more, less sure; a shows all[/]")


def _numbers(text: str, most: int) -> list[int] | None:
    """Positions counted from 0 of '3, 5-7', or None where that is not it."""
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


# --- the keyboard


def _key() -> str:
    """One key of a terminal; one character of anything else; empty at the end."""
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


def _line(prompt: str) -> str:
    print(prompt, end="", flush=True)
    return sys.stdin.readline().strip()


def _search(names: Sequence[str], screen: Console) -> str | None:
    """A label by a part of its name, or by its number in a list of those that have it."""
    from fingerpost.core.text import canonical_name

    wish = _line("  label: ")
    found = [name for name in names if canonical_name(wish) in canonical_name(name)] if wish else list(names)
    exact = [name for name in names if canonical_name(name) == canonical_name(wish)]
    if len(exact or found) == 1:
        return (exact or found)[0]
    if not found:
        print(f"  no label has '{wish}' in its name")
        return None
    for number, name in enumerate(found, 1):
        screen.print(f"  {number:3}  {_plain(name)}")
    chosen = _numbers(_line("  number: "), len(found))
    return found[chosen[0]] if chosen else None


def _history(strokes: Sequence[Stroke]) -> None:
    for stroke in strokes:
        taken = "" if stroke.holds else "   taken back"
        note = f"   {_safe(stroke.note)}" if stroke.note else ""
        print(f"{stroke.mark}  {stroke.at}  {stroke.by}  {stroke.count:,} x {stroke.label or '(none)'}{note}{taken}")
    if not strokes:
        print("nothing was decided yet")


def _plain(text: str) -> str:
    """Safe to print, and free of markup."""
    from rich.markup import escape

    return escape(_safe(text))


def _safe(text: str) -> str:
    """Free of what would steer the terminal: control characters, changes of direction."""
    from unicodedata import bidirectional, category

    steering = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    return "".join(
        "\N{REPLACEMENT CHARACTER}"
        if (category(each) == "Cc" and each not in "\n\t") or bidirectional(each) in steering
        else each
        for each in text
    )


def _short(question: Question, width: int) -> str:
    from fingerpost.core.text import shorten

    return shorten(question.messages[-1].content, width)
