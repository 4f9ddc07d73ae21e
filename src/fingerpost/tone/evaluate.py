"""How close is the tuned model's voice to the author's? Everything is measured on texts that it was not trained on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fingerpost.core.errors import InputError
from fingerpost.core.types import Message, Progress, ProgressCallback, no_progress
from fingerpost.data.dialogues import Dialogue, Turn
from fingerpost.evaluation.metrics import proportion
from fingerpost.evaluation.results import Interval
from fingerpost.task.prompt import chat
from fingerpost.tone.requests import Pair, longest_shared_run

LEAST_TESTS = 10
FOLDS = 5
NEAR_COPY = 12
"""A written text that shares so many words in a row with a training text is a near-copy."""
ROOM = 1.5
"""Tokens of a written text, relative to the author's text on the same request."""


@dataclass(frozen=True, slots=True)
class Written:
    """What the author, the prompted base model and the tuned model wrote on one request."""

    request: str
    author: str
    prompted: str
    tuned: str


@dataclass(frozen=True, slots=True)
class ToneReport:
    """The measurement of a tone.

    Attributes:
        tests: texts that both models wrote to.
        base_loss, tuned_loss: mean loss on the author's texts, in nats per token; lower means that they are more likely.
        base_detection, tuned_detection: accuracy of a classifier that tells the author's texts from those of the prompted base model, and
            of the tuned one; 0.5 is guessing.
        copies: written texts that are near-copies of a training text, with the words that they share.
        general_before, general_after: loss on the base model's own general answers; a large rise means that it has unlearnt them.
        samples: the texts themselves.
    """

    tests: int
    base_loss: float
    tuned_loss: float
    base_detection: Interval
    tuned_detection: Interval
    copies: list[tuple[str, int]]
    general_before: float | None
    general_after: float | None
    samples: list[Written]

    def save(self, file: Path) -> None:
        """Write the report as JSON."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(asdict(self), ensure_ascii=False, indent=2, default=str) + "\n", encoding="utf-8")


def measure(
    base: Any,
    tuned: Any,
    instructions: str,
    tests: Sequence[Pair],
    trained: Sequence[Pair],
    general: Sequence[Dialogue] = (),
    *,
    max_samples: int = 60,
    seed: int = 0,
    on_progress: ProgressCallback = no_progress,
) -> ToneReport:
    """Have both models write on the test requests, and compare the results with the author's texts.

    Args:
        base, tuned: generative students; `base` is untuned, and gets the same system prompt.
        general: general answers of the base model that were not trained on.
        max_samples: at most so many texts are written.

    Raises:
        InputError: there are fewer than LEAST_TESTS test texts.
    """
    if len(tests) < LEAST_TESTS:
        raise InputError(
            f"{len(tests)} texts with a request are kept for measuring, at least {LEAST_TESTS} are needed; add texts, or raise "
            "'test_share' in task.toml"
        )
    from fingerpost.students.lora.engine import fastest_writer

    chosen = list(tests)[:max_samples]
    writers = fastest_writer(base), fastest_writer(tuned)
    samples = []
    for number, pair in enumerate(chosen, 1):
        room = max(40, round(ROOM * tuned.count_tokens(pair.text.content)))
        wrote = [write(model, instructions, pair.request, room, seed + number) for model in writers]
        samples.append(Written(pair.request, pair.text.content, *wrote))
        on_progress(Progress("evaluate", done=number, total=len(chosen), detail="texts written by both models"))
    held = [dialogue_of(instructions, pair) for pair in tests]
    authors = [sample.author for sample in samples]
    copies = [
        (sample.tuned, shared)
        for sample in samples
        if (shared := max(longest_shared_run(sample.tuned, pair.text.content) for pair in trained)) >= NEAR_COPY
    ]
    return ToneReport(
        len(chosen), base.loss(held), tuned.loss(held),
        detection_accuracy(authors, [sample.prompted for sample in samples], seed),
        detection_accuracy(authors, [sample.tuned for sample in samples], seed),
        copies,
        base.loss(general) if general else None, tuned.loss(general) if general else None,
        samples,
    )  # fmt: skip


def dialogue_of(instructions: str, pair: Pair) -> Dialogue:
    """A pair as a conversation to learn from."""
    turns = (Turn("system", instructions), Turn("user", pair.request), Turn("assistant", pair.text.content, 1.0))
    return Dialogue(turns)


def write(student: Any, instructions: str, request: str, tokens: int, seed: int) -> str:
    """A text of a model on a request, sampled."""
    from fingerpost.students.lora.generation import Sampling

    messages = chat(instructions, (Message("user", request),))
    sampling = Sampling(temperature=0.8, top_p=0.95, max_tokens=tokens, seed=seed)
    return "".join(piece.text for piece in student.reply(messages, sampling)).strip()


def detection_accuracy(real: Sequence[str], written: Sequence[str], seed: int = 0) -> Interval:
    """The accuracy of a style classifier at telling real from written texts, with a 95 % interval (Wilson).

    The classifier is a logistic regression on character and word n-grams. Its accuracy is out of sample: cross-validation, in which
    the two texts on one request are in the same fold. All texts are cut to the length of the shorter one of a pair, so that length
    does not tell.

    Args:
        real, written: texts on the same requests, in the same order.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold
    from sklearn.pipeline import make_pipeline, make_union

    texts, sides, groups = [], [], []
    for number, (one, other) in enumerate(zip(real, written, strict=True)):
        words = max(1, min(len(one.split()), len(other.split())))
        for side, text in enumerate((one, other)):
            texts.append(" ".join(text.split()[:words]))
            sides.append(side)
            groups.append(number)
    answers = np.zeros(len(texts), dtype=int)
    folds = GroupKFold(min(FOLDS, len(real)), shuffle=True, random_state=seed)
    for train, held in folds.split(texts, sides, groups):
        model = make_pipeline(
            make_union(
                TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, max_features=50_000),
                TfidfVectorizer(
                    ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]", max_features=50_000
                ),
            ),
            LogisticRegression(C=10, max_iter=1_000),
        )
        model.fit([texts[i] for i in train], [sides[i] for i in train])
        answers[held] = model.predict([texts[i] for i in held])
    return proportion(answers == np.array(sides))
