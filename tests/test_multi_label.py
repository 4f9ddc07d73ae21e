"""Several labels on one text: from the files and the teacher's lists, by way of review, to the served list."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from conftest import TEXTS, task_text
from teacher import Teacher

import fingerpost
from fingerpost.consensus.evidence import answer_of_row, collect_evidence, compute_features, consensus_of
from fingerpost.core.errors import InputError, TaskError
from fingerpost.core.label_sets import NO_LABELS, LabelSets, join_labels, split_cell, split_labels
from fingerpost.core.text import question_id
from fingerpost.core.types import Message, Question, Verdict
from fingerpost.core.verdicts import QuestionVerdicts
from fingerpost.evaluation.metrics import f1_of_sets
from fingerpost.students.folder import MultiLabel, read_manifest
from fingerpost.task.loader import load_task
from fingerpost.task.prompt import reply, schema, system_prompt
from fingerpost.task.replies import parse

if TYPE_CHECKING:
    import subprocess

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

BILLING = ["invoice", "payment", "receipt", "refund", "charge", "fee"]
DELIVERY = ["parcel", "courier", "package", "shipment", "box", "driver"]
FILLERS = ["please", "today", "again", "for me", "as soon as possible", "this week", "at home", "in May"]


def messages(count: int, seed: int = 0) -> list[tuple[str, list[str]]]:
    """Texts with the labels billing, delivery, both or none."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        labels = [["billing"], ["delivery"], ["billing", "delivery"], []][number % 4]
        words = [str(rng.choice(BILLING))] if "billing" in labels else []
        words += [str(rng.choice(DELIVERY))] if "delivery" in labels else []
        text = " and my ".join(words) or str(rng.choice(TEXTS["other"]))
        rows.append((f"about my {text} {rng.choice(FILLERS)} {rng.choice(FILLERS)} no {number}", labels))
    return rows


@pytest.fixture
def multi(folder: Path, teacher: Teacher) -> Path:
    """A project folder with a multi-label task of two labels."""
    text = (
        task_text(teacher.base_url)
        .replace('fallback = "other"\n', "multi = true\n")
        .replace('other = "anything else"\n', "")
    )
    (folder / "task.toml").write_text(text)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    folder = tmp_path_factory.mktemp("multi") / "model"
    rows = messages(240)
    fingerpost.train(
        [text for text, _ in rows], [labels for _, labels in rows], folder=folder, encoder=str(tiny_encoder)
    )
    return folder


def test_sets_of_labels_are_strings() -> None:
    assert join_labels(["b", "a", "b"]) == "a|b" and split_labels("a|b") == ("a", "b")
    assert join_labels([]) == NO_LABELS and split_labels(NO_LABELS) == ()
    assert split_cell("b; a,c|d ") == ["b", "a", "c", "d"]
    known = LabelSets(["a", "b"])
    assert "a|b" in known and NO_LABELS in known and "a|c" not in known and None not in known


def test_prompt_schema_and_replies(multi: Path) -> None:
    task = load_task(multi / "task.toml")
    assert '{"action": ["..."]}' in system_prompt(task) and system_prompt(task).endswith("If none fits, it is [].")
    assert schema(task)["properties"]["action"] == {"type": "array", "items": {"type": "string", "enum": task.names}}
    assert reply(task, "billing|delivery") == '{"action": ["billing", "delivery"]}'
    assert parse(task, '{"action": ["Delivery", "billing"]}') == "billing|delivery"
    assert parse(task, '["billing"]') == parse(task, "billing") == "billing"
    assert parse(task, '{"action": []}') == NO_LABELS
    assert parse(task, '{"action": ["billing", "weather"]}') is None and parse(task, "") is None


def test_labels_with_a_separator_are_refused(multi: Path) -> None:
    file = multi / "task.toml"
    file.write_text(file.read_text().replace("[labels]\n", '[labels]\n"a, b" = "two"\n'))
    with pytest.raises(TaskError, match=r"line \d+: with multi = true, 'a, b' cannot contain"):
        load_task(file)


