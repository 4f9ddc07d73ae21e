"""What to do next in a project, in every state that it can be in."""

from __future__ import annotations

from dataclasses import dataclass

USEFUL_REVIEWS = 200
"""Reviewed training questions up to which more of them are the best next step."""
TEST_SAMPLE = 200


@dataclass(frozen=True, slots=True)
class ProjectState:
    """What a project has.

    Attributes:
        folder: the project's folder as commands name it; empty for the current one.
        teacher: whether the task has one.
        train, dev, test: number of questions.
        unlabelled: training and dev questions without a label.
        human_train, human_test: training and test questions with a human label.
        teacher_labels: questions that a teacher has labelled.
        unanswered_test: test questions that the teacher has not answered.
        pending_batch_requests: requests in a batch that has not been fetched.
        trained: whether the student was trained on the present labels.
        measured: whether the report measures the present state.
    """

    folder: str = ""
    teacher: bool = False
    train: int = 0
    dev: int = 0
    test: int = 0
    unlabelled: int = 0
    human_train: int = 0
    human_test: int = 0
    teacher_labels: int = 0
    unanswered_test: int = 0
    pending_batch_requests: int = 0
    trained: bool = False
    measured: bool = False


def next_steps(state: ProjectState) -> tuple[str, ...]:
    """The commands to run next, the best one first, each with the reason in brackets."""

    def command(name: str, options: str = "", why: str = "") -> str:
        words = " ".join(part for part in ("fingerpost", name, state.folder, options) if part)
        return f"{words}   ({why})" if why else words

    into = f" -C {state.folder}" if state.folder else ""
    if not state.train + state.dev + state.test:
        generate = (
            (command("generate", "--count 400 --budget 5", "the teacher writes questions"),) if state.teacher else ()
        )
        return (f"fingerpost import FILE{into}", *generate)
    if state.pending_batch_requests:
        return (
            command("label", "--batch", f"fetches {state.pending_batch_requests:,} requests that are at the provider"),
        )
    labelled = state.human_train + state.teacher_labels
    if state.unlabelled and state.teacher:
        return (command("label", "--budget 5", f"{state.unlabelled:,} questions have no label"),)
    if not labelled:
        return (
            f"fingerpost import FILE{into}   (no question has a label: give a file with labels)",
            f"add a [teacher] to {f'{state.folder}/' if state.folder else ''}task.toml, and run '{command('label')}'",
        )
    if not state.trained:
        return (command("train"),)
    sample = command("review", f"--test {min(TEST_SAMPLE, state.test)}", "no test question has a human label")
    if not state.test:
        return (f"fingerpost import FILE{into}   (there are no test questions: give rows with the split test)",)
    compare = (
        (command("label", "--split test --budget 5", "to compare the teacher"),)
        if state.teacher and state.unanswered_test
        else ()
    )
    if not state.human_test:
        return (sample, command("evaluate", why="against the teacher's answers"))
    if not state.measured:
        return (command("evaluate"), *compare)
    serve = f"fingerpost serve {state.folder}".rstrip() if state.folder else "fingerpost serve ."
    if state.teacher_labels and state.human_train < min(USEFUL_REVIEWS, state.train):
        why = f"{state.human_train:,} reviewed so far; each also corrects similar questions"
        return (command("review", why=why), serve, *compare)
    return (serve, *compare)
