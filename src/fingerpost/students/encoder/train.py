"""Trains the sentence-encoder student, from examples to a model folder."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fingerpost.core.errors import InputError
from fingerpost.core.text import encoder_input, humanise
from fingerpost.core.types import Example
from fingerpost.core.version import __version__
from fingerpost.students import folder as artifact
from fingerpost.students.denoise import Rows, clean, fit_cleaned, plausibility_of
from fingerpost.students.encoder.calibrate import calibrate, cross_entropy, loses
from fingerpost.students.encoder.export import export_graph, quantise
from fingerpost.students.encoder.finetune import Epoch, Measured, Show, fine_tuned, network_of, predict_logits
from fingerpost.students.encoder.network import SCALE, Encoder, Network, repeatable
from fingerpost.students.encoder.predict import MODEL_FILE, TOKENIZER_FILE, EncoderStudent, softmax
from fingerpost.students.encoder.source import DEFAULT
from fingerpost.students.folder import Manifest
from fingerpost.students.linear import Array, Head
from fingerpost.task.prompt import prompt_fingerprint
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
    changed_labels: tuple[int, int] = (0, 0),
    show: Show = lambda _: None,
    on_step: Callable[[Measured], None] | None = None,
) -> Manifest:
    """Train on `examples`, decide and calibrate on `dev`, write the model folder.

    First a linear head on frozen embeddings, doubtful labels weighing less; then, with `epochs` above 0,
    fine-tuning of all weights from there, kept if dev gains more than two standard errors. `vectors` are the texts'
    embeddings by example id, where they are known already; `facts` are further fields of the manifest. `on_step` is
    told of the head and each epoch, which `show` is told of otherwise.

    Raises:
        InputError: fewer than two labels among the examples, or no dev rows.
        ModelError: the encoder cannot be had.
    """
    began = time.perf_counter()
    _check(examples, dev)
    with repeatable(seed), artifact.writing(folder) as fresh:
        base = Encoder(encoder, MAX_TOKENS)
        base.save_tokenizer(fresh / TOKENIZER_FILE)
        if not vectors:
            show(f"embedding {len(examples) + len(dev):,} texts")
        train_rows, dev_rows = (rows_of(base, each, task, history, vectors) for each in (examples, dev))
        cleaned = clean(train_rows, seed)
        head = fit_cleaned(cleaned)
        accuracy = float((head.logits(dev_rows.vectors).argmax(1) == dev_rows.labels).mean())
        doubtful = float((cleaned.plausibility < DOUBTFUL).mean())
        show(f"{doubtful:.1%} of the training labels are doubtful")
        if on_step is None:
            show(f"linear head: {accuracy:.3f} on dev")
        else:
            losses = [cross_entropy(head.logits(each.vectors), each) for each in (cleaned.rows, dev_rows)]
            on_step(Measured(0, epochs, losses[0], losses[1], accuracy))
        network = network_of(base, task, head)
        tuned: list[Epoch] = []
        if epochs:
            plausible = plausibility_of(dev_rows, train_rows, head, seed)
            network, tuned = fine_tuned(
                base, network, head, cleaned.rows, dev_rows, plausible, epochs, seed, show, on_step
            )
        logits = predict_logits(base, network, dev_rows.texts)
        if not tuned:  # what was decided with dev held out is now fitted on all rows
            network = network_of(base, task, fit_cleaned(clean(train_rows + dev_rows, seed)))
        ids = sorted({each.id for each in (*examples, *dev)})
        (fresh / artifact.TRAINED_ON).write_text("\n".join(ids) + "\n", encoding="ascii")
        show("exporting to ONNX")
        temperature = calibrate(logits, dev_rows.targets, dev_rows.weights)
        artifact.write_dev_answers(fresh, _answers(dev, dev_rows, task.names, softmax(logits / temperature)))
        manifest = _manifest(task, folder.name, base, history, seed).model_copy(
            update={"temperature": temperature, **facts}
        )
        precision = _export(base, network, fresh, manifest, dev_rows, show)
        training = {
            "train_rows": len(examples),
            "dev_rows": len(dev),
            "doubtful_labels": round(doubtful, 4),
            "changed_labels": changed_labels[0],
            "teacher_labels": changed_labels[1],
            "epochs": len(tuned),
            "dev_accuracy": round(float((logits.argmax(1) == dev_rows.labels).mean()), 4),
            "seconds": round(time.perf_counter() - began, 1),
        }
        manifest = artifact.write_manifest(
            fresh, manifest.model_copy(update={"precision": precision, "training": training})
        )
    return manifest


def _answers(
    dev: Sequence[Example], rows: Rows, names: Sequence[str], probabilities: NDArray[np.float64]
) -> Iterator[artifact.DevAnswer]:
    """What the model says of the dev rows; `probabilities` has the shape (rows, labels)."""
    for example, label, row in zip(dev, rows.labels, probabilities, strict=True):
        answer = int(row.argmax())
        yield artifact.DevAnswer(example.id, names[int(label)], names[answer], round(float(row[answer]), 6))


def fit_base(task: Task, folder: Path) -> Manifest:
    """The untuned base as a model folder: the label whose description is nearest in embedding space."""
    with repeatable(0), artifact.writing(folder) as fresh:
        base = Encoder(task.student.encoder, MAX_TOKENS)
        base.save_tokenizer(fresh / TOKENIZER_FILE)
        described = base.embed([label.description or humanise(label.name) for label in task.labels])
        network = network_of(base, task, Head(SCALE * described.T, np.zeros(len(task.labels), dtype=np.float32)))
        export_graph(base, network, fresh / "fp32.onnx")
        quantise(fresh / "fp32.onnx", fresh / MODEL_FILE)
        (fresh / "fp32.onnx").unlink()
        manifest = _manifest(task, folder.name, base, task.student.history, task.student.seed)
        manifest = artifact.write_manifest(fresh, manifest.model_copy(update={"precision": "int8"}))
    return manifest


def _manifest(task: Task, name: str, base: Encoder, history: int, seed: int) -> Manifest:
    """What every student of this kind says of itself."""
    return Manifest(
        kind="encoder",
        name=name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        fingerpost=__version__,
        labels=list(task.labels),
        answer_field=task.answer_field,
        history=history,
        max_tokens=MAX_TOKENS,
        encoder=base.origin,
        task_fingerprint=prompt_fingerprint(task),
        seed=seed,
        versions={package: version(package) for package in ("torch", "transformers", "onnxruntime", "numpy")},
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


def _export(base: Encoder, network: Network, folder: Path, manifest: Manifest, dev: Rows, show: Show) -> str:
    """Write int8 where dev accuracy holds, else fp32; returns which."""
    whole = folder / "fp32.onnx"
    export_graph(base, network, whole)
    exact = predict_logits(base, network, dev.texts).argmax(1) == dev.labels
    quantise(whole, folder / MODEL_FILE)
    small = EncoderStudent(folder, manifest, threads=2).logits(dev.texts).argmax(1) == dev.labels
    show(f"labels of dev matched: {exact.mean():.3f} in fp32, {small.mean():.3f} in int8")
    if loses(exact, small):
        whole.replace(folder / MODEL_FILE)
        show("int8 loses too much: fp32 is kept")
        return "fp32"
    whole.unlink()
    return "int8"


def _check(examples: Sequence[Example], dev: Sequence[Example]) -> None:
    counts = Counter(example.label for example in examples)
    if len(counts) < 2:
        raise InputError(
            f"the {len(examples)} training rows have {len(counts)} label(s); at least two are needed: label more questions"
        )
    if not dev:
        raise InputError("there are no dev rows to calibrate on; label more questions, or raise dev in [split]")