def test_a_student_gives_sets_of_labels(model: Path) -> None:
    student = fingerpost.load(model)
    manifest = read_manifest(model)
    assert manifest.multi is not None and manifest.multi.empty and len(manifest.multi.thresholds) == 2
    rows = messages(80, seed=1)
    answers = student.predict([text for text, _ in rows])
    right = [set(answer.labels) == set(labels) for answer, (_, labels) in zip(answers, rows, strict=True)]
    assert np.mean(right) >= 0.9
    assert abs(np.mean([answer.confidence for answer in answers]) - np.mean(right)) < 0.15
    both = answers[2]
    assert both.label == "billing|delivery" and both.labels == ("billing", "delivery")
    probabilities = student.predict_proba([rows[2][0]])[0]
    assert probabilities.min() > 0.5 and probabilities.tolist() == pytest.approx(list(both.scores.values()))


def test_the_report_of_several_labels(model: Path) -> None:
    rows = messages(80, seed=2)
    report = fingerpost.evaluate([model], [text for text, _ in rows], [labels for _, labels in rows])
    found = report["model"]
    assert report.multi and found.accuracy is not None and found.accuracy >= 0.9
    assert found.micro_f1 is not None and found.micro_f1.low <= found.micro_f1.value <= found.micro_f1.high
    assert {score.label: score.n for score in found.labels} == {"billing": 40, "delivery": 40}
    assert "micro F1" in report._repr_html_()


def test_f1_of_sets() -> None:
    gold = np.array([[1, 0], [1, 1], [0, 0], [0, 1]], dtype=bool)
    answers = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=bool)
    micro, macro = f1_of_sets(gold, answers)
    assert micro.value == pytest.approx(2 * 3 / (4 + 4)) and macro.value == pytest.approx((1 + 0.5) / 2)
    assert micro.low < micro.value < micro.high


def test_every_row_gets_a_label_where_none_may_be_empty() -> None:
    probabilities = np.array([[0.2, 0.3], [0.9, 0.8]])
    assert MultiLabel(thresholds=[0.5, 0.5], empty=True).decide(probabilities).tolist() == [
        [False, False],
        [True, True],
    ]
    assert MultiLabel(thresholds=[0.5, 0.5], empty=False).decide(probabilities).tolist() == [
        [False, True],
        [True, True],
    ]


@pytest.mark.slow
def test_files_with_several_labels(tmp_path: Path, cli: Cli, tiny_encoder: Path) -> None:
    rows = messages(120)
    (tmp_path / "cells.csv").write_text(
        "text,tags\n" + "\n".join(f"{text},{'; '.join(labels)}" for text, labels in rows if labels)
    )
    (tmp_path / "lists.jsonl").write_text(
        "\n".join(json.dumps({"text": text, "label": labels}) for text, labels in rows)
    )
    chat = [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": json.dumps({"to": labels})}]}
        for text, labels in rows
    ]
    (tmp_path / "chat.jsonl").write_text("\n".join(map(json.dumps, chat)))
    arguments = {"cells.csv": ("--label", "tags", "--multi"), "lists.jsonl": (), "chat.jsonl": ()}
    for name, more in arguments.items():
        folder = tmp_path / Path(name).stem
        done = cli("train", str(tmp_path / name), "-o", str(folder), *more, "--encoder", str(tiny_encoder))
        assert done.returncode == 0, done.stderr
        manifest = read_manifest(folder)
        assert manifest.multi is not None and [label.name for label in manifest.labels] == ["billing", "delivery"]
        assert manifest.multi.empty == (name != "cells.csv")
    done = cli("evaluate", str(tmp_path / "cells"), str(tmp_path / "lists.jsonl"))
    assert "the model was trained on all rows" in done.stderr or "micro F1" in done.stdout
    report = cli("evaluate", str(tmp_path / "lists"), str(write_test(tmp_path)))
    assert report.returncode == 0 and "exact match" in report.stdout and "TF-IDF + linear SVM" in report.stdout
    assert "multi = true in task.toml" in cli("train", "--multi").stderr
    done = cli("predict", str(tmp_path / "lists"), str(tmp_path / "test.jsonl"), "-o", str(tmp_path / "out.jsonl"))
    rows_out = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert done.returncode == 0 and rows_out[2]["predicted"] == ["billing", "delivery"]


