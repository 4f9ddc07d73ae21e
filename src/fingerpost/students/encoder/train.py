"""Trains the sentence-encoder student: from examples to a model folder."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fingerpost.core.errors import InputError
from fingerpost.core.text import encoder_input, humanise
from fingerpost.core.types import Example, Progress, ProgressCallback, no_progress
from fingerpost.students.denoise import Rows, Views, clean, clean_held_out, fit_views
from fingerpost.students.encoder.calibrate import calibrate, cross_entropy, loses_accuracy
from fingerpost.students.encoder.export import encoder_graphs, write_graph
from fingerpost.students.encoder.finetune import (
    STEP,
    TrainingStep,
    default_epochs,
    fine_tune,
    network_of,
    predict_logits,
)
from fingerpost.students.encoder.network import SCALE, Encoder, Network, repeatable
from fingerpost.students.encoder.predict import MODEL_FILE, TOKENIZER_FILE, EncoderView, softmax
from fingerpost.students.encoder.source import AUTO, choose_encoder
from fingerpost.students.folder import (
    TRAINED_ON,
    DevAnswer,
    FastTier,
    Manifest,
    Stack,
    manifest_of,
    write_dev_answers,
    write_manifest,
    writing,
)
from fingerpost.students.lexical import LEXICAL_FILE, LexicalView, Ngrams, familiarity_of, margins
from fingerpost.students.linear import Array, Centring, Head
from fingerpost.students.stack import MIN_ROWS, fit_fast_tier, fit_stack
from fingerpost.task.settings import Task

MAX_TOKENS = 128
UNFAMILIAR = 0.005  # share of training rows that are too unfamiliar for the lexical view
IMPLAUSIBLE = 0.2  # plausibility below which a label is reported as probably wrong


def fit(
    examples: Sequence[Example],
    dev: Sequence[Example],
    task: Task,
    folder: Path,
    *,
    encoder: str = AUTO,
    requested: str | None = None,
    history: int = 2,
    seed: int = 0,
    epochs: int | None = None,
    max_tokens: int = MAX_TOKENS,
    vectors: Mapping[str, Array] | None = None,
    facts: Mapping[str, Any] = MappingProxyType({}),
    on_progress: ProgressCallback = no_progress,
) -> Manifest:
    """Train on `examples`, choose between models and calibrate on `dev`, and write the model folder.

    The student has two views: a linear head on the embeddings of a frozen encoder, and a linear model of word and
    character n-grams. Both are fitted with less weight for implausible labels, and combined with weights that are found
    out of fold. With `epochs` above 0, the encoder is then fine-tuned; the result is kept if dev gains more than two
    standard errors.

    Args:
        task: the task, for label names and the manifest.
        folder: the model folder; a model that is already there is replaced.
        encoder: the pretrained sentence encoder, a folder or hub name; `auto` chooses by the language of the texts.
        requested: the encoder's name in the task's settings, if `encoder` was chosen for `auto`.
        history: number of earlier turns of a conversation that the student sees.
        seed: seed of all random choices.
        epochs: epochs of fine-tuning; 0 for none. Default: `default_epochs`, none without a GPU.
        max_tokens: tokens that the encoder reads at once; longer texts are read in windows.
        vectors: known embeddings by example id, each of shape (width,).
        facts: additional fields of the manifest; those under "training" are added to the training figures.
        on_progress: receives a message for each stage; `data` is a `TrainingStep` for the linear head and each epoch.

    Raises:
        InputError: the examples have fewer than two labels, there are no dev rows, or `folder` is not a model folder.
        ModelError: the encoder cannot be loaded.
    """

    def report(message: str) -> None:
        on_progress(Progress(STEP, message))

    began = time.perf_counter()
    _require_rows(examples, dev)
    epochs = default_epochs() if epochs is None else epochs
    with repeatable(seed), writing(folder) as staging:
        texts = [encoder_input(example.messages, history) for example in (*examples, *dev)]
        name, remark = choose_encoder(encoder, texts)
        if remark:
            report(remark)
        base = Encoder(name, max_tokens)
        if not vectors:
            report(f"embedding {len(examples) + len(dev):,} texts")
        train_rows, dev_rows = (rows_of(base, part, task, history, vectors) for part in (examples, dev))
        centring = Centring.of(train_rows.vectors)
        ngrams = Ngrams.fit(texts)
        train_rows, dev_rows = (
            replace(rows, vectors=centring.apply(rows.vectors), ngrams=ngrams.matrix(rows.texts))
            for rows in (train_rows, dev_rows)
        )
        report(f"fitting the linear head and {len(ngrams):,} n-grams")
        cleaned = clean(train_rows, seed)
        cleaned.stack.familiarity = _least_familiarity(train_rows)
        views = fit_views(cleaned.rows, cleaned.stack)
        implausible = float((cleaned.plausibility < IMPLAUSIBLE).mean())
        report(f"{implausible:.1%} of the training labels are probably wrong")
        fitted = _head_step(views.head, cleaned.rows, dev_rows, epochs)
        on_progress(Progress(STEP, _views_message(views, dev_rows), 0, epochs, data=fitted))
        network = network_of(base, task, centring.fold(views.head))
        cleaned_dev, dev_plausibility = clean_held_out(dev_rows, train_rows, views, seed)
        tuned: list[TrainingStep] = []
        if epochs:
            network, tuned = fine_tune(
                base, network, views, cleaned.rows, dev_rows, dev_plausibility, epochs, seed, on_progress
            )
        encoder_scores = predict_logits(base, network, dev_rows.texts) if tuned else views.head.logits(dev_rows.vectors)
        lexical_scores = views.lexical_scores(dev_rows)
        stack = views.stack
        if tuned and len(dev) >= MIN_ROWS:
            stack = fit_stack(encoder_scores, lexical_scores, dev_rows.targets, cleaned_dev.weights)
            stack.familiarity = views.stack.familiarity
        logits = stack.combine(encoder_scores, lexical_scores)
        temperature = calibrate(logits, dev_rows.targets, dev_rows.weights)
        held_out = (
            (encoder_scores, lexical_scores, dev_rows) if tuned else (cleaned.encoder, cleaned.lexical, train_rows)
        )
        fast = _fast_tier(*held_out, stack)
        # The dev rows were only needed to decide: the final views are fitted on all rows.
        final = fit_views(cleaned.rows + cleaned_dev, stack, lexical=fast is not None or bool(stack.lexical))
        if not tuned:
            network = network_of(base, task, centring.fold(final.head))
        ids = sorted({example.id for example in (*examples, *dev)})
        (staging / TRAINED_ON).write_text("\n".join(ids) + "\n", encoding="ascii")
        probabilities = _tiered(logits / temperature, lexical_scores, fast)
        write_dev_answers(staging, _dev_answers(dev, dev_rows, task.names, probabilities))
        fields = dict(facts)
        figures = fields.pop("training", {})
        manifest = _manifest(task, folder.name, base, history, seed).model_copy(
            update={
                "temperature": temperature,
                "stack": stack,
                "fast": fast,
                "requested_encoder": requested or encoder,
                **fields,
            }
        )
        if final.lexical is not None:
            LexicalView(ngrams, final.lexical).save(staging / LEXICAL_FILE)
        precision: str = manifest.precision
        if stack.encoder:
            report("exporting to ONNX")
            if manifest.requested_encoder == AUTO:
                base.prune(network, texts)
            base.save_tokenizer(staging / TOKENIZER_FILE)
            precision = _export(base, network, staging, manifest, dev_rows, on_progress)
        training = {
            "train_rows": len(examples),
            "dev_rows": len(dev),
            "doubtful_labels": round(implausible, 4),
            "epochs": len(tuned),
            "dev_accuracy": _accuracy(logits, dev_rows),
            "encoder_dev_accuracy": _accuracy(encoder_scores, dev_rows),
            "lexical_dev_accuracy": _accuracy(lexical_scores, dev_rows),
            "seconds": round(time.perf_counter() - began, 1),
            **figures,
        }
        update = {"precision": precision, "training": training}
        return write_manifest(staging, manifest.model_copy(update=update))


def _least_familiarity(train: Rows) -> float:
    """The familiarity below which the lexical view is not asked; 0 where there are too few rows to tell."""
    if train.ngrams is None or len(train.texts) < MIN_ROWS:
        return 0.0
    return round(float(np.quantile(familiarity_of(train.ngrams), UNFAMILIAR)), 4)


def _fast_tier(encoder: Array, lexical: Array, rows: Rows, stack: Stack) -> FastTier | None:
    """The calibrated fast tier, from the scores of rows that neither view was fitted to, shape (rows, labels)."""
    return fit_fast_tier(encoder, lexical, stack, calibrate(lexical, rows.targets, rows.weights))


def _tiered(logits: Array, lexical: Array, fast: FastTier | None) -> NDArray[np.float64]:
    """The probabilities that the student gives with its fast tier, shape (rows, labels).

    Args:
        logits: of all views, divided by the temperature, shape (rows, labels).
        lexical: scores of the lexical view, shape (rows, labels).
    """
    probabilities = softmax(logits)
    if fast is not None:
        answered = margins(lexical) >= fast.margin
        probabilities[answered] = softmax(lexical[answered] / fast.temperature)
    return probabilities


def _accuracy(logits: Array, rows: Rows) -> float:
    """The share of rows whose given label has the highest score."""
    return round(float((logits.argmax(1) == rows.labels).mean()), 4)


def _views_message(views: Views, dev: Rows) -> str:
    """The weight and the dev accuracy of each view, in one line."""
    scores = {"encoder": views.head.logits(dev.vectors), "lexical": views.lexical_scores(dev)}
    weights = {"encoder": views.stack.encoder, "lexical": views.stack.lexical}
    parts = [
        f"{name} view {_accuracy(scores[name], dev):.3f} (weight {weights[name]:.2f})"
        if weights[name]
        else f"{name} view not used"
        for name in scores
    ]
    return f"dev accuracy: {', '.join(parts)}, together {_accuracy(views.logits(dev), dev):.3f}"


def _head_step(head: Head, train: Rows, dev: Rows, epochs: int) -> TrainingStep:
    """The metrics of the linear head, as step 0."""
    losses = [cross_entropy(head.logits(rows.vectors), rows) for rows in (train, dev)]
    accuracy = float((head.logits(dev.vectors).argmax(1) == dev.labels).mean())
    return TrainingStep(0, epochs, losses[0], losses[1], accuracy)


def _dev_answers(
    dev: Sequence[Example], rows: Rows, names: Sequence[str], probabilities: NDArray[np.float64]
) -> Iterator[DevAnswer]:
    """The model's answers to the dev rows. `probabilities` has shape (rows, labels)."""
    for example, label, row in zip(dev, rows.labels, probabilities, strict=True):
        answer = int(row.argmax())
        yield DevAnswer(example.id, names[int(label)], names[answer], round(float(row[answer]), 6))


