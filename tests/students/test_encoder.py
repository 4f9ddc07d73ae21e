"""The sentence-encoder student: training, export, calibration, the model folder, predictions."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import TEXTS, write_labelled

import fingerpost
from fingerpost.core.errors import InputError, ModelError
from fingerpost.core.types import Example, Label, Message
from fingerpost.data.rows import Columns
from fingerpost.students.denoise import Rows, clean
from fingerpost.students.encoder import calibrate as fitting
from fingerpost.students.encoder.train import fit, fit_base
from fingerpost.students.folder import dev_answers, read_manifest
from fingerpost.students.linear import Head, neighbour_votes
from fingerpost.task.settings import Task
from fingerpost.training.dataset import from_file
from fingerpost.training.train import train


@pytest.fixture(scope="module")
def minilm_student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with the default encoder, all-MiniLM-L6-v2."""
    folder = tmp_path_factory.mktemp("minilm")
    train(from_file(write_labelled(folder / "data.csv"), Columns()), folder / "model", epochs=0)
    return folder / "model"


@pytest.mark.slow
def test_the_default_encoder_is_minilm_and_its_student_knows_words_it_was_not_trained_on(minilm_student: Path) -> None:
    manifest = read_manifest(minilm_student)
    assert manifest.encoder["sha256"].startswith("53aa5117") and manifest.precision == "int8"
    assert sum(file.stat().st_size for file in minilm_student.iterdir()) < 30e6
    answers = fingerpost.load(minilm_student).predict(["the subscription is too expensive", "a truck lost our goods"])
    assert [answer.label for answer in answers] == ["billing", "delivery"]


def test_a_trained_student_predicts_with_calibrated_scores(student: Path) -> None:
    router = fingerpost.load(student)
    answers = router.predict(["my invoice is too high", (Message("user", "the parcel is late"),)])
    assert [answer.label for answer in answers] == ["billing", "delivery"]
    for answer in answers:
        assert sum(answer.scores.values()) == pytest.approx(1)
        assert answer.confidence == max(answer.scores.values()) == answer.scores[str(answer.label)]
        assert answer.usage.latency_s is not None and answer.usage.latency_s > 0
    assert router.predict([]) == []


def test_batches_give_what_single_texts_give(student: Path) -> None:
    router = fingerpost.load(student)
    texts = [text for part in TEXTS.values() for text in part] * 3
    together = router.predict(texts)
    alone = [router.predict([text])[0] for text in texts]
    assert [answer.label for answer in together] == [answer.label for answer in alone]
    assert np.allclose([a.confidence for a in together], [b.confidence for b in alone], atol=0.06)  # int8


def test_prediction_needs_no_torch(student: Path) -> None:
    code = (
        "import sys, fingerpost; print(fingerpost.load(sys.argv[1]).predict(['my parcel'])[0].label);"
        "print([m for m in ('torch', 'transformers', 'sklearn', 'openai', 'sqlalchemy') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code, str(student)], capture_output=True, text=True, check=True)
    assert run.stdout == "delivery\n[]\n"


def test_the_manifest_says_what_was_done(student: Path) -> None:
    manifest = read_manifest(student)
    assert manifest.precision == "int8" and manifest.encoder["from"] == "folder"
    assert manifest.training["train_rows"] == 21 and manifest.training["dev_rows"] == 3
    assert set(manifest.files) == {
        "dev.jsonl", "lexical.npz", "model.onnx", "tokenizer.json", "train.jsonl", "trained_on.txt",
    }  # fmt: skip


def test_a_texts_result_does_not_depend_on_its_batch(minilm_student: Path) -> None:
    router = fingerpost.load(minilm_student)
    texts = [text for part in TEXTS.values() for text in part] + ["a far longer text " * 12]
    together = router.predict(texts)
    for text, found in zip(texts, together, strict=True):
        (alone,) = router.predict([text])
        assert alone.label == found.label
        assert alone.scores == pytest.approx(found.scores, abs=0.002)


def test_the_answers_to_dev_rows_are_kept(student: Path) -> None:
    answers = dev_answers(student)
    assert len(answers) == 3
    assert {answer.label for answer in answers} == {"billing", "delivery", "other"}
    assert all(0 < answer.confidence <= 1 for answer in answers)


@pytest.mark.parametrize("file", ["lexical.npz", "model.onnx", "tokenizer.json", "manifest.json"])
def test_an_altered_folder_is_not_loaded(student: Path, tmp_path: Path, file: str) -> None:
    copy = shutil.copytree(student, tmp_path / "copy")
    (copy / file).write_bytes((copy / file).read_bytes()[:-2] + b"xx")
    with pytest.raises(ModelError, match="train"):
        fingerpost.load(copy)
    (copy / file).unlink()
    with pytest.raises(ModelError):
        fingerpost.load(copy)


def test_labels_that_do_not_fit_the_graph_are_refused(student: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(student, tmp_path / "copy")
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["labels"] = manifest["labels"][:2]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match="3 outputs for 2 labels"):
        fingerpost.load(copy)
    manifest["kind"] = "oracle"
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match="does not know"):
        fingerpost.load(copy)


def test_fine_tuning_is_repeatable_and_reported(tmp_path: Path, tiny_encoder: Path) -> None:
    data = from_file(write_labelled(tmp_path / "data.csv"), Columns())
    shown: list[str] = []
    answers = []
    for name in ("one", "two"):
        train(
            data,
            tmp_path / name,
            epochs=1,
            seed=3,
            encoder=str(tiny_encoder),
            on_progress=lambda progress: shown.append(progress.message),
        )
        answers.append(fingerpost.load(tmp_path / name).predict(["my bill", "a box", "hello"]))
    assert [a.scores for a in answers[0]] == [b.scores for b in answers[1]]
    assert any("epoch 1 of 1: loss" in line and "on dev" in line for line in shown)


