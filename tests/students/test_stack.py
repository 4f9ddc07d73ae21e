"""The weights of the views, the fast tier, and predictions by tier."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import TEXTS, question_text

import fingerpost
from fingerpost.core.errors import InputError
from fingerpost.students.folder import LEXICAL_FILE, read_manifest
from fingerpost.students.lexical import LexicalView
from fingerpost.students.stack import AGREEMENT, MIN_ROWS, fit_fast_tier, fit_stack

LABELS = 4


def scores(rng: np.random.Generator, labels: np.ndarray, strength: float) -> np.ndarray:
    """Noisy scores that favour the label by `strength`."""
    noise = rng.normal(size=(len(labels), LABELS)).astype(np.float32)
    return noise + strength * np.eye(LABELS, dtype=np.float32)[labels]


def test_a_view_that_brings_nothing_gets_weight_0() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, LABELS, 1000)
    targets, ones = np.eye(LABELS, dtype=np.float32)[labels], np.ones(1000, dtype=np.float32)
    good, noise = scores(rng, labels, 3), scores(rng, labels, 0)
    assert fit_stack(good, noise, targets, ones).lexical == 0
    assert fit_stack(noise, good, targets, ones).encoder == 0
    both = fit_stack(good, scores(rng, labels, 3), targets, ones)
    assert both.encoder > 0 and both.lexical > 0


def test_the_better_view_weighs_more() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, LABELS, 1000)
    targets, ones = np.eye(LABELS, dtype=np.float32)[labels], np.ones(1000, dtype=np.float32)
    found = fit_stack(scores(rng, labels, 1.5), scores(rng, labels, 3), targets, ones)
    assert found.lexical > found.encoder > 0


def test_few_rows_keep_both_views() -> None:
    labels = np.arange(20) % LABELS
    targets = np.eye(LABELS, dtype=np.float32)[labels]
    found = fit_stack(9 * targets, np.zeros_like(targets), targets, np.ones(20, dtype=np.float32))
    assert found.encoder > 0 and found.lexical > 0


def test_the_fast_tier_agrees_as_often_as_it_promises() -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, LABELS, 8000)
    targets, ones = np.eye(LABELS, dtype=np.float32)[labels], np.ones(8000, dtype=np.float32)
    encoder, lexical = scores(rng, labels, 4), scores(rng, labels, 3)
    half = slice(0, 4000)
    stack = fit_stack(encoder[half], lexical[half], targets[half], ones[half])
    fast = fit_fast_tier(encoder[half], lexical[half], stack, 1.0)
    assert fast is not None and fast.at_least >= AGREEMENT and fast.agreement >= AGREEMENT
    ordered = np.sort(lexical[4000:], axis=1)
    answered = ordered[:, -1] - ordered[:, -2] >= fast.margin
    agrees = lexical[4000:].argmax(1) == stack.combine(encoder[4000:], lexical[4000:]).argmax(1)
    assert answered.mean() > 0.2 and agrees[answered].mean() >= AGREEMENT


def test_too_few_rows_prove_no_fast_tier() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, LABELS, MIN_ROWS - 1)
    found = scores(rng, labels, 3)
    assert fit_fast_tier(found, found, fit_stack(found, found, np.eye(LABELS)[labels], np.ones(len(labels))), 1) is None


def test_words_that_decide_alone_need_no_encoder(tmp_path: Path, tiny_encoder: Path) -> None:
    texts = [question_text(number) for number in range(900)]
    labels = [text.split()[0] for text in texts]
    folder = tmp_path / "model"
    fingerpost.train(texts, labels, folder=folder, encoder=str(tiny_encoder), epochs=0)
    assert read_manifest(folder).stack.encoder == 0 and not (folder / "model.onnx").exists()
    new = [question_text(number) for number in range(900, 960)]
    answers = fingerpost.load(folder).predict(new)
    assert [answer.label for answer in answers] == [text.split()[0] for text in new]
    assert {answer.tier for answer in answers} == {"whole"}


def test_the_margin_decides_which_tier_answers(student: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(student, tmp_path / "model")
    texts = [text for part in TEXTS.values() for text in part] + ["nothing of that kind", "qqq zzz"]
    found = np.sort(LexicalView.load(folder / LEXICAL_FILE).scores(texts), axis=1)
    margin = found[:, -1] - found[:, -2]
    cutoff = float(np.median(margin))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["stack"]["encoder"] > 0 and manifest["fast"] is None
    manifest["fast"] = {"margin": cutoff, "temperature": 0.5, "coverage": 0.5, "agreement": 1.0, "at_least": 0.99}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    auto, whole, fast = (fingerpost.load(folder, tiers=tiers).predict(texts) for tiers in ("auto", "all", "fast"))
    assert {answer.tier for answer in whole} == {"whole"} and {answer.tier for answer in fast} == {"fast"}
    assert [answer.tier == "fast" for answer in auto] == (margin >= cutoff).tolist()
    assert {answer.tier for answer in auto} == {"fast", "whole"}
    for found_auto, found_whole, found_fast in zip(auto, whole, fast, strict=True):
        expected = found_fast if found_auto.tier == "fast" else found_whole
        assert found_auto.scores == pytest.approx(expected.scores, abs=0.01)
    assert [answer.tier for answer in fingerpost.load(folder).all_views.predict(texts)] == ["whole"] * len(texts)


def test_unknown_tiers_and_a_model_without_a_fast_tier_are_refused(student: Path) -> None:
    with pytest.raises(InputError, match="auto, all, fast"):
        fingerpost.load(student, tiers="quick")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no fast tier"):
        fingerpost.load(student, tiers="fast")


def test_a_clue_at_the_end_of_a_long_text_is_read(tmp_path: Path, tiny_encoder: Path) -> None:
    rng = np.random.default_rng(0)
    vocabulary = [f"{first}{last}" for first in ("ba", "ki", "mo", "tu", "ze") for last in ("ran", "lop", "dim", "ves")]

    def long_text(words: int, clue: str) -> str:
        return " ".join([*rng.choice(vocabulary, words), clue])

    clues = {"billing": "my invoice is wrong", "delivery": "the parcel is late", "other": "tell me a joke"}
    labels = [label for label in clues for _ in range(40)]
    texts = [long_text(400, clues[label]) for label in labels]
    student = fingerpost.train(texts, labels, folder=tmp_path / "long", encoder=str(tiny_encoder), epochs=0)
    answers = student.predict([long_text(2000, clue) for clue in clues.values()])
    assert [answer.label for answer in answers] == list(clues)
