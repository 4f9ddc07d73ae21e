"""What to do next in a project, in every state that it can be in."""

from __future__ import annotations

from dataclasses import dataclass

GAIN = 200
"""Reviewed training questions up to which more of them are the best next step."""
TEST_SAMPLE = 200


@dataclass(frozen=True, slots=True)
class Facts:
    """What a project has.

    Attributes:
        folder: the project's folder as commands name it; empty for the current one.
        teacher: whether the task has one.
        train, dev, test: number of questions.
        unlabelled: training and dev questions without a label.
        human_train, human_test: training and test questions with a human label.
        teacher_labels: questions that a teacher has labelled.
        unanswered_test: test questions that the teacher has not answered.
        at_provider: requests in a batch that has not been fetched.
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
    at_provider: int = 0
    trained: bool = False
    measured: bool = False


def next_steps(facts: Facts) -> tuple[str, ...]:
    """The commands to run next, the best one first, each with the reason in brackets."""

    def command(name: str, options: str = "", why: str = "") -> str:
        words = " ".join(part for part in ("fingerpost", name, facts.folder, options) if part)
        return f"{words}   ({why})" if why else words

    into = f" -C {facts.folder}" if facts.folder else ""
    if not facts.train + facts.dev + facts.test:
        generate = (
            (command("generate", "--count 400 --budget 5", "the teacher writes questions"),) if facts.teacher else ()
        )
        return (f"fingerpost import FILE{into}", *generate)
    if facts.at_provider:
        return (command("label", "--batch", f"fetches {facts.at_provider:,} requests that are at the provider"),)
    labelled = facts.human_train + facts.teacher_labels
    if facts.unlabelled and facts.teacher:
        return (command("label", "--budget 5", f"{facts.unlabelled:,} questions have no label"),)
    if not labelled:
        return (
            f"fingerpost import FILE{into}   (no question has a label: give a file with labels)",
            f"add a [teacher] to {f'{facts.folder}/' if facts.folder else ''}task.toml, and run '{command('label')}'",
        )
    if not facts.trained:
        return (command("train"),)
    sample = command("review", f"--test {min(TEST_SAMPLE, facts.test)}", "no test question has a human label")
    if not facts.test:
        return (f"fingerpost import FILE{into}   (there are no test questions: give rows with the split test)",)
    compare = (
        (command("label", "--split test --budget 5", "to compare the teacher"),)
        if facts.teacher and facts.unanswered_test
        else ()
    )
    if not facts.human_test:
        return (sample, command("evaluate", why="against the teacher's answers"))
    if not facts.measured:
        return (command("evaluate"), *compare)
    serve = f"fingerpost serve {facts.folder}".rstrip() if facts.folder else "fingerpost serve ."
    if facts.teacher_labels and facts.human_train < min(GAIN, facts.train):
        why = f"{facts.human_train:,} reviewed so far; each also corrects similar questions"
        return (command("review", why=why), serve, *compare)
    return (serve, *compare)
