"""Questions that the teacher writes: the plan, the gate, the rounds, nonsense, kills, batches."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import lines_of, teacher_process, write_labelled
from hypothesis import given
from hypothesis import strategies as st
from teacher import MEANS, Teacher, words

from fingerpost.core.errors import BudgetError, TeacherError
from fingerpost.core.text import hash_fraction, humanise, question_id
from fingerpost.core.types import Conversation, Label, Message, Question, Verdict
from fingerpost.data.importer import import_file
from fingerpost.generation.brief import Brief, Item
from fingerpost.generation.filters import KEPT, REASONS, Gate, fault, main_language
from fingerpost.generation.generate import Generated, errors_of, generate
from fingerpost.generation.plan import FORMS, PER_CALL, Error, Known, plan_errors, plan_round
from fingerpost.generation.prompts import read_beyond, read_written, surplus, write, written_schema
from fingerpost.generation.quality import learning_curve, synthetic_gap
from fingerpost.generation.rounds import VAIN
from fingerpost.store.project import Store
from fingerpost.task.loader import task_of_labels
from fingerpost.task.settings import StudentSettings, Task

SHOP = Task(
    name="shop",
    fallback="other",
    labels=tuple(Label(name=name, description=text) for name, text in (*MEANS.items(), ("other", "anything else"))),
)
LABELS = st.lists(st.text("abcdefgh", min_size=1, max_size=6), min_size=2, max_size=12, unique=True)


def text_of(text: str) -> Conversation:
    return (Message("user", text),)


def embed(questions: Sequence[Question]) -> Any:
    """Vectors of bags of words: quick, and the same for the same words."""
    vectors = np.zeros((len(questions), 64), dtype=np.float32)
    for row, question in enumerate(questions):
        for word in " ".join(turn.content for turn in question.messages).split():
            vectors[row, int(hash_fraction(word) * 64)] += 2 * (hash_fraction(f"sign/{word}") < 0.5) - 1
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def run(task: Task, store: Store, folder: Path, **options: Any) -> Generated:
    return generate(task, store, folder, embed, **options)


# --- the plan


@given(LABELS, st.integers(1, 200), st.integers(0, 5), st.booleans())
def test_a_plan_is_repeatable_and_fair_to_every_label(names: list[str], count: int, seed: int, fallback: bool) -> None:
    task = task_of_labels("t", names)
    task = task.model_copy(update={"fallback": names[0] if fallback else None})
    known = Known(beyond=["a bike"])
    plan = plan_round(task, known, count, str(seed))
    assert plan == plan_round(task, known, count, str(seed))
    assert count <= sum(len(brief.items) for brief in plan) < count + max(PER_CALL.values())
    asked = Counter(item.label for brief in plan for item in brief.items)
    if not fallback:
        assert max(asked.values()) - min(asked[name] for name in names) <= 2 * max(PER_CALL.values())
    for brief in plan:
        assert Brief.of_json(json.loads(json.dumps(brief.as_json()))) == brief
        assert list(written_schema(brief)["properties"]) == [str(i + 1) for i in range(len(brief.items))]
        assert all((item.kind in ("near", "far")) == (item.label == task.fallback) for item in brief.items)
        assert brief.form != "wordings" or {item.label for item in brief.items} <= {*names} - {task.fallback}
        assert brief.form != "wordings" or len({item.label for item in brief.items}) == 1
        prompt = write(task, brief)
        assert [turn["role"] for turn in prompt][:2] == ["system", "user"] and prompt[-1]["role"] == "user"


def test_another_seed_plans_otherwise_and_what_lacks_comes_first() -> None:
    def labels(known: Known) -> Counter[str]:
        return Counter(item.label for brief in plan_round(SHOP, known, 50, "0") for item in brief.items)

    assert plan_round(SHOP, Known(), 50, "0") != plan_round(SHOP, Known(), 50, "1")
    lacking = labels(
        Known(trusted={(form, name): n for form in FORMS for name, n in (("billing", 100), ("other", 300))})
    )
    assert lacking["delivery"] > 2 * max(lacking["billing"], lacking["other"])
    in_vain = labels(
        Known(
            trusted={(form, name): n for form in FORMS for name, n in (("billing", 20), ("other", 60))},
            asked={(form, "delivery"): 400 for form in FORMS},
        )
    )
    assert in_vain["delivery"] < min(in_vain["billing"], in_vain["other"])


def test_near_labels_stand_side_by_side_and_some_questions_on_their_border() -> None:
    task = task_of_labels("t", [f"label {i}" for i in range(20)])
    known = Known(close={name: [task.names[i ^ 1]] for i, name in enumerate(task.names)})
    plan = plan_round(task, known, 300, "0")
    mixed = [{item.label for item in brief.items} for brief in plan if brief.form == "messages"]
    together = sum(any(known.close[label][0] in labels for label in labels) for labels in mixed)
    assert together > 0.4 * len(mixed)
    border = [item for brief in plan for item in brief.items if item.kind == "border"]
    assert border and all(item.about == known.close[item.label][0] for item in border)
    assert any("it looks as if it meant" in write(task, brief)[-1]["content"] for brief in plan)


@pytest.mark.parametrize(
    ("name", "description", "named"),
    [
        ("pto_request", "ask to take days off", True),
        ("17", "ask to take days off", False),
        ("take days off", "", False),
    ],
)
def test_a_label_is_asked_for_by_its_name_alone_where_that_says_more(name: str, description: str, named: bool) -> None:
    labels = (Label(name=name, description=description), Label(name="x", description="x"))
    task = task_of_labels("t", [name, "x"]).model_copy(update={"labels": labels})
    plan = plan_round(task, Known(), 200, "0")
    wanted = [write(task, brief)[-1]["content"] for brief in plan]
    assert any(item.kind == "named" for brief in plan for item in brief.items) == named
    assert named == any(f"All 6 users want the same: {humanise(name)}. " in each for each in wanted) or not description
    assert all(f"({name})" not in each for each in wanted)


def test_real_questions_set_the_manner_and_errors_come_up_in_turn() -> None:
    real = [f"wheres {words(i)}" for i in range(30)]
    plan = plan_round(SHOP, Known(real=real), 200, "0")
    assert sum(bool(brief.samples) for brief in plan) > 10
    assert any(real[i] in brief.samples for brief in plan for i in range(30))
    errors = [Error(f"text {i}", "billing") for i in range(3)]
    plan = plan_errors(SHOP, errors, Known(), 30, "0")
    assert Counter(item.about for brief in plan for item in brief.items) == Counter({f"text {i}": 10 for i in range(3)})
    assert all("the same as 'text" in write(SHOP, brief)[-1]["content"] for brief in plan)
    assert plan_errors(SHOP, [], Known(), 30, "0") == []


# --- reading replies

BILL = Item("plain", "billing", "my")
BRIEF = Brief("messages", (BILL, Item("plain", "billing")), style="plainly")


@pytest.mark.parametrize(
    ("raw", "texts", "more"),
    [
        ('{"1": "pay my bill", "2": " two  spaces "}', ["pay my bill", "two spaces"], 0),
        ('```json\n{"1": "a b", "2": "c d"}\n```', ["a b", "c d"], 0),
        ('{"messages": ["a b", "c d", "e f"]}', ["a b", "c d"], 1),
        ('["a b", "c d"]', ["a b", "c d"], 0),
        ('{"1": {"message": "a b"}, "2": 7}', ["a b"], 0),
        ('{"2": "only the second"}', ["only the second"], 0),
        ('{"1": "whole", "2": "cut of', ["whole"], 0),
        ('{"1": "a \\"quoted\\" b", "2": "x', ['a "quoted" b'], 0),
        ("Sure! Here are some messages: pay my bill", [], 0),
        ("", [], 0),
        ('{"1": "", "2": null}', [], 0),
        ('{"1": "half \\ud83d a smile"}', ["half ? a smile"], 0),
        ("[" * 100_000, [], 0),
    ],
)  # fmt: skip
def test_replies_are_read_whatever_their_form(raw: str, texts: list[str], more: int) -> None:
    assert [each[-1].content for each in read_written(BRIEF, raw).values()] == texts
    assert surplus(BRIEF, raw) == more
    if raw.startswith('{"2"'):
        assert list(read_written(BRIEF, raw)) == [1]


@given(st.one_of(st.text(), st.recursive(st.none() | st.text() | st.integers(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)).map(json.dumps)))  # fmt: skip
def test_no_reply_is_too_strange(raw: str) -> None:
    for brief in (BRIEF, Brief("follow_ups", BRIEF.items)):
        found = read_written(brief, raw)
        assert set(found) <= {0, 1} and all(turn.content.strip() for each in found.values() for turn in each)
        assert surplus(brief, raw) >= 0
    assert all(2 < len(thing) <= 80 for thing in read_beyond(raw))


def test_a_follow_up_is_a_conversation() -> None:
    brief = Brief("follow_ups", (BILL,))
    raw = '{"1": {"first": "hi", "answer": "Hello.", "then": "and my bill?"}}'
    found = read_written(brief, raw)[0]
    assert [turn.role for turn in found] == ["user", "assistant", "user"] and found[-1].content == "and my bill?"
    assert read_written(brief, '{"1": {"first": "hi", "then": "and my bill?"}}') == {}


# --- the gate


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("?!", "too short"),
        ("word " * 81, "too long"),
        ("please pay [invoice number] for me", "placeholder"),
        ("dear ____ pay my bill", "placeholder"),
        ("my", "copies the brief"),
        ("Invoices and payments.", "copies the brief"),
        ("this one is get_payslip for me", "names a label"),
        ("我想知道我的账单", "language"),
        ("ich möchte gerne wissen, wann meine Rechnung bezahlt wurde", "language"),
        ("can you pay my bill today", None),
        ("pls bill asap", None),
    ],
)
def test_what_is_wrong_with_a_text_by_itself(text: str, reason: str | None) -> None:
    labels = (*SHOP.labels, Label(name="get_payslip"))
    assert fault(SHOP.model_copy(update={"labels": labels}), BILL, text_of(text), "en") == reason
    assert reason is None or reason in REASONS


def test_the_language_is_that_of_what_is_there() -> None:
    assert main_language(["Rechnungen und Zahlungen", "Pakete und Boten, Sendungen verfolgen"]) == "de"
    assert main_language(["x"]) == ""
    assert fault(SHOP, BILL, text_of("ich möchte gerne wissen, wann meine Rechnung bezahlt wurde"), "de") is None


@given(st.lists(st.integers(0, 30), max_size=25), st.sets(st.integers(0, 30), max_size=10))
def test_of_what_is_alike_one_is_kept(drawn: list[int], there: set[int]) -> None:
    texts = [f"{words(i)} {'please' if i % 2 else ''}" for i in range(31)]
    stored = [Question(question_id(text_of(texts[i])), text_of(texts[i]), "user", str(i), "test") for i in there]
    gate = Gate(stored, embed)
    fates = gate.new([text_of(texts[i]) for i in drawn[:10]]) + gate.new([text_of(texts[i]) for i in drawn[10:]])
    seen: set[int] = set(there)
    for i, fate in zip(drawn, fates, strict=True):
        assert (fate == KEPT) == (i not in seen)
        seen.add(i)


def test_nothing_like_a_test_question_is_kept() -> None:
    first = "how do I send the parcel with the broken lamp back to your shop in Leeds"
    other = "where can I find the invoice for the two chairs that I bought in spring"
    stored = [
        Question(question_id(text_of(first)), text_of(first), "user", "a", "test"),
        Question(question_id(text_of(other)), text_of(other), "user", "b", "train"),
    ]
    fates = Gate(stored, embed).new([text_of(first + "?"), text_of(f"Hi, {first} please"), text_of(f"{other}, please")])
    assert fates == ["like a test question", "like a test question", "near-duplicate"]


def test_a_text_that_comes_twice_puts_no_vector_out_of_place(tmp_path: Path) -> None:
    from fingerpost.students.encoder.vectors import vectors_of

    texts = ["where is my parcel", "pay my bill", "where is my parcel", "the courier was late", "tell me a joke"]
    questions = [Question(question_id(text_of(text)), text_of(text), "", "", "train") for text in texts]
    settings = StudentSettings()
    plain = vectors_of(questions, settings)
    vectors_of(questions[:3], settings, tmp_path)
    assert np.allclose(vectors_of(questions, settings, tmp_path), plain, atol=1e-5)
    assert np.allclose(vectors_of(questions[3:], settings, tmp_path), plain[3:], atol=1e-5)


# --- what is measured


def _cloud(centre: int, count: int, seed: int) -> Any:
    vectors = np.random.default_rng(seed).normal(size=(count, 16)).astype(np.float32)
    vectors[:, centre] += 4
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_the_gap_is_none_between_equals_and_whole_between_strangers() -> None:
    labels = ["a", "b"] * 100
    same = synthetic_gap(_cloud(0, 200, 1), _cloud(0, 200, 2), labels, labels)
    far = synthetic_gap(_cloud(0, 200, 1), _cloud(5, 200, 2), labels, labels)
    assert same and far and same.value < 0.2 and same.p > 0.01 and far.value > 0.95 and far.p < 1e-6
    assert synthetic_gap(_cloud(0, 200, 1), _cloud(0, 10, 2), labels, labels[:10]) is None


def test_how_often_a_label_comes_is_no_gap() -> None:
    """Real questions are nearly all of one kind, synthetic ones of both: the texts of each are alike all the same."""
    real = np.concatenate([_cloud(0, 190, 1), _cloud(5, 60, 2)])
    synthetic = np.concatenate([_cloud(0, 100, 3), _cloud(5, 100, 4)])
    gap = synthetic_gap(real, synthetic, ["a"] * 190 + ["b"] * 60, ["a"] * 100 + ["b"] * 100)
    assert gap is not None and gap.value < 0.25 and gap.n == 160


def test_the_learning_curve_rises_only_where_there_is_more_to_learn() -> None:
    easy = learning_curve(np.concatenate([_cloud(0, 100, 1), _cloud(5, 100, 2)]), ["a"] * 100 + ["b"] * 100)
    draw = np.random.default_rng(0)
    hard_vectors = draw.normal(size=(60, 16)).astype(np.float32)
    hard = learning_curve(hard_vectors, ["a" if row[0] + row[1] + row[2] > 0 else "b" for row in hard_vectors])
    assert easy and hard and easy.full > 0.95 and abs(easy.gain) < 0.02
    assert hard.full < easy.full
    assert learning_curve(hard_vectors[:10], ["a"] * 10) is None


# --- the rounds


def test_questions_are_written_labelled_blind_and_counted(
    store: Store, task: Task, folder: Path, teacher: Teacher
) -> None:
    done = run(task, store, folder, count=60)
    questions = store.questions()
    confirmed = sum(each.confirmed for each in done.rounds)
    assert (
        done.kept == len(questions) and confirmed >= 60 and done.why == f"there are {confirmed} questions to learn from"
    )
    assert {each.source for each in questions} == {"synthetic"}
    verdicts = store.verdicts()
    for question in questions:
        writer = [each for each in verdicts[question.id] if each.kind == "writer"]
        blind = [each for each in verdicts[question.id] if each.kind == "teacher"]
        assert len(writer) == 1 and len(blind) == 1
    assert sum(each.confirmed + each.border + each.unanswered for each in done.rounds) == len(questions)
    assert sum(each.confirmed for each in done.rounds) > 0.8 * len(questions)
    written = [body for body in teacher.bodies if "1" in _properties(body)]
    assert all(body["temperature"] == 1 and "logprobs" not in body for body in written)
    calls = {line.step: line.calls for line in store.ledger.step_costs()}
    assert calls == {"generate": len(written), "label": len(questions)}
    asked = sum(teacher.asked.values())
    again = run(task, store, folder, count=60)
    assert again.kept == done.kept and sum(teacher.asked.values()) == asked


def _properties(body: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = body["response_format"]["json_schema"]["schema"]["properties"]
    return found


def test_what_the_teacher_does_not_confirm_is_no_training_row_until_a_person_has_decided(
    store: Store, task: Task, folder: Path, teacher: Teacher
) -> None:
    from fingerpost.training.dataset import from_store

    teacher.reply = '{"action": "other"}'
    done = run(task, store, folder, count=40)
    border = [
        key for key, found in store.verdicts().items() if {e.label for e in found if e.kind == "writer"} != {"other"}
    ]
    assert len(border) == sum(each.border for each in done.rounds) > 0
    trained = {each.id for each in from_store(task, store, "consensus", embed).train}
    assert trained and not trained & set(border)
    decided = next(q.id for q in store.questions("train") if q.id in border)
    store.add_verdicts([Verdict(decided, "human", "me", "billing")])
    assert decided in {each.id for each in from_store(task, store, "best", embed).train}


def test_subjects_of_which_nothing_is_confirmed_are_dropped_and_new_ones_come(
    store: Store, task: Task, folder: Path, teacher: Teacher
) -> None:
    teacher.reply = '{"action": "billing"}'
    run(task, store, folder, count=200)
    plans = [(each.round, Brief.of_json(each.brief)) for each in store.drafts()]
    near = [(number, item.about) for number, brief in plans for item in brief.items if item.kind == "near"]
    last = max(number for number, _ in plans)
    assert last > 3 and len({number for number, brief in plans if brief.form == "beyond"}) == last + 1
    for number, about in near:
        assert sum(before < number and subject == about for before, subject in near) < VAIN
    assert {about for number, about in near if number == last} - {about for number, about in near if number == 1}


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        (json.dumps([f"billing {words(i)}" for i in range(10_000)]), "surplus"),
        (json.dumps({str(i): "billing the same one a hundred times" for i in range(1, 6)}), "duplicate"),
        (json.dumps({"1": "billing " + "very " * 200, "2": "pay"}), "too long"),
    ],
)
def test_nonsense_is_survived_and_counted(
    store: Store, task: Task, folder: Path, teacher: Teacher, written: str, reason: str
) -> None:
    teacher.written = written
    done = run(task, store, folder, count=30)
    fates = sum((each.fates for each in done.rounds), Counter[str]())
    assert fates[reason] >= 20 and fates[KEPT] == len(store.questions()) < 30
    assert "repeats itself" in done.why or "were asked for, and there are only" in done.why


@pytest.mark.parametrize("written", ["Sure! Here are five questions.", '{"1": 7', ""])
def test_a_writer_that_only_talks_is_not_asked_on(
    store: Store, task: Task, folder: Path, teacher: Teacher, written: str
) -> None:
    teacher.written = written
    with pytest.raises(TeacherError, match=r"none of the teacher's \d+ replies holds a message"):
        run(task, store, folder, count=30)
    assert sum(teacher.asked.values()) < 25
    teacher.written = None
    assert run(task, store, folder, count=30).kept >= 30


def test_the_budget_holds_and_a_higher_one_goes_on(store: Store, task: Task, folder: Path, teacher: Teacher) -> None:
    with pytest.raises(BudgetError, match="raise --budget"):
        run(task, store, folder, count=30, budget_usd=1e-6)
    done = run(task, store, folder, count=30, budget_usd=0.004)
    assert done.stopped == "budget" and store.ledger.account().committed_usd <= 0.004
    asked = Counter(teacher.asked)
    assert run(task, store, folder, count=30).kept >= 30
    assert all(teacher.asked[text] == n for text, n in asked.items() if text.startswith("Write"))


def test_more_than_one_model_writes(store: Store, task: Task, folder: Path, teacher: Teacher) -> None:
    assert task.teacher is not None
    writers = (task.teacher, task.teacher.model_copy(update={"model": "another"}))
    mixed = task.model_copy(update={"generate": task.generate.model_copy(update={"writers": writers})})
    run(mixed, store, folder, count=40)
    by = Counter(e.by for found in store.verdicts().values() for e in found if e.kind == "writer")
    assert set(by) == {"test-model", "another"} and min(by.values()) > 5


def test_with_real_questions_the_gap_is_measured_and_tests_are_not_shown(
    store: Store, task: Task, folder: Path, teacher: Teacher
) -> None:
    real = [
        Question(question_id(text_of(text)), text_of(text), "user", str(i), "test" if i % 5 == 0 else "train")
        for i in range(200)
        for text in [f"{'billing' if i % 2 else 'delivery'} wheres {words(1000 + i)}"]
    ]
    store.add_questions(real)
    store.add_verdicts(
        Verdict(each.id, "teacher", "test-model", each.messages[0].content.split()[0], order=0) for each in real
    )
    done = run(task, store, folder, count=80)
    assert done.rounds[-1].gap is not None and 0 <= done.rounds[-1].gap.value <= 1
    shown = " ".join(body["messages"][-1]["content"] for body in teacher.bodies if "1" in _properties(body))
    assert any(each.messages[0].content in shown for each in real if each.split == "train")
    assert not any(each.messages[0].content in shown for each in real if each.split == "test")


def test_without_a_count_it_ends_when_more_bring_nothing(store: Store, task: Task, folder: Path) -> None:
    done = run(task, store, folder)
    assert "learning curve no longer rises" in done.why and 2 < len(done.rounds) < 10


# --- kills and batches


def test_killed_at_random_moments(tmp_path: Path) -> None:
    with teacher_process(tmp_path, 0.02) as log:
        command = [sys.executable, "-m", "fingerpost", "generate", "--count", "100", "--yes", "--budget", "1"]
        draw = random.Random(3)
        kills = 6
        for _ in range(kills):
            before, asked = time.monotonic(), lines_of(log)
            killed = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while (
                lines_of(log) < asked + draw.randint(3, 30) and killed.poll() is None and time.monotonic() < before + 60
            ):
                time.sleep(0.005)
            killed.kill()
            killed.wait()
            with Store(tmp_path / "fingerpost.db") as store:
                assert store.ledger.account().committed_usd <= 1
        finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
        assert finished.returncode == 0, finished.stderr
    concurrency = 4
    answered = Counter(json.loads(line) for line in log.read_text().splitlines())
    with Store(tmp_path / "fingerpost.db") as store:
        drafts = store.drafts()
        once = len(drafts) + len(store.questions())
        assert sum(answered.values()) - once <= kills * concurrency  # only what was in flight at a kill
        assert all(each.answered and each.fates is not None for each in drafts)
        found = store.verdicts()
        assert len(found) == len(store.questions()) >= 100
        assert all(sum(each.kind == "teacher" for each in mine) == 1 for mine in found.values())
        assert store.ledger.account().uncertain <= kills * concurrency


def test_in_batches_at_half_the_price(store: Store, task: Task, folder: Path, teacher: Teacher) -> None:
    teacher.batches.polls = 1
    done = run(task, store, folder, count=40, batch=True)
    assert done.kept >= 40 and teacher.batches.created >= 3
    lines = store.ledger.step_costs()
    assert {(line.step, line.batch) for line in lines} == {("generate", True), ("label", True)}
    full = sum(line.calls for line in lines) * (40 * 1.0 + 60 * 0.5 + 5 * 4.0) / 1e6
    assert store.ledger.account().committed_usd == pytest.approx(full / 2)
    assert store.ledger.account().uncertain == 0


# --- from errors, and as a user sees it


def test_more_like_the_dev_questions_that_a_student_gets_wrong(
    store: Store, task: Task, folder: Path, teacher: Teacher, student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fingerpost.generation.generate.UNSURE", 1.01)
    import_file(store, task, write_labelled(folder / "data.csv"))
    errors = errors_of(task, store, student)
    dev = {each.messages[0].content for each in store.questions("dev")}
    assert errors and {each.text for each in errors} <= dev
    done = run(task, store, folder, errors=errors, count=6)
    assert done.why.endswith("questions to learn from")
    wanted = [body["messages"][-1]["content"] for body in teacher.bodies if "1" in _properties(body)]
    assert wanted and all("the same as '" in each for each in wanted)
    meant = {each.label for found in store.verdicts().values() for each in found if each.kind == "writer"}
    assert meant == {each.label for each in errors}
    asked = sum(teacher.asked.values())
    assert run(task, store, folder, errors=errors, count=6).kept == done.kept
    assert sum(teacher.asked.values()) == asked


def test_the_command_tells_what_it_does(folder: Path, cli: Any) -> None:
    refused = cli("generate", "--count", "20")
    assert refused.returncode == 2 and "add --yes" in refused.stderr and "at most $" in refused.stdout
    done = cli("generate", "--count", "20", "--yes")
    assert done.returncode == 0, done.stderr
    assert "round 1: " in done.stdout and "confirmed blind" in done.stdout and "ended: there are 2" in done.stdout
    status = cli("status").stdout
    assert "written by test-model: 2" in status and "next: fingerpost train" in status
    missing = cli("generate", "--from-errors", "--yes")
    assert missing.returncode == 2 and "is no model folder" in missing.stderr


def test_a_language_that_nobody_knows(folder: Path, cli: Any) -> None:
    file = folder / "task.toml"
    file.write_text(file.read_text() + '\n[generate]\nlanguages = ["xx"]\n')
    done = cli("generate", "--count", "20", "--yes")
    assert done.returncode == 2 and "'xx' is no language that is known here; known: ar, bg" in done.stderr
