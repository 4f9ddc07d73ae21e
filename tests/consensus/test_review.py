"""Reviewing: answers become verdicts, rounds update the consensus, groups are corrected and taken back."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reviewing import GOLD, bag_of_words, fill
from threadpoolctl import threadpool_limits

from fingerpost.consensus.history import decisions, take_back
from fingerpost.consensus.review import ReviewQueue
from fingerpost.consensus.session import Card, UniformSample
from fingerpost.core.errors import InputError
from fingerpost.core.types import Verdict
from fingerpost.core.verdicts import WITHDRAWN, QuestionVerdicts, active
from fingerpost.evaluation.evaluate import label_quality
from fingerpost.store.project import Store
from fingerpost.task.settings import Task
from fingerpost.training.dataset import fingerprint_of, from_store
from fingerpost.training.export import export


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """More threads only wait for each other on arrays this small."""
    with threadpool_limits(1):
        yield


@pytest.fixture
def filled(store: Store) -> Store:
    fill(store)
    return store


@pytest.fixture
def queue(task: Task, filled: Store) -> ReviewQueue:
    return ReviewQueue(task, filled, "ann", bag_of_words)


def answer(queue: ReviewQueue, count: int = 1) -> None:
    """Answer the next cards correctly."""
    for _ in range(count):
        card = queue.next()
        assert card
        queue.answer(card.question, GOLD[card.question.id])


def test_rounds_update_the_consensus_from_training_questions_only(
    queue: ReviewQueue, task: Task, filled: Store
) -> None:
    train = {question.id for question in filled.questions("train")}
    cards = []
    for _ in range(51):
        card = queue.next()
        assert card is not None and card.question.id in train and card.teacher_label in ("billing", "other")
        cards.append(card)
        queue.answer(card.question, GOLD[card.question.id])
    assert len({card.question.id for card in cards}) == 51
    assert len(queue.rounds) == 2 and queue.rounds[0].answers == 25
    assert queue.rounds[0].changed > 20 and queue.rounds[0].predicted < 25
    assert all(label in task.names for _, label in cards[-1].neighbours) and len(cards[-1].neighbours) == 3
    assert any("delivery" in card.reason for card in cards[25:])
    human = [verdict for found in filled.verdicts().values() for verdict in found if verdict.kind == "human"]
    assert len(human) == 51 and {verdict.origin for verdict in human} == {"review"}
    data = from_store(task, filled, "consensus", bag_of_words)
    right = np.mean([example.label == GOLD[example.id] for example in data.train])
    assert right > 0.95 and data.changed > 40 and data.labels_from["human"] == 51
    assert {example.weight for example in data.train} == {1.0, 5.0}


def test_undo_skip_and_no_label_fits(queue: ReviewQueue, task: Task, filled: Store) -> None:
    first, second = queue.next(), queue.next()
    assert first and second
    queue.answer(first.question, "other", "odd")
    assert QuestionVerdicts(filled.verdicts()[first.question.id], task.names).votes("human") == {"other": 1.0}
    assert queue.undo() == (first.question.id,) and queue.undo() == ()
    assert QuestionVerdicts(filled.verdicts()[first.question.id], task.names).votes("human") is None
    queue.requeue(first.question.id)
    assert (again := queue.next()) and again.question.id == first.question.id
    queue.answer(first.question, None)
    queue.skip(second.question)
    shown = {card.question.id for card in itertools.takewhile(bool, (queue.next() for _ in range(300)))}
    assert not shown & {first.question.id, second.question.id}
    data = from_store(task, filled, "consensus", bag_of_words)
    assert first.question.id not in {example.id for example in data.train}
    assert first.question.id in {example.id for example in from_store(task, filled, "teacher", bag_of_words).train}
    with pytest.raises(InputError, match="parcels"):
        queue.answer(second.question, "parcels")


def test_a_group_is_corrected_in_one_decision_and_taken_back(queue: ReviewQueue, task: Task, filled: Store) -> None:
    answer(queue, 30)
    queue.refresh()
    group = next(
        group for group in queue.groups() if (group.teacher_label, group.consensus_label) == ("billing", "delivery")
    )
    assert len(group.questions) > 10
    before = fingerprint_of(task, filled)
    mark = queue.correct(group, leave_out=[0, 2])
    corrected = {key for key, found in filled.verdicts().items() if any(verdict.mark == mark for verdict in found)}
    assert corrected == {question.id for i, question in enumerate(group.questions) if i not in (0, 2)}
    decision = next(decision for decision in decisions(filled) if decision.mark == mark)
    assert (decision.count, decision.label, decision.active) == (len(group.questions) - 2, "delivery", True)
    assert fingerprint_of(task, filled) != before
    assert take_back(filled, mark) == decision.count and take_back(filled, mark) == 0
    assert not next(decision for decision in decisions(filled) if decision.mark == mark).active
    assert fingerprint_of(task, filled) == before
    with pytest.raises(InputError):
        take_back(filled, "nothing")
    again = queue.correct(group)
    assert again != mark and len(queue.undo()) == len(group.questions) and fingerprint_of(task, filled) == before


def test_a_decision_that_was_taken_back_is_not_exported(
    queue: ReviewQueue, task: Task, filled: Store, tmp_path: Path
) -> None:
    card = queue.next()
    assert card
    queue.answer(card.question, "delivery")
    queue.undo()
    export(task, filled, tmp_path / "t.jsonl", tmp_path / "v.jsonl", use="best")
    written = (tmp_path / "t.jsonl").read_text() + (tmp_path / "v.jsonl").read_text()
    assert "action" in written and 'delivery\\"}' not in written


def test_undo_does_not_count_in_the_round(queue: ReviewQueue) -> None:
    for number in range(24):
        answer(queue)
        if number % 3 == 0:
            (undone,) = queue.undo()
            queue.requeue(undone)
    assert queue.left_in_round == 25 - 16 and queue.reviewed == 16
    while len(queue.rounds) < 1:
        answer(queue)
    assert queue.rounds[0].answers == 25 and 0 <= queue.rounds[0].predicted <= 25


def test_the_sample_is_the_same_for_every_reviewer_and_has_no_hints(
    queue: ReviewQueue, task: Task, filled: Store
) -> None:
    ann = UniformSample(task, filled, "ann", 20)
    for _ in range(5):
        card = ann.next()
        assert card and card == Card(card.question) and card.question.split == "test"
        ann.answer(card.question, GOLD[card.question.id])
    bob = UniformSample(task, filled, "bob", 20)
    assert bob.questions == ann.questions and bob.remaining == 15
    assert label_quality(task, filled, bag_of_words) is None  # no training question is reviewed
    answer(queue, 30)
    while card := bob.next():
        bob.answer(card.question, GOLD[card.question.id])
    quality = label_quality(task, filled, bag_of_words)
    assert quality and quality.n == 20 and quality.consensus.value > quality.teacher.value
    assert quality.teacher.low < quality.teacher.value < quality.teacher.high


acts = st.lists(st.tuples(st.sampled_from(["ann", "bob"]), st.sampled_from(["a", "b", None, "undo"])), max_size=12)


@given(acts)
def test_the_last_verdict_that_was_not_taken_back_is_active(history: list[tuple[str, str | None]]) -> None:
    verdicts: list[Verdict] = []
    expected: dict[str, list[tuple[str, str | None]]] = {"ann": [], "bob": []}
    for number, (by, act) in enumerate(history):
        if act != "undo":
            verdicts.append(Verdict("q", "human", by, act, origin="review", mark=f"m{number}"))
            expected[by].append((f"m{number}", act))
        elif expected[by]:
            mark, _ = expected[by].pop()
            verdicts.append(Verdict("q", "human", by, None, origin=WITHDRAWN, mark=mark))
    found = {verdict.by: verdict.label for verdict in active(verdicts)}
    assert found == {by: given[-1][1] for by, given in expected.items() if given}
