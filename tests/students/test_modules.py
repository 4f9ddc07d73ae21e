"""Folders of sentence-transformers are read as that library reads them: pooling, dense layers, prompts, length."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TEXTS

import fingerpost
from fingerpost.core.errors import ModelError
from fingerpost.students.encoder.network import Encoder

ALL = [text for part in TEXTS.values() for text in part]


def saved(folder: Path, tiny_encoder: Path, pooling: str, dense: bool = False, **options: Any) -> Any:
    """A model of sentence-transformers with the tiny encoder, saved to the folder."""
    import torch
    from sentence_transformers import SentenceTransformer, models

    torch.manual_seed(0)
    transformer = models.Transformer(str(tiny_encoder), max_seq_length=48)
    parts = [transformer, models.Pooling(64, pooling_mode=pooling)]
    if dense:
        parts.append(models.Dense(64, 24, activation_function=torch.nn.Tanh()))
    model = SentenceTransformer(modules=[*parts, models.Normalize()], device="cpu", **options)
    model.save(str(folder))
    return model


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "lasttoken", "weightedmean"])
def test_ways_of_pooling(tmp_path: Path, tiny_encoder: Path, pooling: str) -> None:
    model = saved(tmp_path / "encoder", tiny_encoder, pooling)
    encoder = Encoder(str(tmp_path / "encoder"))
    assert encoder.limit == 48
    np.testing.assert_allclose(encoder.embed(ALL), model.encode(ALL), atol=1e-5)


@pytest.mark.parametrize("prompts", [{"query": "find this: "}, {"classification": "label this: ", "query": "no: "}])
def test_a_dense_layer_and_a_prompt(tmp_path: Path, tiny_encoder: Path, prompts: dict[str, str]) -> None:
    model = saved(tmp_path / "encoder", tiny_encoder, "mean", dense=True, prompts=prompts)
    encoder = Encoder(str(tmp_path / "encoder"))
    name = next(iter(prompts))
    assert encoder.width == 24 and encoder.origin["prompt"] == prompts[name]
    np.testing.assert_allclose(encoder.embed(ALL), model.encode(ALL, prompt_name=name), atol=1e-5)


def test_the_exported_graph_reads_the_folder_in_the_same_way(tmp_path: Path, tiny_encoder: Path) -> None:
    saved(tmp_path / "encoder", tiny_encoder, "cls", dense=True, prompts={"query": "find this: "})
    labels = [label for label, part in TEXTS.items() for _ in part]
    student = fingerpost.train(ALL, labels, folder=tmp_path / "model", encoder=str(tmp_path / "encoder"))
    # The original folder is not needed any more.
    shutil.rmtree(tmp_path / "encoder")
    loaded = fingerpost.load(tmp_path / "model")
    np.testing.assert_allclose(loaded.predict_proba(ALL), student.predict_proba(ALL), atol=1e-6)
    assert loaded.manifest.encoder["pooling"] == "cls" and loaded.manifest.encoder["prompt"] == "find this: "


def test_what_cannot_be_read_is_refused(tmp_path: Path, tiny_encoder: Path) -> None:
    folder = tmp_path / "encoder"
    saved(folder, tiny_encoder, "mean", dense=True)
    modules = folder / "modules.json"
    written = modules.read_text()
    modules.write_text(written.replace("Normalize", "CNN"))
    with pytest.raises(ModelError, match="has a module CNN, which is not supported"):
        Encoder(str(folder))
    modules.write_text(written)
    next(folder.glob("*Dense/model.safetensors")).unlink()
    with pytest.raises(ModelError, match="dense layer that cannot be read"):
        Encoder(str(folder))


def test_the_length_covers_most_texts_up_to_the_encoders_limit(tmp_path: Path, tiny_encoder: Path) -> None:
    encoder = Encoder(str(tiny_encoder))
    assert encoder.limit == 160 and encoder.covering(ALL) == 128
    long = ["word " * 140] * 9 + ["word"]
    assert encoder.covering(long) == 160
    labels = ["a", "b"] * 20
    texts = [f"{'first' if label == 'a' else 'second'} {number} {'word ' * 300}" for number, label in enumerate(labels)]
    said: list[str] = []
    student = fingerpost.train(
        texts,
        labels,
        encoder=str(tiny_encoder),
        max_tokens=64,
        on_progress=lambda progress: said.append(progress.message),
    )
    assert student.manifest.max_tokens == 64 and student.manifest.training["read_at_once"] == 0
    assert any("reads 0.0% of the texts at once, the others in windows of 64" in message for message in said)


def test_the_consensus_may_have_an_encoder_of_its_own(tmp_path: Path, tiny_encoder: Path) -> None:
    from conftest import task_text
    from reviewing import fill

    from fingerpost.core.types import Verdict
    from fingerpost.project import Project

    saved(tmp_path / "larger", tiny_encoder, "mean", dense=True)
    (tmp_path / "task.toml").write_text(task_text("http://127.0.0.1:9/v1"))
    project = Project(tmp_path)
    with project.store() as store:
        fill(store)
        questions = store.questions("train")
        store.add_verdicts(Verdict(question.id, "human", "ann", "delivery") for question in questions[:20])
    trained = project.train(consensus_encoder=str(tmp_path / "larger"), compare=False)
    assert trained.manifest.encoder["name"] == project.task.student.encoder
    widths = set()
    for file in (tmp_path / "cache").glob("vectors-*.npz"):
        with np.load(file) as stored:
            widths.add(stored["vectors"].shape[1])
    assert widths == {24}  # the student's own vectors are computed in training, and not stored


def test_another_length_in_the_task_makes_a_model_stale(tmp_path: Path, tiny_encoder: Path) -> None:
    from conftest import task_text, write_labelled

    from fingerpost.project import Project

    (tmp_path / "task.toml").write_text(task_text("http://127.0.0.1:9/v1"))
    project = Project(tmp_path)
    project.import_file(write_labelled(tmp_path / "data.csv"))
    project.train()
    assert project.is_trained()
    (tmp_path / "task.toml").write_text(task_text("http://127.0.0.1:9/v1") + "max_tokens = 32\n")
    changed = Project(tmp_path)
    assert not changed.is_trained()
    assert changed.train().manifest.max_tokens == 32 and changed.is_trained()
