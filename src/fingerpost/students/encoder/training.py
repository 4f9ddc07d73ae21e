"""Training the sentence-encoder student, from examples to a model folder."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest

from fingerpost import __version__, artifact
from fingerpost.errors import InputError
from fingerpost.prompt import prompt_fingerprint
from fingerpost.students.encoder.export import export_graph, quantise
from fingerpost.students.encoder.head import Array, Head
from fingerpost.students.encoder.network import SCALE, Encoder, Network, repeatable
from fingerpost.students.encoder.noise import Rows, clean, fit_cleaned, plausibility_of
from fingerpost.students.encoder.predict import MODEL_FILE, TOKENIZER_FILE, EncoderStudent, softmax
from fingerpost.students.encoder.source import DEFAULT
from fingerpost.students.encoder.tune import Epoch, predict_logits, tune
from fingerpost.text import encoder_input, spoken
from fingerpost.types import Example, Manifest, Task

MAX_TOKENS = 128
EPOCHS = 3
LABEL_SMOOTHING = 0.1
INT8_MAY_LOSE = 0.005  # of dev accuracy, and more where so few rows may be chance
CHANCE = 0.1
DOUBTFUL = 0.2  # plausibility below which a label is counted as doubtful
SMALL = 20  # dev rows below which nothing can be decided on them

Show = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Measured:
    """The head (step 0), or the network after an epoch: mean cross-entropy, and the share of dev labels matched."""

    step: int
    of: int
    train_loss: float
    dev_loss: float
    dev_accuracy: float


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
            network, tuned = _tuned(base, network, head, cleaned.rows, dev_rows, plausible, epochs, seed, show, on_step)
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


def cross_entropy(logits: NDArray[np.float32], rows: Rows) -> float:
    """The rows' mean weighted cross-entropy; logits have the shape (rows, labels)."""
    entropy = -(rows.targets * np.log(softmax(logits) + 1e-12)).sum(1)
    return float((rows.weights * entropy).sum() / rows.weights.sum())


def fit_base(task: Task, folder: Path) -> Manifest:
    """The untuned base as a model folder: the label whose description is nearest in embedding space."""
    with repeatable(0), artifact.writing(folder) as fresh:
        base = Encoder(task.student.encoder, MAX_TOKENS)
        base.save_tokenizer(fresh / TOKENIZER_FILE)
        described = base.embed([label.description or spoken(label.name) for label in task.labels])
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


def calibrate(logits: NDArray[np.float32], targets: Array, weights: Array) -> float:
    """The temperature by which to divide logits so that the likelihood of the targets is greatest (Guo et al. 2017)."""
    if len(logits) < SMALL:
        return 1.0

    def loss(log_temperature: float) -> float:
        likely = np.log(softmax(logits / np.exp(log_temperature)) + 1e-12)
        return float(-(weights * (targets * likely).sum(1)).sum() / weights.sum())

    return round(float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x)), 4)


# --- fine-tuning


def network_of(base: Encoder, task: Task, head: Head) -> Network:
    """The encoder with this head on it."""
    import torch

    network = Network(base.model, base.width, len(task.labels))
    with torch.no_grad():
        network.head.weight.copy_(torch.from_numpy(head.weights.T.copy()))
        network.head.bias.copy_(torch.from_numpy(head.bias))
    return network.eval()


def _tuned(
    base: Encoder,
    frozen: Network,
    head: Head,
    train: Rows,
    dev: Rows,
    plausible: Array,
    epochs: int,
    seed: int,
    show: Show,
    on_step: Callable[[Measured], None] | None,
) -> tuple[Network, list[Epoch]]:
    """The fine-tuned network and its epochs; or the frozen one and none, where dev does not gain.

    A gain on dev counts as much as the dev label is plausible: matching doubtful labels is copying mistakes.
    """
    import copy

    network = copy.deepcopy(frozen)
    done: list[Epoch] = []
    dev_loss = 0.0

    def on_epoch(epoch: Epoch) -> None:
        done.append(epoch)
        if on_step is not None:
            on_step(Measured(epoch.number, epoch.of, epoch.loss, dev_loss, epoch.dev_accuracy))
            return
        show(
            f"epoch {epoch.number} of {epoch.of}: loss {epoch.loss:.3f}, {epoch.dev_accuracy:.3f} on dev, "
            f"{epoch.seconds:.0f} s"
        )

    def dev_accuracy() -> float:
        nonlocal dev_loss
        logits = predict_logits(base, network, dev.texts)
        dev_loss = cross_entropy(logits, dev)
        return float((logits.argmax(1) == dev.labels).mean())

    targets = (1 - LABEL_SMOOTHING) * train.targets + LABEL_SMOOTHING / train.targets.shape[1]
    tune(
        base,
        network,
        train.texts,
        targets,
        train.weights,
        dev_accuracy,
        epochs=epochs,
        seed=seed,
        on_epoch=on_epoch,
    )
    before = head.logits(dev.vectors).argmax(1) == dev.labels
    after = predict_logits(base, network, dev.texts).argmax(1) == dev.labels
    change = plausible * (after.astype(float) - before)
    if len(dev.texts) < SMALL or change.sum() <= 2 * np.sqrt((change**2).sum()):
        show("fine-tuning does not help on dev: the linear head is kept")
        return frozen, []
    return network, done


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


def loses(exact: NDArray[np.bool_], small: NDArray[np.bool_]) -> bool:
    """Whether the smaller model is right on fewer rows by more than INT8_MAY_LOSE and more than chance.

    A one-sided sign test on the rows that only one of them has right.
    """
    only_exact, only_small = int((exact & ~small).sum()), int((~exact & small).sum())
    if exact.mean() - small.mean() <= INT8_MAY_LOSE:
        return False
    test = binomtest(only_exact, only_exact + only_small, alternative="greater")
    return bool(test.pvalue < CHANCE)


def _check(examples: Sequence[Example], dev: Sequence[Example]) -> None:
    counts = Counter(example.label for example in examples)
    if len(counts) < 2:
        raise InputError(
            f"the {len(examples)} training rows have {len(counts)} label(s); at least two are needed: label more questions"
        )
    if not dev:
        raise InputError("there are no dev rows to calibrate on; label more questions, or raise dev in [split]")
