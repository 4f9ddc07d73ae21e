"""The next step is right in every state of a project."""

from __future__ import annotations

import itertools
import shlex
from dataclasses import replace

import pytest

from fingerpost.cli import COMMANDS
from fingerpost.project.next_steps import ProjectState, next_steps

FULL = ProjectState(teacher=True, train=300, dev=30, test=70)
LABELLED = replace(FULL, teacher_labels=400, unlabelled=0)
HUMAN = replace(FULL, human_train=300, human_test=70, unanswered_test=70)
STATES: dict[str, tuple[ProjectState, list[str]]] = {
    "nothing, with a teacher": (ProjectState(teacher=True), ["import FILE", "generate --count 400"]),
    "nothing, without a teacher": (ProjectState(), ["import FILE"]),
    "questions without labels": (replace(FULL, unlabelled=330), ["label"]),
    "questions without labels, and no teacher": (
        replace(FULL, teacher=False, unlabelled=330),
        ["import FILE", "[teacher]"],
    ),
    "a batch at the provider": (replace(FULL, unlabelled=330, pending_batch_requests=330), ["label --batch"]),
    "labels of the teacher": (LABELLED, ["train"]),
    "labels of humans": (HUMAN, ["train"]),
    "labels of humans, and questions without any": (replace(HUMAN, unlabelled=9), ["label"]),
    "labels of humans without a teacher, and questions without any": (
        replace(HUMAN, teacher=False, unlabelled=9),
        ["train"],
    ),
    "trained, no human label on a test question": (
        replace(LABELLED, trained=True),
        ["review --test 70", "evaluate"],
    ),
    "trained, no test question": (replace(LABELLED, test=0, trained=True), ["import FILE"]),
    "trained on labels of humans": (replace(HUMAN, trained=True), ["evaluate", "label --split test"]),
    "trained, the teacher has answered the test questions": (
        replace(HUMAN, trained=True, unanswered_test=0),
        ["evaluate"],
    ),
    "measured, labels of the teacher": (
        replace(LABELLED, human_test=70, trained=True, measured=True),
        ["review", "serve"],
    ),
    "measured, 300 reviewed": (
        replace(LABELLED, human_train=300, human_test=70, trained=True, measured=True),
        ["serve"],
    ),
    "measured, all labels of humans": (
        replace(HUMAN, teacher=False, trained=True, measured=True),
        ["serve"],
    ),
    "measured, then relabelled": (replace(LABELLED, human_test=70, trained=False, measured=True), ["train"]),
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("folder", ["", "shop"])
def test_the_next_step(state: str, folder: str) -> None:
    state, expected = STATES[state]
    found = next_steps(replace(state, folder=folder))
    assert len(found) == len(expected), found
    for step, words in zip(found, expected, strict=True):
        command = step.split("   (")[0]
        assert all(word in command for word in words.split()), (step, words)
        assert not folder or folder in command
    if folder and expected[0] == "serve":
        assert found[0] == "fingerpost serve shop", "without the project, the server would keep its log elsewhere"


def test_every_state_has_a_step_that_is_a_command() -> None:
    numbers = (0, 5)
    for teacher, trained, measured in itertools.product((False, True), repeat=3):
        for train, test, unlabelled, human, labels in itertools.product(numbers, repeat=5):
            state = ProjectState(
                "x", teacher, train, 0, test, unlabelled, human, human, labels, unlabelled, 0, trained, measured
            )
            steps = next_steps(state)
            assert steps
            name = shlex.split(steps[0].split("   (")[0])[1]
            assert any(name in commands for commands in COMMANDS.values())