def fit_base(task: Task, folder: Path) -> Manifest:
    """Write the untuned baseline as a model folder. It predicts the label whose description is nearest by cosine.

    Raises:
        ModelError: the encoder cannot be loaded.
    """
    with repeatable(0), writing(folder) as staging:
        descriptions = [label.description or humanise(label.name) for label in task.labels]
        base = Encoder(choose_encoder(task.student.encoder, descriptions)[0], MAX_TOKENS)
        described = base.embed(descriptions)
        network = network_of(base, task, Head(SCALE * described.T, np.zeros(len(task.labels), dtype=np.float32)))
        if task.student.encoder == AUTO:
            base.prune(network, descriptions)
        base.save_tokenizer(staging / TOKENIZER_FILE)
        write_graph(encoder_graphs(base, network).int8, network, staging / MODEL_FILE)
        manifest = _manifest(task, folder.name, base, task.student.history, task.student.seed)
        update = {"precision": "int8", "requested_encoder": task.student.encoder}
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
) -> Rows:
    """Examples as arrays, embedded by the frozen encoder if `vectors` are not given."""
    index = {name: i for i, name in enumerate(task.names)}
    texts = [encoder_input(example.messages, history) for example in examples]
    targets = np.zeros((len(examples), len(index)), dtype=np.float32)
    for row, example in enumerate(examples):
        for name, probability in example.target.items():
            targets[row, index[name]] = probability
    return Rows(
        texts,
        np.stack([vectors[example.id] for example in examples]) if vectors and examples else base.embed(texts),
        targets / targets.sum(1, keepdims=True),
        np.array([example.weight for example in examples], dtype=np.float32),
        [example.group or example.id for example in examples],
    )


