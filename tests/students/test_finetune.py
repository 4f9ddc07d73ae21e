"""Fine-tuning: cached lower layers, early stop, the trial, and what the options mean."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_encoder
from conftest import question_text

import fingerpost
from fingerpost.core.types import Label, Tuning
from fingerpost.students.encoder import finetune
from fingerpost.students.encoder.cached_layers import CachedLayers, layers_of
from fingerpost.students.encoder.finetune import epochs_of, network_of, tune
from fingerpost.students.encoder.network import Encoder, best_device, repeatable
from fingerpost.students.encoder.source import DEFAULT
from fingerpost.students.linear import Head
from fingerpost.task.settings import Task

TEXTS = [question_text(number) for number in range(60)]
LABELS = [text.split()[0] for text in TEXTS]


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny encoder of three layers."""
    folder = tmp_path_factory.mktemp("deep")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_encoder, "LAYERS", 3)
        tiny_encoder.write_tiny_encoder(folder)
    assert json.loads((folder / "config.json").read_text())["num_hidden_layers"] == 3
    return folder


def test_what_the_options_mean() -> None:
    usual = 2 if best_device().type == "cpu" else 3
    assert (
        epochs_of(None, None) == ("auto", usual)
        and epochs_of(None, 0) == ("off", 0)
        and epochs_of(None, 2) == ("on", 2)
    )
    assert (
        epochs_of("off", 5) == ("off", 0)
        and epochs_of("auto", 5) == ("auto", 5)
        and epochs_of("on", None) == ("on", usual)
    )


def test_cached_lower_layers_give_the_same_output_and_stay_as_they_are(deep: Path) -> None:
    import torch

    encoder = Encoder(str(deep))
    task = Task(name="t", labels=tuple(Label(name=name) for name in sorted(set(LABELS))))
    network = network_of(encoder, task, Head(np.zeros((64, 3), np.float32), np.zeros(3, np.float32)))
    before = encoder.embed(TEXTS)
    cached = CachedLayers.of(encoder, network, TEXTS, upper=1)
    assert cached is not None
    batch = np.array([5, 2, 40])
    cached.replay(batch)
    with torch.inference_mode():
        vectors = network.embed(**encoder.tokens([TEXTS[i] for i in batch])).numpy()
    np.testing.assert_allclose(vectors, before[batch], atol=0.01)  # the cache has 16 bits
    cached.restore()
    np.testing.assert_allclose(encoder.embed(TEXTS), before, atol=1e-6)
    layers = layers_of(network)
    assert layers is not None
    lower, upper = ([p.detach().clone() for p in layers[i].parameters()] for i in (1, 2))
    targets = np.eye(3, dtype=np.float32)[[sorted(set(LABELS)).index(label) for label in LABELS]]
    with repeatable(0):
        losses: list[float] = []
        tune(
            encoder, network, TEXTS, targets, np.ones(60, np.float32),
            epochs=3, seed=0, on_epoch=lambda _, loss, __: losses.append(loss), upper=1,
        )  # fmt: skip
    assert losses[-1] < losses[0]
    assert all(torch.equal(a, b) for a, b in zip(lower, layers[1].parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(upper, layers[2].parameters(), strict=True))
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_training_stops_when_asked(deep: Path) -> None:
    encoder = Encoder(str(deep))
    task = Task(name="t", labels=tuple(Label(name=name) for name in ("a", "b")))
    network = network_of(encoder, task, Head(np.zeros((64, 2), np.float32), np.zeros(2, np.float32)))
    seen: list[int] = []
    tune(
        encoder, network, TEXTS, np.eye(2, dtype=np.float32)[[i % 2 for i in range(60)]], np.ones(60, np.float32),
        epochs=5, seed=0, on_epoch=lambda number, *_: seen.append(number) or number == 2,
    )  # fmt: skip
    assert seen == [1, 2]


@pytest.mark.slow
def test_progress_says_how_long_it_takes(deep: Path) -> None:
    said: list[str] = []
    fingerpost.train(
        TEXTS, LABELS, encoder=str(deep), tune="on", on_progress=lambda progress: said.append(progress.message)
    )
    epochs = [message for message in said if message.startswith("epoch ")]
    assert epochs and "s left" in epochs[0]
    assert not any("trial" in message for message in said)


@pytest.mark.slow
def test_the_trial_decides(deep: Path) -> None:
    texts = [question_text(number) for number in range(1_900)]
    for count, trials in ((1_900, 1), (60, 0)):  # with few rows there is no trial, and no fine-tuning
        said: list[str] = []
        fingerpost.train(
            texts[:count], [text.split()[0] for text in texts[:count]], encoder=str(deep), tune="auto",
            on_progress=lambda progress, to=said: to.append(progress.message),
        )  # fmt: skip
        found = [message for message in said if message.startswith("trial of fine-tuning")]
        assert len(found) == trials and all("not promising" in message for message in found)  # the words decide already
        assert not any(message.startswith("epoch ") for message in said)


@pytest.mark.parametrize("tuning", ["auto", "on"])
def test_the_default_encoder_is_tried_and_tuned_from_its_projected_head(
    monkeypatch: pytest.MonkeyPatch, tuning: Tuning
) -> None:
    monkeypatch.setattr(finetune, "TRIAL_ROWS", 30)
    monkeypatch.setattr(finetune, "TRIAL_HELD_OUT", 15)
    said: list[str] = []
    student = fingerpost.train(
        TEXTS,
        LABELS,
        encoder=DEFAULT,
        tune=tuning,
        epochs=1,
        on_progress=lambda progress: said.append(progress.message),
    )
    assert any(("trial of fine-tuning" if tuning == "auto" else "epoch 1 of 1") in line for line in said)
    assert np.mean([one.label == label for one, label in zip(student.predict(TEXTS), LABELS, strict=True)]) > 0.9
