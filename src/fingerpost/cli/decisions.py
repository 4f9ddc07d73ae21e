"""The command `decisions`: list the decisions that a server has seen on the way to its upstream endpoint, and set their modes."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from fingerpost.cli.console import next_step, say
from fingerpost.cli.options import Folder
from fingerpost.cli.serve import Data
from fingerpost.core.errors import InputError
from fingerpost.core.text import shorten
from fingerpost.store.server import DATABASE, SERVED, ServerStore
from fingerpost.store.server_rows import DecisionRow, Mode, RepeatedPrompt

if TYPE_CHECKING:
    from fingerpost.server.loop.summary import Summary

MODES: tuple[Mode, ...] = get_args(Mode)


def decisions(
    name: Annotated[str | None, typer.Argument(help="Name of a decision. Default: all of them.")] = None,
    folder: Path = Folder,
    data: Path | None = Data,
    mode: Annotated[
        str | None,
        typer.Option(
            help="Set the mode: observe (learn), shadow (the student answers beside), canary (it answers a share of the "
            "requests), on (it answers what it is sure of)."
        ),
    ] = None,
    share: Annotated[
        float, typer.Option(min=0, max=1, help="With --mode canary: the share of requests that the student may answer.")
    ] = 0.05,
    version: Annotated[int | None, typer.Option(min=1, help="Version of the decision. Default: the latest.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the decisions that the proxy has seen, and set whether students answer them."""
    from fingerpost.server.loop.decisions import DECISIONS
    from fingerpost.server.loop.summary import summarise, unnamed_prompts

    served = data or folder / SERVED
    if not (served / DATABASE).is_file():
        raise InputError(
            f"{served} is not the folder of a server; start one with 'fingerpost serve --upstream URL', or give its "
            "folder with --data"
        )
    chosen = next((known for known in MODES if known == mode), None)
    if mode is not None and (chosen is None or name is None):
        raise InputError(f"give the name of a decision, and one of these modes: {', '.join(MODES)}")
    store = ServerStore(served / DATABASE)
    try:
        rows = _latest(store.decisions(), version)
        if name is not None:
            rows = [row for row in rows if row.name == name]
            if not rows:
                raise InputError(f"there is no decision '{name}'; 'fingerpost decisions' lists them")
        if chosen is not None:
            answering = share if chosen == "canary" else 1.0
            rows = [store.change_decision(rows[0].id, mode=chosen, share=answering, alarm=None) or rows[0]]
        found = [summarise(store, row, served / DECISIONS) for row in rows]
        repeated = [] if name is not None else unnamed_prompts(store)
    finally:
        store.close()
    if as_json:
        print(json.dumps([{**asdict(one), "project": str(one.project)} for one in found], indent=2, ensure_ascii=False))
        return
    for one in found:
        _show(one)
    for prompt in repeated:
        _show_prompt(prompt)
    if not found and not repeated:
        say("no decision has passed by yet")
        next_step(
            "send requests whose reply is one of a list, or name a decision with a header; see 'fingerpost docs proxy'"
        )


def _latest(rows: list[DecisionRow], version: int | None) -> list[DecisionRow]:
    """The latest version of each decision, or the version with this number."""
    if version is not None:
        return [row for row in rows if row.version == version]
    return list({row.name: row for row in rows}.values())


def _show_prompt(prompt: RepeatedPrompt) -> None:
    say(f'possible decision: the prompt "{shorten(prompt.prompt, 80)}" to {prompt.model}')
    say(f"  {prompt.replies:,} replies named {len(prompt.labels)} labels: {shorten(', '.join(prompt.labels), 120)}")
    say("  next: to learn it, add the header x-fingerpost-decision: NAME to these requests")


def _show(one: Summary) -> None:
    row, counts, training = one.row, one.counts, one.row.training
    mode = f"canary, {row.share:.0%} of the requests" if row.mode == "canary" else row.mode
    if row.mode in ("canary", "on") and row.monitor.get("probation", True):
        mode += ", on probation"
    say(f"{row.name}{f' (version {row.version})' if row.version > 1 else ''}: {mode}")
    if row.alarm is not None:
        say(f"  alarm: {row.alarm}")
    place = ".".join(row.place["path"])
    where = f'JSON field "{place}"' if place else "the tool's name" if row.place["by_tool"] else "the whole reply"
    say(f"  {len(row.labels)} labels in {where}; upstream model {row.model}; project {one.project}")
    by_student = f", {counts.by_student:,} ({counts.by_student / counts.requests:.0%}) answered by the student" \
        if counts.requests and counts.by_student else ""  # fmt: skip
    say(f"  {counts.requests:,} requests{by_student}; {counts.answers:,} answers of the upstream model")
    if training.get("rows"):
        at = datetime.fromtimestamp(training["at"]).strftime("%Y-%m-%d %H:%M")
        say(f"  student: trained {at} on {training['rows']:,} answers in {training['seconds']:,.0f} s")
    if training.get("cutoff") is not None:
        held_to = " with the answers as reviews correct them" if training.get("corrected") else ""
        say(
            f"  proven: above a confidence of {training['cutoff']:.3f} ({training['n'] / training['of']:.0%} of the requests), "
            f"{training['right']:,} of {training['n']:,} agree{held_to}, at least {training['at_least']:.1%} (cross-validated)"
        )
    if counts.compared:
        say(f"  shadow: at any confidence, {counts.agreed:,} of {counts.compared:,} answers agree with the student's")
    if one.checked:
        low, high = one.bounds
        say(
            f"  monitoring: above the cut-off, {one.differing:,} of {one.checked:,} differ (95 % CI {low:.1%} to {high:.1%})"
        )
    if one.panel or row.upstream_alarm:
        say(f"  upstream: {row.upstream_alarm or 'no change found'} (panel of {one.panel} requests)")
    if one.humans is not None:
        student, upstream = one.humans.student, one.humans.upstream
        say(
            f"  by {one.humans.n:,} human labels{'' if one.humans.at_random else ' from the review queue'}: the student is right on {student.value:.1%} ({student.low:.1%} to "
            f"{student.high:.1%}), {row.model} on {upstream.value:.1%} ({upstream.low:.1%} to {upstream.high:.1%})"
        )
    if counts.by_student and one.saved_s is not None:
        money = f"${one.saved_usd:,.2f} in total, " if one.saved_usd is not None else ""
        say(f"  saved: {money}{1000 * one.saved_s:,.0f} ms for each request that the student answered")
    say(f"  next: {one.next_step}")
