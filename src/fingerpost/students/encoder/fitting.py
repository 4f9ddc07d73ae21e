"""Fits both views of a student and how they work together: stack, calibration, fast tier, thresholds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from fingerpost.core.label_sets import join_labels
from fingerpost.core.types import Progress, ProgressCallback, Tuning
from fingerpost.students.binary_relevance import (
    choose_thresholds,
    clean_label_sets,
    fit_label_views,
    soften_label_sets,
)
from fingerpost.students.denoise import Rows, Views, clean, clean_held_out, fit_views
from fingerpost.students.encoder.calibrate import calibrate, cross_entropy
from fingerpost.students.encoder.finetune import (
    STEP,
    TrainingStep,
    fine_tune,
    is_promising,
    network_of,
    predict_logits,
)
from fingerpost.students.encoder.network import Encoder, Network
from fingerpost.students.encoder.predict import softmax
from fingerpost.students.folder import (
    FastTier,
    MultiLabel,
    Stack,
)
from fingerpost.students.lexical import LinearScores, Ngrams, held_out_familiarity, margins
from fingerpost.students.linear import Array, Head, Projection
from fingerpost.students.ordinal import over_levels
from fingerpost.students.stack import MIN_ROWS, fit_fast_tier, fit_stack
from fingerpost.task.settings import Task

UNFAMILIAR = 0.005  # share of training rows that would be too unfamiliar for the lexical view if it had not seen them
IMPLAUSIBLE = 0.2  # plausibility below which a label is reported as probably wrong


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """The rows to learn from, with projected vectors and n-grams; and what is needed to build a network."""

    base: Encoder
    task: Task
    train: Rows
    dev: Rows
    projection: Projection
    ngrams: Ngrams

    def network(self, head: Head) -> Network:
        """The frozen encoder with a head that was fitted to projected vectors."""
        return network_of(self.base, self.task, self.projection.fold(head))


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted student, before it is written.

    Attributes:
        lexical: None if neither the stack nor a fast tier needs it.
        answers: the answer to each dev row and its confidence, given before the student has learnt from these rows.
        out_of_fold: the same of the training rows, by cross-validation; empty if the encoder was fine-tuned.
        figures: of the training run, for the manifest.
    """

    network: Network
    lexical: LinearScores | None
    stack: Stack
    temperature: float
    fast: FastTier | None
    multi: MultiLabel | None
    answers: list[tuple[str, float]]
    out_of_fold: list[tuple[str, float]]
    figures: dict[str, Any]


def prepare(base: Encoder, task: Task, train: Rows, dev: Rows) -> TrainingRows:
    projection, ngrams = Projection.of(train.vectors, base.projected_parts), Ngrams.fit(train.texts + dev.texts)
    parts = [
        replace(
            rows,
            vectors=projection.apply(rows.vectors),
            ngrams=ngrams.matrix(rows.texts),
            read_width=rows.vectors.shape[1],
        )
        for rows in (train, dev)
    ]
    return TrainingRows(base, task, parts[0], parts[1], projection, ngrams)


