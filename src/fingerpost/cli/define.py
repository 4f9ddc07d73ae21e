"""define: better descriptions for the labels that the teacher misreads, shown as a diff and never applied silently."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fingerpost.cli.console import confirm_price
from fingerpost.cli.options import Budget, Folder, Yes
from fingerpost.project import Project

if TYPE_CHECKING:
    from fingerpost.labelling.descriptions import Misread, Proposal
    from fingerpost.store.project import Store


def define(
    folder: Path = Folder,
    budget: float | None = Budget,
    yes: bool = Yes,
    write: Annotated[bool, typer.Option("--write", help="Write all proposals into task.toml, unasked.")] = False,
) -> None:
    """Have the teacher describe better the labels that reviews show it misreads."""
    from fingerpost.labelling import descriptions as step
    from fingerpost.task.loader import TASK_FILE
    from fingerpost.task.template import redescribe

    project = Project(folder)
    with project.store() as store:
        found = step.misread(project.task, store)
        if not found:
            print("people's labels show no confusion that is frequent enough; 'fingerpost review' finds them")
            return
        _tell(found)
        confirm_price(project.task, None, step.at_most_usd(project.task, found), budget, yes)
        proposals = step.propose(project.task, store, found, folder, budget_usd=budget)
        chosen = _choose(folder / TASK_FILE, proposals, write)
        if not chosen:
            print("task.toml stays as it is")
            return
        part = folder / f".{TASK_FILE}"
        part.write_text(redescribe(folder / TASK_FILE, chosen), encoding="utf-8")
        part.replace(folder / TASK_FILE)
        print(f"{folder / TASK_FILE}: {len(chosen)} descriptions changed")
        _tell_cost(Project(folder), store)


def _tell(found: list[Misread]) -> None:
    for each in found:
        taken = sorted({other for _, other in each.missed})
        given = sorted({other for _, other in each.mistaken})
        parts = [f"{len(each.missed)} of its questions were taken for {', '.join(taken)}"] if taken else []
        parts += [f"{len(each.mistaken)} questions of {', '.join(given)} were taken for it"] if given else []
        print(f"{each.label.name}: {'; '.join(parts)}")


def _choose(file: Path, proposals: list[Proposal], write: bool) -> dict[str, str]:
    """The proposals that are taken; each is shown as the difference that it makes to task.toml."""
    from fingerpost.task.template import redescribe

    before = file.read_text(encoding="utf-8").splitlines()
    chosen: dict[str, str] = {}
    for each in proposals:
        if each.description is None or each.description == each.label.description:
            print(f"\n{each.label.name}: the teacher proposes nothing new")
            continue
        after = redescribe(file, {each.label.name: each.description}).splitlines()
        print()
        print("\n".join(difflib.unified_diff(before, after, str(file), str(file), lineterm="", n=0)))
        if write or (sys.stdin.isatty() and typer.confirm("Take this description?")):
            chosen[each.label.name] = each.description
    return chosen


def _tell_cost(project: Project, store: Store) -> None:
    from fingerpost.labelling.label import plan_labels
    from fingerpost.labelling.requests import LabelSelection

    planned = plan_labels(project.task, store, LabelSelection(again=True))
    print(
        f"labelling again by the new descriptions: {len(planned.jobs):,} requests, about ${planned.about_usd:.4f}; "
        "'fingerpost label --again' does it"
    )
