"""label: the teacher labels questions, after its price is confirmed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fingerpost.cli.console import confirm_price, next_step, require_folders, say
from fingerpost.cli.exit_codes import BUDGET, DONE, INTERRUPTED, PARTLY
from fingerpost.cli.options import Budget as BudgetOption
from fingerpost.cli.options import Folder, Yes, splits_of
from fingerpost.cli.progress import showing_progress
from fingerpost.core.errors import InputError
from fingerpost.labelling.label import LabelPlan
from fingerpost.labelling.requests import SPLITS, STEP, LabelSelection
from fingerpost.llm.requests import RunProgress, teacher_of
from fingerpost.project import Project

AGAIN = PROMPT, DOUBTFUL = "prompt", "doubtful"
DOUBTFUL_QUESTIONS = 100
SHOWN = 4  # labels without a description


def label(
    folder: Path = Folder,
    votes: Annotated[int, typer.Option(min=1, help="Ask each question in this many label orders.")] = 1,
    budget: float | None = BudgetOption,
    yes: bool = Yes,
    limit: Annotated[int | None, typer.Option(min=1, help="Ask at most this many questions now.")] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(help="Only questions of this split: train, dev or test. Can be given several times."),
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Ask again where the reply named no label.")] = False,
    again: Annotated[
        str | None,
        typer.Option(
            metavar="prompt|doubtful",
            help="Ask once more. prompt: where the answer was given to an earlier prompt. doubtful: about the questions with "
            "the highest estimated probability of a wrong label (100, or --limit), with reviewed ones as examples.",
        ),
    ] = None,
    second_teacher: Annotated[
        bool, typer.Option("--second-teacher", help="Ask the model in the table [second_teacher] of task.toml.")
    ] = False,
    record: Annotated[
        Path | None, typer.Option(help="Append the answers to this file, from which they can be played back.")
    ] = None,
    batch: Annotated[
        bool,
        typer.Option("--batch", help="Hand the requests in as a batch: usually half the price, answered within a day."),
    ] = False,
) -> None:
    """Have the teacher label questions: those that it has not labelled yet, or with --retry and --again, some once more."""
    require_folders(record)
    if record and batch:
        raise InputError("--record needs answers that come at once; leave out --batch")
    if again not in (None, *AGAIN):
        raise InputError(f"--again takes {' or '.join(AGAIN)}, not '{again}'")
    project = Project(folder)
    if second_teacher:
        project.ask_second_teacher()
    plan: LabelPlan | None = None
    if again == DOUBTFUL:
        plan = project.plan_doubtful(limit or DOUBTFUL_QUESTIONS, batch=batch)
        if not len(plan.jobs):
            print("no label is doubtful that the teacher has not been asked about with the same examples")
            return
    selection = LabelSelection(votes, splits_of(split) or SPLITS, limit, retry, again == PROMPT)
    code = label_project(project, selection, budget, yes, record, batch, plan)
    next_step(*project.next_steps())
    raise typer.Exit(code)


def label_project(
    project: Project,
    selection: LabelSelection,
    budget: float | None = None,
    yes: bool = False,
    record: Path | None = None,
    batch: bool = False,
    plan: LabelPlan | None = None,
) -> int:
    """Plan, unless there is a plan already; confirm the price, label, and show the result. Returns the exit code."""
    code = DONE
    task, name = project.task, teacher_of(project.task).model
    plan = project.plan_labels(selection, batch=batch) if plan is None else plan
    with project.store() as store:
        handed_in = len(store.batch_keys(STEP, name))
    if handed_in:
        how = "it is fetched now" if batch else "'fingerpost label --batch' fetches it"
        print(f"a batch of {handed_in:,} requests is at the provider; {how}")
    if len(plan.jobs):
        say(f"{len(plan.jobs):,} requests to {name}, about {plan.prompt_tokens:,} prompt tokens")
        if bare := task.undescribed:
            more = ", ..." if len(bare) > SHOWN else ""
            say(
                f"{len(bare)} labels have no description ({', '.join(bare[:SHOWN])}{more}); the teacher labels better if "
                "task.toml says which messages belong to each"
            )
        confirm_price(task, plan.about_usd, plan.at_most_usd, budget, yes)
    elif not handed_in:
        say(f"{name} has answered everything; nothing to ask")
    if len(plan.jobs) or (handed_in and batch):
        with showing_progress(STEP) as show:
            done = project.label(plan, budget_usd=budget, record=record, batch=batch, on_progress=show)
        code = _show_result(done, budget)
    _show_position_bias(project)
    return code


def _show_result(done: RunProgress, budget: float | None) -> int:
    """Print what a run did. Returns the exit code."""
    cached = f", {done.cached_tokens / done.prompt_tokens:.0%} of prompt tokens cached" if done.prompt_tokens else ""
    print(
        f"{done.usable:,} labelled, {done.unusable:,} without a label, ${done.cost_usd:.4f}, {done.rate:.1f}/s{cached}"
    )
    if done.unusable:
        say(f"  for example '{done.example}'; 'fingerpost label --retry' asks again")
    if done.elsewhere:
        print(f"{done.elsewhere:,} were left out: another command has asked or is asking them")
    unanswered = done.total - done.done - done.elsewhere
    if not done.stopped and unanswered:
        print(f"{unanswered:,} came back unanswered and cost nothing; run the command again to ask them")
    if done.stopped == "budget":
        print(f"stopped: the next request could exceed the budget of ${budget:g}; raise it to continue")
    if done.stopped == "interrupted":
        print("stopped; what was answered is kept, run the command again to continue")
        return INTERRUPTED
    if done.stopped == "budget":
        return BUDGET
    return PARTLY if unanswered else DONE


def _show_position_bias(project: Project) -> None:
    bias = project.position_bias()
    if not bias.questions:
        return
    places = "  ".join(f"{seen}/{due:.0f}" for seen, due in zip(bias.observed, bias.expected, strict=True))
    print(
        f"position bias: {bias.changed} of {bias.questions} questions asked in several orders changed their answer; "
        f"answers from each quarter of the list, observed/expected: {places}"
    )
