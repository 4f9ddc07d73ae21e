"""Trains the sentence-encoder student: from examples to a model folder."""

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
from fingerpost.core.types import Example, Progress, ProgressCallback, Tuning, no_progress
from fingerpost.students.denoise import Rows
from fingerpost.students.encoder.calibrate import loses_accuracy
from fingerpost.students.encoder.export import encoder_graphs, write_graph
from fingerpost.students.encoder.finetune import (
    STEP,
    epochs_of,
    predict_logits,
    with_head,
)
from fingerpost.students.encoder.fitting import fit_label_sets, fit_labels, prepare
from fingerpost.students.encoder.network import MAX_TOKENS, SCALE, SPECIAL_TOKENS, Encoder, Network, repeatable
from fingerpost.students.encoder.predict import EncoderView
from fingerpost.students.encoder.source import AUTO, choose_encoder
from fingerpost.students.folder import (
    DEV_ANSWERS,
    LEXICAL_FILE,
    MODEL_FILE,
    TOKENIZER_FILE,
    TRAIN_ANSWERS,
    TRAINED_ON,
    DevAnswer,
    Manifest,
    manifest_of,
    write_answers,
    write_manifest,
    writing,
)
from fingerpost.students.lexical import LexicalView
from fingerpost.students.linear import Array, Head
from fingerpost.task.settings import Task


def fit(
    examples: Sequence[Example],
    dev: Sequence[Example],
    task: Task,
    folder: Path,
    *,
    encoder: str = AUTO,
    requested: Mapping[str, Any] = MappingProxyType({}),
    history: int = 2,
    seed: int = 0,
    tune: Tuning | None = None,
    epochs: int | None = None,
    max_tokens: int | None = None,
    vectors: Mapping[str, Array] | None = None,
    facts: Mapping[str, Any] = MappingProxyType({}),
    on_progress: ProgressCallback = no_progress,
) -> Manifest:
    """Train on `examples`, choose between models and calibrate on `dev`, and write the model folder.

    The student has two views: a linear head on the embeddings of a frozen encoder, and a linear model of word and
    character n-grams. Both are fitted with less weight for implausible labels, and combined with weights that are found
    out of fold. The encoder may be fine-tuned, too; the result is kept if it makes the dev labels more likely.

    Args:
        task: the task, for label names and the manifest.
        folder: the model folder; a model that is already there is replaced.
        encoder: the pretrained sentence encoder, a folder or hub name; `auto` chooses by the language of the texts.
        requested: `encoder` and `max_tokens` of the task's settings, where these were chosen for `auto` and None.
        history: number of earlier turns of a conversation that the student sees.
        seed: seed of all random choices.
        tune: whether to fine-tune the encoder. `auto`, the default, fine-tunes if a trial on some of the rows promises a
            gain.
        epochs: epochs of fine-tuning, 3 if not given and 2 on a processor; 0 is as `tune="off"`, and more as `tune="on"` if that is not given.
        max_tokens: tokens that the encoder reads at once; longer texts are read in windows. Default: what 95 % of the
            texts fit into, at least 128 and at most what the encoder can read.
        vectors: known embeddings by example id, each of shape (width,).
        facts: additional fields of the manifest; those under "training" are added to the training figures.
        on_progress: receives a message for each stage; `data` is a `TrainingStep` for the linear head and each epoch.

    Raises:
        InputError: the examples have fewer than two labels, there are no dev rows, or `folder` is not a model folder.
        ModelError: the encoder cannot be loaded.
    """

    began = time.perf_counter()
    _require_rows(examples, dev)
    with repeatable(seed), writing(folder) as staging:
        texts = [encoder_input(example.messages, history) for example in (*examples, *dev)]
        name, remark = choose_encoder(encoder, texts)
        if remark:
            on_progress(Progress(STEP, remark))
        base = Encoder(name)
        base.read_at_once(max_tokens or base.covering(texts))
        at_once = _read_at_once(base, texts)
        on_progress(Progress(STEP, _reading_message(base, at_once)))
        vectors = _readable(base, vectors)
        if not vectors:
            on_progress(Progress(STEP, f"embedding {len(examples) + len(dev):,} texts"))
        train_rows, dev_rows = (rows_of(base, part, task, history, vectors, on_progress) for part in (examples, dev))
        data = prepare(base, task, train_rows, dev_rows)
        on_progress(Progress(STEP, f"fitting the linear head and {len(data.ngrams):,} n-grams"))
        fitted = (
            fit_label_sets(data, epochs, on_progress)
            if task.multi
            else fit_labels(data, *epochs_of(tune, epochs), seed, on_progress)
        )
        ids = sorted({example.id for example in (*examples, *dev)})
        (staging / TRAINED_ON).write_text("\n".join(ids) + "\n", encoding="ascii")
        write_answers(staging / DEV_ANSWERS, _stored_answers(dev, fitted.answers))
        if fitted.out_of_fold:
            write_answers(staging / TRAIN_ANSWERS, _stored_answers(examples, fitted.out_of_fold))
        fields = dict(facts)
        figures = fields.pop("training", {})
        manifest = _manifest(task, folder.name, base, history, seed).model_copy(
            update={
                "temperature": fitted.temperature,
                "stack": fitted.stack,
                "fast": fitted.fast,
                "multi": fitted.multi,
                "requested": {"encoder": encoder, "max_tokens": max_tokens, **requested},
                **fields,
            }
        )
        if fitted.lexical is not None:
            LexicalView(data.ngrams, fitted.lexical).save(staging / LEXICAL_FILE)
        precision: str = manifest.precision
        if fitted.stack.encoder:
            on_progress(Progress(STEP, "exporting to ONNX"))
            if manifest.requested["encoder"] == AUTO:
                base.prune(fitted.network, texts)
            base.save_tokenizer(staging / TOKENIZER_FILE)
            precision = _export(base, fitted.network, staging, manifest, dev_rows, on_progress)
        training = {
            "train_rows": len(examples),
            "dev_rows": len(dev),
            "read_at_once": round(at_once, 4),
            **fitted.figures,
            "seconds": round(time.perf_counter() - began, 1),
            **figures,
        }
        update = {"precision": precision, "training": training}
        return write_manifest(staging, manifest.model_copy(update=update))


