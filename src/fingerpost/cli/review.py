"""review: label questions in the terminal, one key per question. Selection and consensus are in `consensus`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fingerpost.cli.console import console
from fingerpost.cli.options import Folder
from fingerpost.cli.terminal import escape_markup, parse_numbers, read_key, read_line
from fingerpost.core.label_sets import format_labels, join_labels, split_labels
from fingerpost.core.printable import printable
from fingerpost.project import Project

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from fingerpost.consensus.history import Decision
    from fingerpost.consensus.review import QuestionGroup, ReviewQueue, ReviewRound
    from fingerpost.consensus.session import Card, ReviewSession, TestSample
    from fingerpost.core.types import Question

KEYS = "1-9 label   / search   0 no label fits   s skip   u undo   n note   g groups   q quit   ? help"
SET_KEYS = "1-9 add or remove a label   Enter or y store   / search   0 no label   s skip   u undo   n note   g groups   q quit   ? help"
SET_HELP = """\
  1-9   add the label with this number to the answer, or remove it
  /     add or remove any label: type part of a name, then Enter
  Enter store the answer; so does y
  0     store that no label applies"""
HELP = """\
  1-9   give the label with this number
  Enter give the first label
  /     search all labels: type part of a name, then Enter
  0     no label of the task fits
  s     skip this question for the rest of the session
  u     undo the last answer
  n     add a note to the next answer
  g     groups: correct many questions with the same confusion at once
  q     quit; all answers are already stored"""
GROUP_KEYS = "y correct all   x leave some out   a show all   s next group   q back"
QUIT = ("q", "", "\x03", "\x04")  # the key, the end of the input, Ctrl-C, Ctrl-D
DIGITS = tuple("123456789")
SHOWN = 12


def review(
    folder: Path = Folder,
    test: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Label a uniform sample of N test questions, without hints.")
    ] = None,
    groups: Annotated[
        bool,
        typer.Option(
            "--groups", help="Correct many questions at once, grouped by the teacher's label and the consensus."
        ),
    ] = False,
    by: Annotated[
        str | None, typer.Option(help="Your name, stored with your answers.", show_default="your user name")
    ] = None,
    history: Annotated[bool, typer.Option("--history", help="List past decisions and their marks.")] = False,
    take_back: Annotated[
        str | None, typer.Option(metavar="MARK", help="Take back the decision with this mark.")
    ] = None,
) -> None:
    """Label the questions that improve the student most, or a test sample to evaluate on."""
    import getpass

    from fingerpost.consensus.history import decisions
    from fingerpost.consensus.history import take_back as withdraw
    from fingerpost.consensus.review import ReviewQueue
    from fingerpost.consensus.session import TestSample
    from fingerpost.core.errors import InputError
    from fingerpost.core.utils import require_training

    project = Project(folder)
    try:
        name = by or getpass.getuser()
    except (OSError, KeyError):  # in a container without users
        raise InputError("this machine has no user name; add --by NAME") from None
    with project.store() as store:
        if history:
            _print_history(decisions(store))
            return
        if take_back is not None:
            print(f"{withdraw(store, take_back):,} answers taken back")
            return
        if test is not None:
            _label_sample(TestSample(project.task, store, name, test))
            return
        require_training("reviewing")
        queue = ReviewQueue(project.task, store, name, project.embed_for_consensus)
        if groups:
            _correct_groups(queue, console())
        else:
            _label_queue(queue)


# --- single questions


def _label_queue(queue: ReviewQueue) -> None:
    screen = console()
    card = queue.next()
    if card is None:
        print("all training questions are reviewed")
        return
    printed = 0
    while card is not None:
        if len(queue.rounds) > printed:
            printed = len(queue.rounds)
            _print_round(queue.rounds[-1], queue, screen)
        status = f"{queue.reviewed:,} reviewed   {queue.log.per_minute:.0f} per minute   "
        status += f"{queue.left_in_round} left in this round"
        card = _decide(queue, card, status, screen)
    _print_summary(queue)


def _label_sample(sample: TestSample) -> None:
    screen = console()
    print(
        f"uniform sample of {len(sample.questions):,} test questions, {sample.remaining:,} without a label; "
        "no hints are shown, so that they do not bias the measurement"
    )
    card = sample.next()
    while card is not None:
        status = f"{sample.remaining:,} left   {sample.log.per_minute:.0f} per minute"
        card = _decide(sample, card, status, screen)
    done = len(sample.questions) - sample.remaining
    print(f"{done:,} of {len(sample.questions):,} test questions have a label; next: 'fingerpost evaluate'")


def _decide(session: ReviewQueue | TestSample, card: Card, status: str, screen: Console) -> Card | None:
    """Show a card until it is decided. Returns the next card, or None to stop."""
    from fingerpost.consensus.review import ReviewQueue

    labels = [label for label, _ in card.suggestions] or session.task.names[:9]
    note: str | None = None
    multi = session.task.multi
    chosen = [label for label, probability in card.suggestions if probability >= 0.5] if multi else []
    _show(card, labels, status, screen, chosen if multi else None)
    while True:
        key = read_key()
        if key in QUIT:
            return None
        if multi and (key in DIGITS or key == "/"):
            added = _search(session.task.names, screen) if key == "/" else dict(enumerate(labels, 1)).get(int(key))
            if added is not None:
                chosen = [label for label in chosen if label != added] + ([] if added in chosen else [added])
                screen.print(f"  {escape_markup(', '.join(chosen)) or 'no label'}   [dim]Enter stores it[/]")
            continue
        if multi and key in ("\r", "\n", "y", "0"):
            _answer(session, card, join_labels(() if key == "0" else chosen), note, screen)
            return session.next()
        if key in ("\r", "\n") and card.suggestions:
            key = "1"
        if key in DIGITS and int(key) <= len(labels):
            _answer(session, card, labels[int(key) - 1], note, screen)
            return session.next()
        if key == "0":
            _answer(session, card, None, note, screen)
            return session.next()
        if key == "/":
            if (label := _search(session.task.names, screen)) is not None:
                _answer(session, card, label, note, screen)
                return session.next()
        elif key == "s":
            if isinstance(session, ReviewQueue):
                session.skip(card.question)
            return session.next()
        elif key == "u":
            if not (undone := session.undo()):
                print("  nothing to undo in this session")
                continue
            if len(undone) > 1:
                print(f"  {len(undone):,} answers taken back")
            session.requeue(card.question.id)
            if len(undone) == 1:
                session.requeue(undone[0])
            return session.next()
        elif key == "n":
            note = read_line("  note: ") or None
        elif key == "g" and isinstance(session, ReviewQueue):
            _correct_groups(session, screen)
            return session.next()
        elif key == "?":
            print(SET_HELP + HELP[HELP.index("\n  s ") :] if multi else HELP)
        else:
            print(f"  {SET_KEYS if multi else KEYS}")


def _answer(session: ReviewSession, card: Card, label: str | None, note: str | None, screen: Console) -> None:
    session.answer(card.question, label, note)
    differs = card.suggestions and not session.task.multi and label != card.suggestions[0][0]
    answer = "no label fits" if label is None else format_labels(label) if session.task.multi else label
    screen.print(f"  [bold]{escape_markup(answer)}[/]{' (differs from the first suggestion)' if differs else ''}")


def _show(card: Card, labels: Sequence[str], status: str, screen: Console, chosen: Sequence[str] | None = None) -> None:
    """Print a card. `chosen` are the labels of the answer so far, if a question may have several."""
    screen.print(f"\n[dim]{'─' * 72}\n{status}[/]")
    if card.reason:
        screen.print(f"[dim]{escape_markup(card.reason)}[/]")
    print()
    _show_turns(card.question, screen)
    print()
    probability = dict(card.suggestions)
    for number, label in enumerate(labels, 1):
        percent = f"{probability[label]:4.0%}  " if label in probability else ""
        given = (
            ()
            if card.teacher_label is None
            else (card.teacher_label,)
            if chosen is None
            else split_labels(card.teacher_label)
        )
        teacher = "   [dim]teacher's label[/]" if label in given else ""
        mark = "" if chosen is None else "\\[x] " if label in chosen else "\\[ ] "
        screen.print(f"  [bold]{number}[/]  {mark}{percent}{escape_markup(label)}{teacher}")
    for question, label in card.neighbours:
        screen.print(f"  [dim]similar: {escape_markup(_short(question, 56))}  ->  {escape_markup(label)}[/]")
    screen.print(f"[dim]{KEYS if chosen is None else SET_KEYS}[/]")


def _show_turns(question: Question, screen: Console) -> None:
    for turn in question.messages[:-1]:
        screen.print(f"  [dim]{turn.role}: {escape_markup(turn.content)}[/]")
    screen.print(f"  [bold]{escape_markup(question.messages[-1].content)}[/]")


def _print_round(finished: ReviewRound, queue: ReviewQueue, screen: Console) -> None:
    differing = finished.answers - finished.predicted
    screen.print(
        f"\nround {len(queue.rounds)}: {differing} of {finished.answers} answers differed from the consensus; they "
        f"changed {finished.changed:,} of {finished.total:,} labels. The next {queue.left_in_round} answers will change "
        f"about {queue.expected_changes():,} labels."
    )
    if finished.converged:
        screen.print("[bold]More reviews will change little:[/] the consensus predicts your answers. Press q to stop.")


def _print_summary(session: ReviewSession) -> None:
    count = session.log.answered
    print(f"\n{count:,} answers stored" if count else "\nno answers given")
    if count:
        print("next: 'fingerpost train', or 'fingerpost review --test 200' to label a test sample")


# --- groups


def _correct_groups(queue: ReviewQueue, screen: Console) -> None:
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
        screen.print(f"  {number:3}  {escape_markup(_short(question, 100))}")
    if most is not None and len(group.questions) > most:
        screen.print(f"  [dim]... and {len(group.questions) - most:,} less certain ones; press a to show all[/]")


def _search(names: Sequence[str], screen: Console) -> str | None:
    """Ask for part of a label's name; several matches are listed to choose from. None where nothing is chosen."""
    from fingerpost.core.text import canonical_name

    query = read_line("  label: ")
    found = [name for name in names if canonical_name(query) in canonical_name(name)] if query else list(names)
    exact = [name for name in names if canonical_name(name) == canonical_name(query)]
    if len(exact or found) == 1:
        return (exact or found)[0]
    if not found:
        print(f"  no label contains '{printable(query)}'")
        return None
    for number, name in enumerate(found, 1):
        screen.print(f"  {number:3}  {escape_markup(name)}")
    chosen = parse_numbers(read_line("  number: "), len(found))
    return found[chosen[0]] if chosen else None


def _print_history(decisions: Sequence[Decision]) -> None:
    for decision in decisions:
        label = printable(decision.label or "(no label fits)")
        note = f"   {printable(decision.note)}" if decision.note else ""
        state = "" if decision.active else "   taken back"
        print(f"{decision.mark}  {decision.at}  {decision.by}  {decision.count:,} x {label}{note}{state}")
    if not decisions:
        print("no decisions yet")


def _short(question: Question, width: int) -> str:
    from fingerpost.core.text import shorten

    return shorten(question.messages[-1].content, width)