def fit_labels(data: TrainingRows, tuning: Tuning, epochs: int, seed: int, on_progress: ProgressCallback) -> Fitted:
    """Fit both views and their stack to rows with one label each, and fine-tune."""
    train, dev = data.train, data.dev
    learnt, learnt_dev = (over_levels(train), over_levels(dev)) if data.task.ordinal else (train, dev)
    cleaned = clean(learnt, seed)
    cleaned.stack.familiarity = _least_familiarity(train)
    views = fit_views(cleaned.rows, cleaned.stack)
    implausible = float((cleaned.plausibility < IMPLAUSIBLE).mean())
    on_progress(Progress(STEP, f"{implausible:.1%} of the training labels are probably wrong"))
    step = _head_step(views.head, cleaned.rows, dev, epochs)
    on_progress(Progress(STEP, _views_message(views, dev), 0, epochs, data=step))
    cleaned_dev, dev_plausibility = clean_held_out(learnt_dev, learnt, views, seed)
    network = data.network(views.head)
    tuned: list[TrainingStep] = []
    if tuning == "on" or (tuning == "auto" and is_promising(data.base, data.network, cleaned.rows, seed, on_progress)):
        network, tuned = fine_tune(
            data.base, network, views, cleaned.rows, dev, dev_plausibility, epochs, seed, on_progress
        )
    encoder_scores = predict_logits(data.base, network, dev.texts) if tuned else views.head.logits(dev.vectors)
    lexical_scores = views.lexical_scores(dev)
    stack = views.stack
    if tuned and len(dev.texts) >= MIN_ROWS:
        stack = fit_stack(encoder_scores, lexical_scores, learnt_dev.targets, cleaned_dev.weights)
        stack.familiarity = views.stack.familiarity
    logits = stack.combine(encoder_scores, lexical_scores)
    temperature = calibrate(logits, dev.targets, dev.weights)
    held_out = (encoder_scores, lexical_scores, dev) if tuned else (cleaned.encoder, cleaned.lexical, train)
    fast = _fast_tier(*held_out, stack)
    probabilities = _tiered(logits / temperature, lexical_scores, fast)
    out_of_fold = _tiered(stack.combine(cleaned.encoder, cleaned.lexical) / temperature, cleaned.lexical, fast)
    # The dev rows were only needed to decide: the final views are fitted on all rows.
    final = fit_views(cleaned.rows + cleaned_dev, stack, lexical=fast is not None or bool(stack.lexical))
    return Fitted(
        network if tuned else data.network(final.head),
        final.lexical,
        stack,
        temperature,
        fast,
        None,
        _answers(data.task, probabilities),
        [] if tuned else _answers(data.task, out_of_fold),
        {
            "doubtful_labels": round(implausible, 4),
            "epochs": len(tuned),
            "dev_accuracy": _accuracy(logits, dev),
            "encoder_dev_accuracy": _accuracy(encoder_scores, dev),
            "lexical_dev_accuracy": _accuracy(lexical_scores, dev),
        },
    )


def fit_label_sets(data: TrainingRows, epochs: int | None, on_progress: ProgressCallback) -> Fitted:
    """Fit both views and their stack to rows with any number of labels. There is no fine-tuning."""
    if epochs:
        on_progress(Progress(STEP, "with several labels, the encoder is not fine-tuned"))
    cleaned, dev = clean_label_sets(data.train), data.dev
    implausible = float((cleaned.plausibility < IMPLAUSIBLE).any(1).mean())
    on_progress(
        Progress(STEP, f"{implausible:.1%} of the training rows have a label that is probably wrong or missing")
    )
    multi = choose_thresholds(expit(cleaned.stack.combine(cleaned.encoder, cleaned.lexical)), data.train.targets)
    views = fit_label_views(data.train, cleaned.targets, cleaned.weights, cleaned.stack)
    probabilities = expit(views.logits(dev))
    chosen = multi.decide(probabilities)
    has = dev.targets >= 0.5
    exact = float((chosen == has).all(1).mean())
    f1 = float(2 * (chosen & has).sum() / max(1, chosen.sum() + has.sum()))
    on_progress(Progress(STEP, f"dev: all labels right {exact:.3f}, micro F1 {f1:.3f}"))
    dev_targets, dev_weights, _ = soften_label_sets(dev, probabilities)
    final = fit_label_views(
        data.train + dev,
        np.concatenate([cleaned.targets, dev_targets]),
        np.concatenate([cleaned.weights, dev_weights]),
        cleaned.stack,
    )
    names = np.array(data.task.names)
    sure = multi.confidence(probabilities, chosen)
    return Fitted(
        data.network(final.head),
        final.lexical,
        cleaned.stack,
        1.0,
        None,
        multi,
        [(join_labels(names[row]), float(confidence)) for row, confidence in zip(chosen, sure, strict=True)],
        [],
        {
            "doubtful_labels": round(implausible, 4),
            "epochs": 0,
            "dev_accuracy": round(exact, 4),
            "dev_micro_f1": round(f1, 4),
        },
    )


def _least_familiarity(train: Rows) -> float:
    """The familiarity below which the lexical view is not asked; 0 where there are too few rows to tell."""
    if train.ngrams is None or len(train.texts) < MIN_ROWS:
        return 0.0
    return round(float(np.quantile(held_out_familiarity(train.ngrams), UNFAMILIAR)), 4)


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


def _answers(task: Task, probabilities: NDArray[np.float64]) -> list[tuple[str, float]]:
    """The most probable label of each row, and its probability."""
    return [(task.names[int(row.argmax())], float(row.max())) for row in probabilities]


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
