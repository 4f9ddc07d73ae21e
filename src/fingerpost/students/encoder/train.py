"""Trains the sentence-encoder student, from examples to a model folder."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fingerpost.core.errors import InputError
from fingerpost.core.text import encoder_input, humanise
from fingerpost.core.types import Example, Progress, ProgressCallback, no_progress
from fingerpost.students.denoise import Rows, clean, fit_cleaned, plausibility_of
from fingerpost.students.encoder.calibrate import calibrate, cross_entropy, loses
from fingerpost.students.encoder.export import encoder_graphs, write_graph
from fingerpost.students.encoder.finetune import STEP, TrainingStep, fine_tuned, network_of, predict_logits
from fingerpost.students.encoder.network import SCALE, Encoder, Network, repeatable
from fingerpost.students.encoder.predict import MODEL_FILE, TOKENIZER_FILE, EncoderStudent, softmax
from fingerpost.students.encoder.source import DEFAULT
from fingerpost.students.folder import (
    TRAINED_ON,
    DevAnswer,
    Manifest,
    manifest_of,
    write_dev_answers,
    write_manifest,
    writing,
)
from fingerpost.students.linear import Array, Head
from fingerpost.task.settings import Task

MAX_TOKENS = 128
EPOCHS = 3
DOUBTFUL = 0.2  # plausibility below which a label is counted as doubtful


def fit(
    examples: Sequence[Example],
    dev: Sequence[Example],
    task: Task,
    folder: Path,
    *,
    encoder: str = DEFAULT,
    history: int = 2,
    seed: int = 0,
    epochs: int = EPOCHS,
    vectors: Mapping[str, Array] | None = None,
    facts: Mapping[str, Any] = MappingProxyType({}),
    on_progress: ProgressCallback = no_progress,
) -> Manifest:
    """Train on `examples`, decide and calibrate on `dev`, write the model folder.

    First a linear head on frozen embeddings, with less weight for doubtful labels; then, with `epochs` above 0,
    fine-tuning of all weights from there, which is kept if dev gains more than two standard errors.

    Args:
        encoder: a sentence encoder: folder or hub name.
        history: earlier turns of a conversation that the student sees.
        epochs: epochs of fine-tuning; 0 for the linear head alone.
        vectors: embeddings by example id, each of shape (width,), where they are known already.
        facts: further fields of the manifest; what stands under "training" is added to the training figures.
        on_progress: gets a line for each stage; `data` is a `TrainingStep` for the fitted head and each epoch.

    Raises:
        InputError: fewer than two labels among the examples, or no dev rows.
        ModelError: the encoder cannot be loaded.
    """

    def report(message: str) -> None:
        on_progress(Progress(STEP, message))

    began = time.perf_counter()
    _check(examples, dev)
    with repeatable(seed), writing(folder) as fresh:
        base = Encoder(encoder, MAX_TOKENS)
        base.save_tokenizer(fresh / TOKENIZER_FILE)
        if not vectors:
            report(f"embedding {len(examples) + len(dev):,} texts")
        train_rows, dev_rows = (rows_of(base, part, task, history, vectors) for part in (examples, dev))
        cleaned = clean(train_rows, seed)
        head = fit_cleaned(cleaned)
        doubtful = float((cleaned.plausibility < DOUBTFUL).mean())
        report(f"{doubtful:.1%} of the training labels are doubtful")
        fitted = _head_step(head, cleaned.rows, dev_rows, epochs)
        on_progress(Progress(STEP, f"linear head: {fitted.dev_accuracy:.3f} on dev", 0, epochs, data=fitted))
        network = network_of(base, task, head)
        tuned: list[TrainingStep] = []
        if epochs:
            plausible = plausibility_of(dev_rows, train_rows, head, seed)
            network, tuned = fine_tuned(
                base, network, head, cleaned.rows, dev_rows, plausible, epochs, seed, on_progress
            )
        logits = predict_logits(base, network, dev_rows.texts)
        if not tuned:  # decided with dev held out; now fitted on all rows
            network = network_of(base, task, fit_cleaned(clean(train_rows + dev_rows, seed)))
        ids = sorted({example.id for example in (*examples, *dev)})
        (fresh / TRAINED_ON).write_text("\n".join(ids) + "\n", encoding="ascii")
        report("exporting to ONNX")
        temperature = calibrate(logits, dev_rows.targets, dev_rows.weights)
        write_dev_answers(fresh, _answers(dev, dev_rows, task.names, softmax(logits / temperature)))
        fields = dict(facts)
        figures = fields.pop("training", {})
        manifest = _manifest(task, folder.name, base, history, seed).model_copy(
            update={"temperature": temperature, **fields}
        )
        precision = _export(base, network, fresh, manifest, dev_rows, on_progress)
        training = {
            "train_rows": len(examples),
            "dev_rows": len(dev),
            "doubtful_labels": round(doubtful, 4),
            "epochs": len(tuned),
            "dev_accuracy": round(float((logits.argmax(1) == dev_rows.labels).mean()), 4),
            "seconds": round(time.perf_counter() - began, 1),
            **figures,
        }
        update = {"precision": precision, "training": training}
        return write_manifest(fresh, manifest.model_copy(update=update))


def _head_step(head: Head, train: Rows, dev: Rows, epochs: int) -> TrainingStep:
    """The fitted head as step 0."""
    losses = [cross_entropy(head.logits(rows.vectors), rows) for rows in (train, dev)]
    accuracy = float((head.logits(dev.vectors).argmax(1) == dev.labels).mean())
    return TrainingStep(0, epochs, losses[0], losses[1], accuracy)


def _answers(
    dev: Sequence[Example], rows: Rows, names: Sequence[str], probabilities: NDArray[np.float64]
) -> Iterator[DevAnswer]:
    """What the model says of the dev rows; `probabilities` has the shape (rows, labels)."""
    for example, label, row in zip(dev, rows.labels, probabilities, strict=True):
        answer = int(row.argmax())
        yield DevAnswer(example.id, names[int(label)], names[answer], round(float(row[answer]), 6))


def fit_base(task: Task, folder: Path) -> Manifest:
    """The untuned base as a model folder: the label whose description is nearest in embedding space."""
    with repeatable(0), writing(folder) as fresh:
        base = Encoder(task.student.encoder, MAX_TOKENS)
        base.save_tokenizer(fresh / TOKENIZER_FILE)
        described = base.embed([label.description or humanise(label.name) for label in task.labels])
        network = network_of(base, task, Head(SCALE * described.T, np.zeros(len(task.labels), dtype=np.float32)))
        write_graph(encoder_graphs(base, network).int8, network, fresh / MODEL_FILE)
        manifest = _manifest(task, folder.name, base, task.student.history, task.student.seed)
        manifest = write_manifest(fresh, manifest.model_copy(update={"precision": "int8"}))
    return manifest


def _manifest(task: Task, name: str, base: Encoder, history: int, seed: int) -> Manifest:
    """The fields that every student of this kind has."""
    packages = ("torch", "transformers", "onnxruntime", "numpy")
    return manifest_of(
        "encoder",
        name,
        task,
        history=history,
        max_tokens=MAX_TOKENS,
        encoder=base.origin,
        seed=seed,
        versions={package: version(package) for package in packages},
    )


def rows_of(
    base: Encoder,
    examples: Sequence[Example],
    task: Task,
    history: int,
    vectors: Mapping[str, Array] | None = None,
) -> Rows:
    """Examples as arrays, embedded by the frozen encoder where their vectors are not given."""
    index = {name: i for i, name in enumerate(task.names)}
    texts = [encoder_input(each.messages, history) for each in examples]
    targets = np.zeros((len(examples), len(index)), dtype=np.float32)
    for row, example in enumerate(examples):
        for name, probability in example.target.items():
            targets[row, index[name]] = probability
    return Rows(
        texts,
        np.stack([vectors[each.id] for each in examples]) if vectors and examples else base.embed(texts),
        targets / targets.sum(1, keepdims=True),
        np.array([each.weight for each in examples], dtype=np.float32),
        [each.group or each.id for each in examples],
    )


def _export(
    base: Encoder, network: Network, folder: Path, manifest: Manifest, dev: Rows, on_progress: ProgressCallback
) -> str:
    """Write 8-bit integers where dev accuracy holds, else 32-bit floats; returns which."""
    graphs = encoder_graphs(base, network)
    exact = predict_logits(base, network, dev.texts).argmax(1) == dev.labels
    write_graph(graphs.int8, network, folder / MODEL_FILE)
    small = EncoderStudent(folder, manifest, threads=2).logits(dev.texts).argmax(1) == dev.labels
    message = f"dev labels matched: {exact.mean():.3f} in fp32, {small.mean():.3f} in int8"
    on_progress(Progress(STEP, message))
    if loses(exact, small):
        write_graph(graphs.fp32, network, folder / MODEL_FILE)
        on_progress(Progress(STEP, "int8 loses too much: fp32 is kept"))
        return "fp32"
    return "int8"


def _check(examples: Sequence[Example], dev: Sequence[Example]) -> None:
    counts = Counter(example.label for example in examples)
    if len(counts) < 2:
        raise InputError(
            f"the {len(examples)} training rows have {len(counts)} label(s); at least two are needed: label more questions"
        )
    if not dev:
        raise InputError("there are no dev rows to calibrate on; label more questions, or raise dev in [split]")
