"""generate: have a model write questions, and show what came of each round."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fingerpost.cli.console import confirm_price, next_step, say
from fingerpost.cli.exit_codes import BUDGET, DONE, INTERRUPTED
from fingerpost.cli.options import Budget as BudgetOption
from fingerpost.cli.options import Folder, Yes
from fingerpost.cli.progress import showing_progress
from fingerpost.project import STUDENT, Project

if TYPE_CHECKING:
    from fingerpost.core.types import Progress
    from fingerpost.generation.generate import Generated
    from fingerpost.generation.plan import HardExample
    from fingerpost.store.project import Store


def generate(
    folder: Path = Folder,
    count: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Stop when the project has this many trusted questions; without it, when more bring no improvement.",
        ),
    ] = None,
    from_errors: Annotated[
        bool,
        typer.Option("--from-errors", help="Write questions similar to the dev questions that the student gets wrong."),
    ] = False,
    model: Annotated[
        Path | None, typer.Option(help="Model folder of the student for --from-errors.", show_default="models/student")
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed for labels, styles and opening words.")] = 0,
    budget: float | None = BudgetOption,
    yes: bool = Yes,
    batch: Annotated[
        bool, typer.Option("--batch", help="Use the provider's batch API: half the price, answers within a day.")
    ] = False,
) -> None:
    """Generate questions with the teacher or other models, from the task's labels and the style of your users."""
    from fingerpost.generation.estimate import count_open_questions, estimate
    from fingerpost.generation.generate import MAX_QUESTIONS
    from fingerpost.generation.requests import writers_of
    from fingerpost.generation.state import GenerationState

    project = Project(folder)
    with project.store() as store, store.exclusive("generate"):
        examples = _hard_examples(project, store, model or project.models / STUDENT) if from_errors else []
        wanted = count or (len(examples) if examples else None)
        state = GenerationState.read(project.task, store)
        trusted = 0 if examples else len(state.trusted)
        missing = max(0, (wanted or MAX_QUESTIONS) - trusted) + count_open_questions(store, state)
        if missing:
            cost = estimate(project.task, missing, batch=batch)
            writers = ", ".join(writer.model for writer in writers_of(project.task))
            print(f"about {cost.calls:,} requests to {writers} for questions, and one per question for its label")
            confirm_price(project.task, cost.about_usd, cost.at_most_usd, budget, yes)
        result = _run(project, store, wanted, examples, seed, budget, batch)
    code = _show_result(result, budget)
    next_step(*project.next_steps())
    raise typer.Exit(code)


def _run(
    project: Project,
    store: Store,
    count: int | None,
    examples: list[HardExample],
    seed: int,
    budget: float | None,
    batch: bool,
) -> Generated:
    from fingerpost.generation.generate import generate as run_step
    from fingerpost.generation.requests import STEP
    from fingerpost.generation.rounds import Round

    with showing_progress(STEP) as display:

        def show(progress: Progress) -> None:
            if isinstance(progress.data, Round):
                say(progress.message)
            else:
                display(progress)

        return run_step(
            project.task,
            store,
            project.folder,
            project.embed,
            count=count,
            hard_examples=examples,
            seed=seed,
            budget_usd=budget,
            batch=batch,
            on_progress=show,
        )


def _show_result(result: Generated, budget: float | None) -> int:
    """Print what came of the rounds. Returns the exit code."""
    from fingerpost.generation.filters import KEPT, REJECTIONS

    outcomes = sum((ended.outcomes for ended in result.rounds), Counter[str]())
    rejected = [(outcome, n) for outcome, n in outcomes.most_common() if outcome != KEPT]
    confirmed = sum(ended.confirmed for ended in result.rounds)
    border = sum(ended.border for ended in result.rounds)
    unanswered = sum(ended.unanswered for ended in result.rounds)
    print(
        f"{outcomes[KEPT]:,} questions kept, {confirmed:,} of them confirmed; {sum(n for _, n in rejected):,} rejected:"
    )
    for outcome, n in rejected:
        print(f"  {n:6,}  {outcome}: {REJECTIONS[outcome]}")
    if border:
        print(f"{border:,} border cases: the teacher gives another label; decide them with 'fingerpost review'")
    if unanswered:
        print(f"{unanswered:,} have no label yet; run 'fingerpost label'")
    if result.stopped == "budget":
        print(f"stopped: the next request could exceed the budget of ${budget:g}; raise --budget to continue")
        return BUDGET
    if result.stopped == "interrupted":
        print("stopped; what was written is kept, run the command again to continue")
        return INTERRUPTED
    print(f"done: {result.reason}")
    return DONE


def _hard_examples(project: Project, store: Store, model: Path) -> list[HardExample]:
    from fingerpost.core.errors import InputError
    from fingerpost.generation.generate import find_hard_examples

    found = find_hard_examples(project.task, store, model)
    if not found:
        raise InputError(
            f"{model} gets no dev question wrong and is unsure of none; run the command without --from-errors"
        )
    print(f"{len(found):,} dev questions that {model} gets wrong or is unsure of")
    return found