def _read_at_once(base: Encoder, texts: Sequence[str]) -> float:
    """The share of the texts that fit into one window."""
    return (
        1.0
        if all(len(text) <= base.max_tokens - SPECIAL_TOKENS for text in texts)
        else float((base.count_tokens(texts) <= base.max_tokens).mean())
    )


def _reading_message(base: Encoder, at_once: float) -> str:
    rest = f", the others in windows of {base.max_tokens}" if at_once < 1 else ""
    return f"the encoder reads {at_once:.1%} of the texts at once{rest}; the lexical view reads the whole of every text"


def _stored_answers(examples: Sequence[Example], answers: Sequence[tuple[str, float]]) -> Iterator[DevAnswer]:
    """Answers to rows, as they are stored."""
    for example, (answer, confidence) in zip(examples, answers, strict=True):
        yield DevAnswer(example.id, example.label, answer, round(confidence, 6))


def fit_base(task: Task, folder: Path) -> Manifest:
    """Write the untuned baseline as a model folder. It predicts the label whose description is nearest by cosine.

    Raises:
        ModelError: the encoder cannot be loaded.
    """
    with repeatable(0), writing(folder) as staging:
        descriptions = [label.description or humanise(label.name) for label in task.labels]
        base = Encoder(choose_encoder(task.student.encoder, descriptions)[0], task.student.max_tokens or MAX_TOKENS)
        described = base.embed(descriptions, plain=True)
        network = base.network(len(task.labels), plain=True)
        with_head(network, Head(SCALE * described.T, np.zeros(len(task.labels), dtype=np.float32)))
        if task.student.encoder == AUTO:
            base.prune(network, descriptions)
        base.save_tokenizer(staging / TOKENIZER_FILE)
        write_graph(encoder_graphs(base, network).int8, network, staging / MODEL_FILE)
        manifest = _manifest(task, folder.name, base, task.student.history, task.student.seed)
        requested = {"encoder": task.student.encoder, "max_tokens": task.student.max_tokens}
        update = {"precision": "int8", "requested": requested}
        manifest = write_manifest(staging, manifest.model_copy(update=update))
    return manifest