def test_neighbours_do_not_vote_for_themselves() -> None:
    vectors = np.eye(3, dtype=np.float32)[[0, 0, 1]]
    targets = np.eye(3, dtype=np.float32)
    votes = neighbour_votes(vectors, targets, seed=0)
    assert votes[0].argmax() == 1 and votes[1].argmax() == 0 and votes.sum(1) == pytest.approx(1)


def noisy_rows(wrong: int) -> tuple[Rows, np.ndarray]:
    """300 rows in three clouds of 100; the labels of the first `wrong` of each cloud are false."""
    draw = np.random.default_rng(0)
    truth = np.repeat(np.arange(3), 100)
    vectors = np.eye(3, 16, dtype=np.float32)[truth] + draw.normal(0, 0.08, (300, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = np.where(np.arange(300) % 100 < wrong, (truth + 1) % 3, truth)
    names = [str(i) for i in range(300)]
    return Rows(names, vectors, np.eye(3, dtype=np.float32)[labels], np.ones(300, dtype=np.float32), names), truth


def test_false_labels_are_found_and_weigh_less() -> None:
    rows, truth = noisy_rows(wrong=10)
    false = rows.labels != truth
    cleaned = clean(rows, seed=0)
    assert (cleaned.plausibility[false] < 0.5).mean() >= 0.9 and (cleaned.plausibility[~false] > 0.9).mean() >= 0.9
    assert cleaned.rows.targets.sum(1) == pytest.approx(1, abs=1e-5)
    right, _ = noisy_rows(wrong=0)
    assert (clean(right, seed=0).plausibility > 0.9).all()


def test_a_label_with_a_single_example_is_not_doubted_away() -> None:
    rows, _ = noisy_rows(wrong=0)
    targets = np.zeros((300, 4), dtype=np.float32)
    targets[:, :3] = rows.targets
    targets[0] = [0, 0, 0, 1]
    cleaned = clean(replace(rows, targets=targets), seed=0)
    assert cleaned.plausibility[0] == 1 and cleaned.rows.targets[0, 3] == 1


def test_int8_may_lose_by_chance_but_not_for_sure() -> None:
    exact = np.ones(1000, dtype=bool)
    assert not fitting.loses_accuracy(exact[:96], np.arange(96) >= 2)
    assert not fitting.loses_accuracy(exact, np.arange(1000) >= 4)
    assert fitting.loses_accuracy(exact, np.arange(1000) >= 20)


def test_calibration_finds_the_temperature() -> None:
    draw = np.random.default_rng(1)
    logits = draw.normal(size=(4000, 5)).astype(np.float32)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.array(
        [
            draw.choice(5, p=row)
            for row in probabilities.astype(float) / probabilities.astype(float).sum(1, keepdims=True)
        ]
    )
    targets = np.eye(5, dtype=np.float32)[labels]
    assert fitting.calibrate(3 * logits, targets, np.ones(4000, dtype=np.float32)) == pytest.approx(3, rel=0.1)


@pytest.mark.slow
def test_the_untuned_base_takes_the_nearest_description(tmp_path: Path) -> None:
    meanings = ["invoices and payments", "weather", "sports"]
    labels = tuple(Label(name=f"x{number}", description=meaning) for number, meaning in enumerate(meanings, 1))
    fit_base(Task(name="t", labels=labels), tmp_path / "base")
    texts = ["please pay this invoice", "rain and storms tomorrow", "who won the match"]
    answers = fingerpost.load(tmp_path / "base").predict(texts)
    assert [answer.label for answer in answers] == ["x1", "x2", "x3"]


def test_earlier_turns_are_part_of_the_input(minilm_student: Path) -> None:
    router = fingerpost.load(minilm_student)
    last = Message("user", "and the other one?")
    billing = (Message("user", "my invoice is wrong"), Message("assistant", "the invoice of may?"), last)
    parcel = (Message("user", "my parcel is late"), Message("assistant", "the parcel from may?"), last)
    assert [answer.label for answer in router.predict([billing, parcel])] == ["billing", "delivery"]


def test_what_cannot_be_trained_is_refused_and_leaves_no_folder(tmp_path: Path) -> None:
    one = [Example("1", (Message("user", "a"),), {"x": 1.0})]
    task = Task(name="t", labels=(Label(name="x"), Label(name="y")))
    with pytest.raises(InputError, match="at least two"):
        fit(one, one, task, tmp_path / "m")
    two = [*one, Example("2", (Message("user", "b"),), {"y": 1.0})]
    with pytest.raises(InputError, match="no dev rows"):
        fit(two, [], task, tmp_path / "m")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="no model folder"):
        fit(two, two, task, tmp_path / "full")
    with pytest.raises(ModelError, match="cannot be loaded"):
        fit(two, two, task, tmp_path / "m", encoder="no/such-encoder")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_wrong_packaged_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from fingerpost.students.encoder import source

    monkeypatch.setattr(source, "PACKAGED_SHA256", "0" * 64)
    with pytest.raises(ModelError, match="not the published ones"):
        source.find_encoder(source.DEFAULT)


def test_heads_are_linear() -> None:
    head = Head(np.eye(2, dtype=np.float32), np.array([0, 1], dtype=np.float32))
    assert head.logits(np.array([[2, 3]], dtype=np.float32)).tolist() == [[2, 4]]
