"""review: label questions in the terminal, one key per question. Selection and consensus are in `consensus`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fingerpost.cli.console import console, next_step, show_rejected
from fingerpost.cli.exit_codes import DONE, PARTLY
from fingerpost.cli.label_search import search_label
from fingerpost.cli.options import Folder
from fingerpost.cli.progress import showing_progress
from fingerpost.cli.review_groups import correct_groups, last_message
from fingerpost.cli.terminal import QUIT, escape_markup, read_key, read_line
from fingerpost.core.label_sets import format_labels, join_labels, split_labels
from fingerpost.core.printable import printable
from fingerpost.core.text import shorten
from fingerpost.project import Project

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from fingerpost.consensus.history import Decision
    from fingerpost.consensus.review import ReviewQueue, ReviewRound
    from fingerpost.consensus.session import Card, ReviewSession, UniformSample
    from fingerpost.core.types import Question, Split
    from fingerpost.store.project import Store

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
  /     search all labels: the list narrows as you type; Enter selects the highlighted one
  0     no label of the task fits
  +     show all of a long text
  s     skip this question for the rest of the session
  u     undo the last answer
  n     add a note to the next answer
  g     groups: correct many questions with the same confusion at once
  q     quit; all answers are already stored"""
DIGITS = tuple("123456789")
EXPORTED = 100
"""Questions of the queue that --export writes, unless --limit says otherwise."""


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
    dev: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Label a uniform sample of N dev questions, which 'serve --accuracy' needs."
        ),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(help="Write the next questions to this CSV file, for colleagues with a spreadsheet."),
    ] = None,
    import_: Annotated[
        Path | None, typer.Option("--import", help="Read the labels of a filled-in file of --export.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="With --export: the number of questions. Default: 100, or the whole sample."),
    ] = None,
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
    from fingerpost.consensus.session import ReviewSession, UniformSample
    from fingerpost.core.errors import InputError

    project, code = Project(folder), DONE
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
        if import_ is not None:
            code = _import_labels(ReviewSession(project.task, store, name), store, import_)
        elif test is not None or dev is not None:
            split: Split = "test" if test is not None else "dev"
            sample = UniformSample(project.task, store, name, test or dev or 0, split)
            if export is not None:
                _export(project, sample, export, limit or len(sample.questions))
                return
            _label_sample(sample, split)
        else:
            with showing_progress("embed") as show:
                project.on_progress = show
                queue = project.review(store, name)
            if export is not None:
                _export(project, queue, export, limit or EXPORTED)
                return
            if groups:
                correct_groups(queue, console())
            else:
                _label_queue(queue)
    next_step(*project.next_steps())
    raise typer.Exit(code)


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


def _export(project: Project, session: ReviewQueue | UniformSample, file: Path, limit: int) -> None:
    from fingerpost.consensus.spreadsheet import NO_LABEL, export_queue

    count = export_queue(session, file, limit)
    print(f"{file}: {count:,} questions; fill in the column label, with {NO_LABEL} where none fits")
    where = "" if project.folder == Path() else f" {project.folder}"
    next_step(f"fingerpost review{where} --import {file}")


def _import_labels(session: ReviewSession, store: Store, file: Path) -> int:
    """Store the labels of a spreadsheet. Returns the exit code."""
    from fingerpost.consensus.spreadsheet import import_labels

    done = import_labels(session, store, file)
    known = f", {done.known:,} that you had given before" if done.known else ""
    print(f"{file}: {done.answers:,} labels by {session.by} stored{known}, {done.blank:,} rows without a label")
    show_rejected(file, done.rejected, done.answers + done.known + done.blank + len(done.rejected))
    return PARTLY if done.rejected else DONE


def _label_sample(sample: UniformSample, split: str) -> None:
    screen = console()
    print(
        f"uniform sample of {len(sample.questions):,} {split} questions, {sample.remaining:,} without a label; "
        "no hints are shown, so that they do not bias the measurement"
    )
    card = sample.next()
    while card is not None:
        status = f"{sample.remaining:,} left   {sample.log.per_minute:.0f} per minute"
        card = _decide(sample, card, status, screen)
    done = len(sample.questions) - sample.remaining
    print(f"{done:,} of {len(sample.questions):,} {split} questions of the sample have a label")


def _decide(session: ReviewQueue | UniformSample, card: Card, status: str, screen: Console) -> Card | None:
    """Show a card until it is decided. Returns the next card, or None to stop."""
    from fingerpost.consensus.review import ReviewQueue

    labels = [label for label, _ in card.suggestions] or session.task.names[:9]
    note: str | None = None
    multi = session.task.multi
    chosen = [label for label, probability in card.suggestions if probability >= 0.5] if multi else []
    _show(card, labels, status, screen, session, chosen if multi else None)
    while True:
        key = read_key()
        if key in QUIT:
            return None
        if multi and (key in DIGITS or key == "/"):
            added = (
                search_label(session.task.labels, screen) if key == "/" else dict(enumerate(labels, 1)).get(int(key))
            )
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
            if (label := search_label(session.task.labels, screen)) is not None:
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
            correct_groups(session, screen)
            return session.next()
        elif key == "+":
            _show(card, labels, status, screen, session, chosen if multi else None, whole=True)
        elif key == "?":
            _show_descriptions(session, screen)
            print(SET_HELP + HELP[HELP.index("\n  s ") :] if multi else HELP)
        else:
            print(f"  {SET_KEYS if multi else KEYS}")


def _show_descriptions(session: ReviewSession, screen: Console) -> None:
    """Print all labels with what belongs to them."""
    for label in session.task.labels:
        screen.print(f"  [bold]{escape_markup(label.name)}[/]  [dim]{escape_markup(label.description)}[/]")
    print()


def _answer(session: ReviewSession, card: Card, label: str | None, note: str | None, screen: Console) -> None:
    session.answer(card.question, label, note)
    differs = card.suggestions and not session.task.multi and label != card.suggestions[0][0]
    answer = "no label fits" if label is None else format_labels(label) if session.task.multi else label
    screen.print(f"  [bold]{escape_markup(answer)}[/]{' (differs from the first suggestion)' if differs else ''}")


def _show(
    card: Card,
    labels: Sequence[str],
    status: str,
    screen: Console,
    session: ReviewSession,
    chosen: Sequence[str] | None = None,
    whole: bool = False,
) -> None:
    """Print a card.

    Args:
        chosen: the labels of the answer so far, if a question may have several.
        whole: print all of a long text.
    """
    screen.print(f"\n[dim]{'─' * min(screen.width, 100)}\n{escape_markup(status)}[/]")
    if card.reason:
        screen.print(f"[dim]{escape_markup(card.reason)}[/]")
    print()
    _show_turns(card.question, screen, whole)
    print()
    probability = dict(card.suggestions)
    described = {label.name: label.description for label in session.task.labels}
    width = max((len(label) for label in labels), default=0)
    for number, label in enumerate(labels, 1):
        percent = f"{probability[label]:4.0%}  " if label in probability else ""
        given = (
            ()
            if card.teacher_label is None
            else (card.teacher_label,)
            if chosen is None
            else split_labels(card.teacher_label)
        )
        mark = "" if chosen is None else "\\[x] " if label in chosen else "\\[ ] "
        about = "teacher's label; " if label in given else ""
        room = max(20, screen.width - width - 20)
        about += shorten(described.get(label, ""), room) if described.get(label) else ""
        name = escape_markup(label) + " " * (width - len(label))
        screen.print(f"  [bold]{number}[/]  {mark}{percent}{name}  [dim]{escape_markup(about.removesuffix('; '))}[/]")
    for question, label in card.neighbours:
        screen.print(f"  [dim]similar: {escape_markup(last_message(question, 56))}  ->  {escape_markup(label)}[/]")
    screen.print(f"[dim]{KEYS if chosen is None else SET_KEYS}[/]")


def _show_turns(question: Question, screen: Console, whole: bool) -> None:
    """Print the conversation. A long one is folded, so that the rest of the card stays on the screen."""
    room = max(4, screen.height - 18) * max(20, screen.width - 4)
    for turn in question.messages[:-1]:
        content = turn.content if whole else shorten(turn.content, room // 4)
        screen.print(f"  [dim]{turn.role}: {escape_markup(content)}[/]")
    text = question.messages[-1].content
    if whole or len(text) <= room:
        screen.print(f"  [bold]{escape_markup(text)}[/]")
        return
    screen.print(f"  [bold]{escape_markup(text[: room // 2])}[/]")
    screen.print(f"  [dim]... {len(text) - room // 2:,} more characters; + shows them ...[/]")


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


def _print_history(decisions: Sequence[Decision]) -> None:
    for decision in decisions:
        label = printable(decision.label or "(no label fits)")
        note = f"   {printable(decision.note)}" if decision.note else ""
        state = "" if decision.active else "   taken back"
        more = f" and {decision.count - 1:,} more" if decision.count > 1 else ""
        text = printable(shorten(decision.text, 60))
        print(f"{decision.mark}  {decision.at}  {decision.by}  {label}  <-  {text}{more}{note}{state}")
    if not decisions:
        print("no decisions yet")