def _manifest(task: Task, name: str, base: Encoder, history: int, seed: int) -> Manifest:
    """A manifest with the fields that every encoder student has."""
    packages = ("torch", "transformers", "onnxruntime", "numpy")
    return manifest_of(
        "encoder",
        name,
        task,
        history=history,
        max_tokens=base.max_tokens,
        encoder=base.origin,
        seed=seed,
        versions={package: version(package) for package in packages},
    )


def encoder_of(name: str, examples: Sequence[Example], history: int) -> str:
    """The encoder of this name; for `auto`, the one that fits the language of the examples."""
    return choose_encoder(name, [encoder_input(example.messages, history) for example in examples])[0]


def rows_of(
    base: Encoder,
    examples: Sequence[Example],
    task: Task,
    history: int,
    vectors: Mapping[str, Array] | None = None,
    on_progress: ProgressCallback = no_progress,
) -> Rows:
    """Examples as arrays, embedded by the frozen encoder if `vectors` are not given."""
    index = {name: i for i, name in enumerate(task.names)}
    texts, known = [encoder_input(example.messages, history) for example in examples], _readable(base, vectors)
    targets = np.zeros((len(examples), len(index)), dtype=np.float32)
    for row, example in enumerate(examples):
        for name, probability in example.target.items():
            targets[row, index[name]] = probability
    return Rows(
        texts,
        np.stack([known[example.id] for example in examples])
        if known and examples
        else base.embed(texts, on_progress=on_progress),
        targets if task.multi else targets / targets.sum(1, keepdims=True),
        np.array([example.weight for example in examples], dtype=np.float32),
        [example.group or example.id for example in examples],
    )


def _readable(base: Encoder, vectors: Mapping[str, Array] | None) -> Mapping[str, Array]:
    """The embeddings, if they are those that a student reads; else none. Those for comparing texts may be narrower."""
    return vectors if vectors and len(next(iter(vectors.values()))) == base.width else {}


def _export(
    base: Encoder, network: Network, folder: Path, manifest: Manifest, dev: Rows, on_progress: ProgressCallback
) -> str:
    """Write the graph in 8-bit integers, or in 32-bit floats if int8 loses dev accuracy; returns the precision."""
    graphs = encoder_graphs(base, network)
    fp32_right = _right(predict_logits(base, network, dev.texts), dev, manifest)
    write_graph(graphs.int8, network, folder / MODEL_FILE)
    int8_right = _right(EncoderView(folder, manifest.max_tokens, threads=2).scores(dev.texts)[0], dev, manifest)
    message = f"final encoder view on dev rows, which it has now learnt from: {fp32_right.mean():.3f} in fp32, {int8_right.mean():.3f} in int8"
    on_progress(Progress(STEP, message))
    if loses_accuracy(fp32_right, int8_right):
        write_graph(graphs.fp32, network, folder / MODEL_FILE)
        on_progress(Progress(STEP, "int8 loses too much accuracy; keeping fp32"))
        return "fp32"
    return "int8"


def _right(scores: Array, rows: Rows, manifest: Manifest) -> NDArray[np.bool_]:
    """Whether the encoder view alone is right, shape (rows,). `scores` has shape (rows, labels)."""
    right: NDArray[np.bool_] = scores.argmax(1) == rows.labels
    if manifest.multi is not None:
        right = ((scores > 0) == (rows.targets >= 0.5)).all(1)
    return right


def _require_rows(examples: Sequence[Example], dev: Sequence[Example]) -> None:
    """Raises InputError if there are fewer than two labels or no dev rows."""
    counts = Counter(label for example in examples for label in example.target)
    if len(counts) < 2:
        raise InputError(
            f"the {len(examples)} training rows have {len(counts)} label(s), at least two are needed; label more questions"
        )
    if not dev:
        raise InputError("there are no dev rows to calibrate on; label more questions, or raise dev in [split]")