def _export(
    base: Encoder, network: Network, folder: Path, manifest: Manifest, dev: Rows, on_progress: ProgressCallback
) -> str:
    """Write the graph in 8-bit integers, or in 32-bit floats if int8 loses dev accuracy; returns the precision."""
    graphs = encoder_graphs(base, network)
    fp32_right = predict_logits(base, network, dev.texts).argmax(1) == dev.labels
    write_graph(graphs.int8, network, folder / MODEL_FILE)
    int8_right = EncoderView(folder, manifest.max_tokens, threads=2).scores(dev.texts)[0].argmax(1) == dev.labels
    message = f"final encoder view on dev rows, which it has now learnt from: {fp32_right.mean():.3f} in fp32, {int8_right.mean():.3f} in int8"
    on_progress(Progress(STEP, message))
    if loses_accuracy(fp32_right, int8_right):
        write_graph(graphs.fp32, network, folder / MODEL_FILE)
        on_progress(Progress(STEP, "int8 loses too much accuracy; keeping fp32"))
        return "fp32"
    return "int8"


def _require_rows(examples: Sequence[Example], dev: Sequence[Example]) -> None:
    """Raises InputError if there are fewer than two labels or no dev rows."""
    counts = Counter(example.label for example in examples)
    if len(counts) < 2:
        raise InputError(
            f"the {len(examples)} training rows have {len(counts)} label(s), at least two are needed; label more questions"
        )
    if not dev:
        raise InputError("there are no dev rows to calibrate on; label more questions, or raise dev in [split]")