def write_test(folder: Path) -> Path:
    file = folder / "test.jsonl"
    rows = messages(60, seed=3)
    file.write_text("\n".join(json.dumps({"text": text, "label": labels, "split": "test"}) for text, labels in rows))
    return file


@pytest.mark.slow
def test_a_project_from_the_teachers_lists_to_the_served_list(multi: Path, cli: Cli, teacher: Teacher) -> None:
    from serving import Serving

    lines = [f"{' '.join(labels)} {text}" for text, labels in messages(160)]  # the teacher looks for the labels' names
    (multi / "data.txt").write_text("\n".join(lines))
    assert cli("import", "data.txt").returncode == 0
    done = cli("label", "--yes")
    assert done.returncode == 0 and "0 without a label" in done.stdout, done.stdout + done.stderr
    asked = teacher.bodies[-1]["response_format"]["json_schema"]["schema"]["properties"]["action"]
    assert asked["type"] == "array"
    (multi / "gold.jsonl").write_text(
        "\n".join(
            json.dumps({"text": line, "label": labels}) for line, (_, labels) in zip(lines, messages(160), strict=True)
        )
    )
    imported = cli("import", "gold.jsonl")
    assert imported.returncode == 0 and "160" in imported.stdout
    trained = cli("train")
    assert trained.returncode == 0, trained.stderr
    report = cli("evaluate")
    assert report.returncode == 0 and "micro F1" in report.stdout, report.stderr
    exported = cli("export", "--train", "train.jsonl", "--validation", "validation.jsonl")
    assert exported.returncode == 0, exported.stderr
    replies = {json.loads(line)["messages"][-1]["content"] for line in (multi / "train.jsonl").read_text().splitlines()}
    assert '{"action": ["billing", "delivery"]}' in replies and '{"action": []}' in replies
    with Serving(multi / "served", f"student={multi / 'models' / 'student'}", cwd=multi) as server:
        text = "billing delivery about my invoice and my parcel"
        answer = server.ask(text, logprobs=True).json()["choices"][0]
        assert json.loads(answer["message"]["content"]) == {"action": ["billing", "delivery"]}
        enum = {"type": "array", "items": {"type": "string", "enum": ["delivery"]}}
        format_ = {
            "type": "json_schema",
            "json_schema": {"name": "r", "schema": {"type": "object", "properties": {"to": enum}}},
        }
        restricted = server.ask(text, response_format=format_).json()["choices"][0]["message"]["content"]
        assert json.loads(restricted) == {"to": ["delivery"]}
        routed = server.post("/v1/route", {"input": ["billing about my invoice", text]}).json()["data"]
        assert [row["labels"] for row in routed] == [["billing"], ["billing", "delivery"]]
        assert routed[1]["codes"] == [None, None] and 0 <= routed[1]["confidence"] <= 1


