"""define: new descriptions for labels that the teacher misclassifies, shown as a diff before they are written."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fingerpost.cli.console import confirm_price, next_step, say
from fingerpost.cli.options import Budget, Folder, Yes
from fingerpost.project import Project

if TYPE_CHECKING:
    from fingerpost.labelling.descriptions import ConfusedLabel, Proposal
    from fingerpost.store.project import Store


def define(
    folder: Path = Folder,
    budget: float | None = Budget,
    yes: bool = Yes,
    write: Annotated[bool, typer.Option("--write", help="Write all proposals to task.toml without asking.")] = False,
) -> None:
    """Have the teacher rewrite the descriptions of labels that it often gets wrong by human labels."""
    from fingerpost.labelling import descriptions as step
    from fingerpost.task.loader import TASK_FILE
    from fingerpost.task.template import redescribe

    project = Project(folder)
    with project.store() as store:
        found = step.confused_labels(project.task, store)
        if not found:
            print(
                f"no two labels are confused {step.MIN_CONFUSIONS} times or more by human labels; "
                "label more questions with 'fingerpost review'"
            )
            return
        _print_confusions(found)
        confirm_price(project.task, None, step.at_most_usd(project.task, found), budget, yes)
        proposals = step.propose(project.task, store, found, folder, budget_usd=budget)
        accepted = _accept(folder / TASK_FILE, proposals, write)
        if not accepted:
            print("task.toml is unchanged")
            return
        part = folder / f".{TASK_FILE}"
        part.write_text(redescribe(folder / TASK_FILE, accepted), encoding="utf-8")
        part.replace(folder / TASK_FILE)
        print(f"{folder / TASK_FILE}: {len(accepted)} descriptions changed")
        _print_relabelling_cost(Project(folder), store)
        where = "" if folder == Path() else f" {folder}"
        next_step(f"fingerpost label{where} --again prompt --budget 5")


def _print_confusions(found: list[ConfusedLabel]) -> None:
    for confused in found:
        taken_for = sorted({other for _, other in confused.missed})
        belong_to = sorted({other for _, other in confused.mistaken})
        parts = []
        if taken_for:
            parts.append(f"{len(confused.missed)} of its questions were labelled {', '.join(taken_for)}")
        if belong_to:
            parts.append(f"{len(confused.mistaken)} questions of {', '.join(belong_to)} were given this label")
        say(f"{confused.label.name}: {'; '.join(parts)}")


def _accept(file: Path, proposals: list[Proposal], write: bool) -> dict[str, str]:
    """The accepted descriptions by label. Each proposal is shown as a diff of task.toml first."""
    from fingerpost.task.template import redescribe

    before = file.read_text(encoding="utf-8").splitlines()
    accepted: dict[str, str] = {}
    for proposal in proposals:
        name = proposal.label.name
        if proposal.description is None or proposal.description == proposal.label.description:
            say(f"\n{name}: the teacher proposes no new description")
            continue
        after = redescribe(file, {name: proposal.description}).splitlines()
        print()
        say("\n".join(difflib.unified_diff(before, after, str(file), str(file), lineterm="", n=0)))
        if write or (sys.stdin.isatty() and typer.confirm("Write this description to task.toml?")):
            accepted[name] = proposal.description
    return accepted


def _print_relabelling_cost(project: Project, store: Store) -> None:
    from fingerpost.labelling.label import plan_labels
    from fingerpost.labelling.requests import LabelSelection

    planned = plan_labels(project.task, store, LabelSelection(again=True))
    print(f"to label again with the new descriptions: {len(planned.jobs):,} requests, about ${planned.about_usd:.4f}")
