"""The encoder that fits the data's language, and the multilingual one with its pruned vocabulary."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import TASK

import fingerpost
from fingerpost.project import Project
from fingerpost.students.encoder.network import Encoder
from fingerpost.students.encoder.source import AUTO, DEFAULT, MULTILINGUAL, choose_encoder
from fingerpost.students.folder import read_manifest

VOCABULARY_BYTES = 250_002 * 384  # of the whole vocabulary, in 8-bit integers
GERMAN = {
    "rechnung": [
        "meine Rechnung stimmt nicht", "ich habe doppelt bezahlt", "wo finde ich die Rechnung", "der Betrag ist falsch",
        "bitte schicken Sie mir die Rechnung noch einmal", "die Abbuchung ist zu hoch", "ich möchte bar bezahlen",
    ],
    "lieferung": [
        "wo ist mein Paket", "der Bote kam nicht", "das Paket ist beschädigt", "wann kommt die Lieferung",
        "die Sendung ist seit Tagen unterwegs", "das Päckchen liegt beim Nachbarn", "die Lieferung ist unvollständig",
    ],
}  # fmt: skip


def test_auto_chooses_by_the_language_of_the_texts() -> None:
    german = [text for part in GERMAN.values() for text in part]
    assert choose_encoder(AUTO, ["where is my parcel", "my invoice is wrong"]) == (DEFAULT, None)
    assert choose_encoder(AUTO, german)[0] == MULTILINGUAL
    assert choose_encoder("some/name", german) == ("some/name", None)


@pytest.mark.slow
def test_a_project_of_several_languages_has_vectors_of_one_width(tmp_path: Path) -> None:
    (tmp_path / "task.toml").write_text(TASK.format(base_url="http://127.0.0.1:9/v1"))
    lines = [f"{text},{label}" for label, texts in GERMAN.items() for text in texts]
    english = ["where is my parcel", "my invoice is wrong", "please send the bill again"]
    (tmp_path / "data.csv").write_text("text\n" + "\n".join([*(line.split(",")[0] for line in lines), *english]))
    project = Project(tmp_path)
    project.import_file(tmp_path / "data.csv")
    with project.store() as store:
        questions = store.questions()
    some = [question for question in questions if question.messages[0].content in english]
    vectors = project.embed(some)
    assert len(vectors) == len(english)
    assert vectors.shape[1] == project.embed(questions).shape[1] == 4 * 384


@pytest.mark.slow
def test_a_student_of_german_texts(tmp_path: Path) -> None:
    texts = [text for part in GERMAN.values() for text in part]
    labels = [label for label, part in GERMAN.items() for _ in part]
    folder = tmp_path / "model"
    student = fingerpost.train(texts, labels, folder=folder)
    manifest = read_manifest(folder)
    assert manifest.encoder["name"] == MULTILINGUAL and manifest.requested == {"encoder": AUTO, "max_tokens": None}
    assert [answer.label for answer in student.predict(["die Rechnung ist falsch", "mein Paket kam nicht"])] == list(
        GERMAN
    )
    assert (folder / "model.onnx").stat().st_size < VOCABULARY_BYTES / 2


@pytest.mark.slow
def test_pruning_keeps_the_vectors_of_the_texts() -> None:
    texts = [text for part in GERMAN.values() for text in part]
    encoder = Encoder(MULTILINGUAL, 128)
    before = encoder.embed(texts)
    network = encoder.network(2)
    encoder.prune(network, texts)
    encoder.model = network.encoder
    assert encoder.model.embeddings.word_embeddings.num_embeddings < 60_000
    np.testing.assert_allclose(encoder.embed(texts), before, atol=1e-6)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(fingerpost.FingerpostError, match="no model.safetensors"):
        fingerpost.train(["a b", "c d", "e f", "g h"], ["x", "y", "x", "y"], encoder=str(tmp_path))