def test_review_by_several_keys(multi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from reviewing import bag_of_words
    from typer.testing import CliRunner

    from fingerpost.cli import app
    from fingerpost.project import Project

    monkeypatch.setattr(Project, "embed", lambda _, questions: bag_of_words(questions))
    (multi / "data.txt").write_text("\n".join(text for text, _ in messages(60)))
    project = Project(multi)
    project.import_file(multi / "data.txt")
    with project.store() as store:
        store.add_verdicts(Verdict(question.id, "teacher", "test-model", "billing") for question in store.questions())
    keys = "12y" + "0" + "?/deliv\ny" + "q"
    done = CliRunner().invoke(app, ["review", "-C", str(multi), "--by", "ann"], input=keys)
    assert done.exit_code == 0 and "3 answers stored" in done.output, done.output
    assert "[x]" in done.output and "(no label)" in done.output
    with project.store() as store:
        labels = [found.label for given in store.verdicts().values() for found in given if found.kind == "human"]
    assert NO_LABELS in labels and len(labels) == 3 and all(label in project.task.answers for label in labels)


def test_a_live_teacher_and_a_model_at_a_provider_answer_with_sets(multi: Path, cli: Cli, teacher: Teacher) -> None:
    from fingerpost.labelling.teacher import LiveTeacher

    teacher.reply = '{"action": ["delivery", "billing"]}'
    live = LiveTeacher(load_task(multi / "task.toml"), multi)
    (multi / "gold.jsonl").write_text(
        "\n".join(json.dumps({"text": text, "label": labels}) for text, labels in messages(80))
    )
    assert cli("import", "gold.jsonl").returncode == 0
    arguments = ("--student", "hosted", "--base-url", teacher.base_url, "--labels", "human", "--yes")
    done = cli("train", *arguments)
    assert done.returncode == 0, done.stderr
    for model in (live, fingerpost.load(multi / "models" / "hosted")):
        (answer,) = model.predict(["my invoice and my parcel"])
        assert answer.label == "billing|delivery" and answer.labels == ("billing", "delivery")
        assert model.predict_proba(["my invoice and my parcel"]).tolist() == [[1.0, 1.0]]


def test_the_consensus_of_sets(multi: Path) -> None:
    from reviewing import bag_of_words

    task = load_task(multi / "task.toml")
    rows = messages(200)
    labelled = []
    for number, (text, labels) in enumerate(rows):
        conversation = (Message("user", text),)
        question = Question(question_id(conversation), conversation, "user", str(number), "train")
        verdicts = [Verdict(question.id, "teacher", "t", join_labels(label for label in labels if label != "delivery"))]
        if number < 60:
            verdicts.append(Verdict(question.id, "human", "ann", join_labels(labels)))
        labelled.append((question, QuestionVerdicts(verdicts, task.answers)))
    evidence = collect_evidence(task, labelled, bag_of_words([question for question, _ in labelled]))
    agreed = consensus_of(evidence, compute_features(evidence))
    answers = [answer_of_row(task, row) for row in agreed.probabilities]
    right = [answer == join_labels(labels) for answer, (_, labels) in zip(answers, rows, strict=True)]
    assert np.mean(right[60:]) > 0.8  # the teacher never says `delivery`: it is right on half of the rows
    assert agreed.error_probability.shape == (200,) and agreed.error_probability.min() >= 0


def test_a_writers_label_is_confirmed_by_a_set_that_includes_it() -> None:
    known = LabelSets(["a", "b"])
    written = Verdict("q", "writer", "w", "a")
    for answer, disputed in (("a", False), ("a|b", False), ("b", True), (NO_LABELS, True)):
        assert QuestionVerdicts([written, Verdict("q", "teacher", "t", answer)], known).disputed is disputed


def test_what_cannot_be_done_with_several_labels(tiny_encoder: Path) -> None:
    rows: list[Any] = messages(20)
    said: list[str] = []
    fingerpost.train(
        [text for text, _ in rows], [labels for _, labels in rows], encoder=str(tiny_encoder), epochs=1,
        on_progress=lambda progress: said.append(progress.message),
    )  # fmt: skip
    assert "with several labels, the encoder is not fine-tuned" in said
    with pytest.raises(InputError, match="matrix"):
        fingerpost.train([text for text, _ in rows], np.zeros((20, 2)), encoder=str(tiny_encoder))  # type: ignore[arg-type]
