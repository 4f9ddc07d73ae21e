"""Results of each round: outcomes of the texts, the teacher's answers, synthetic gap and learning curve."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from fingerpost.core.types import Question
from fingerpost.generation.brief import OUT_OF_SCOPE
from fingerpost.generation.filters import KEPT
from fingerpost.generation.quality import LearningCurve, SyntheticGap, learning_curve, synthetic_gap
from fingerpost.generation.state import GenerationState

if TYPE_CHECKING:
    from numpy.typing import NDArray

Embed: TypeAlias = "Callable[[Sequence[Question]], NDArray[np.float32]]"
"""Unit vectors of questions, shape (questions, width)."""

PRIOR_COUNT = 5  # weight of the mean in a style's weight: styles with few questions get weights near 1


@dataclass(slots=True)
class Round:
    """The results of one round.

    Attributes:
        asked: number of questions requested.
        outcomes: number of texts by outcome, KEPT or a key of REJECTIONS.
        confirmed: kept questions whose teacher label is the intended one.
        border: kept questions whose teacher label is another one.
        unanswered: kept questions that have no teacher label.
        gap, curve: measured over all questions up to this round; None if there are too few.
    """

    number: int
    asked: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    confirmed: int = 0
    border: int = 0
    unanswered: int = 0
    gap: SyntheticGap | None = None
    curve: LearningCurve | None = None

    @property
    def kept(self) -> int:
        """Number of questions that passed all filters."""
        return self.outcomes[KEPT]

    def summary(self) -> str:
        """The results on one line."""
        parts = [f"round {self.number}: {self.asked} requested, {self.kept} kept"]
        if self.kept:
            parts.append(f"{self.confirmed} confirmed by the teacher, {self.border} border cases")
        if self.gap:
            parts.append(f"synthetic gap {self.gap.value:.2f} (n = {self.gap.n} of each kind, p = {self.gap.p:.2g})")
        if self.curve:
            parts.append(f"learning curve {self.curve.half:.2f} to {self.curve.full:.2f}")
        return "; ".join(parts)


class RoundMeasurer:
    """Measures rounds. What was measured of a round is kept, so that later rounds do not measure it again."""

    def __init__(self, embed: Embed) -> None:
        self._embed = embed
        self._measured: dict[int, tuple[SyntheticGap | None, LearningCurve | None]] = {}

    def rounds(self, state: GenerationState) -> list[Round]:
        """The results of all judged rounds, oldest first."""
        rounds: dict[int, Round] = {}
        round_of_draft: dict[int, int] = {}
        for draft in state.drafts:
            brief = state.briefs[draft.id]
            if draft.round == 0 or draft.outcomes is None or brief.form == OUT_OF_SCOPE:
                continue
            result = rounds.setdefault(draft.round, Round(draft.round))
            result.asked += len(brief.items)
            result.outcomes.update(draft.outcomes)
            round_of_draft[draft.id] = draft.round
        round_of_question: dict[str, int] = {}
        for key, verdict in state.intended.items():
            number = round_of_draft.get(verdict.draft or 0)
            if number is None:
                continue
            round_of_question[key] = number
            label = state.teacher_labels.get(key)
            rounds[number].confirmed += label == verdict.label
            rounds[number].border += label is not None and label != verdict.label
            rounds[number].unanswered += label is None
        ordered = [rounds[number] for number in sorted(rounds)]
        self._measure(state, ordered, round_of_question)
        return ordered

    def _measure(self, state: GenerationState, rounds: Sequence[Round], round_of_question: Mapping[str, int]) -> None:
        """Set the gap and the curve of each round, over all questions kept until then."""
        written = _trainable(state, round_of_question)
        if not written:
            return
        vectors = self._embed(written)
        real_vectors = self._embed(state.user_questions) if state.user_questions else None
        real_labels = [state.teacher_labels.get(question.id) for question in state.user_questions]
        max_count = None  # the first measured gap's count, so that all gaps are comparable
        for result in rounds:
            if result.number in self._measured:
                result.gap, result.curve = self._measured[result.number]
            else:
                rows = [row for row, question in enumerate(written) if round_of_question[question.id] <= result.number]
                labels = [state.teacher_labels.get(written[row].id) for row in rows]
                if real_vectors is not None:
                    result.gap = synthetic_gap(real_vectors, vectors[rows], real_labels, labels, max_count)
                confirmed = [
                    (row, label)
                    for row, label in zip(rows, labels, strict=True)
                    if label and label == state.intended[written[row].id].label
                ]
                result.curve = learning_curve(vectors[[row for row, _ in confirmed]], [label for _, label in confirmed])
                self._measured[result.number] = (result.gap, result.curve)
            max_count = max_count or (result.gap.n if result.gap else None)


def style_weights(state: GenerationState, embed: Embed) -> dict[str, float]:
    """How much more real than average the questions of each style look to the classifier of the synthetic gap.

    Empty if the gap cannot be measured. By the style's instruction; 1 is average.
    """
    written = _trainable(state, state.intended)
    if not state.user_questions or not written:
        return {}
    gap = synthetic_gap(
        embed(state.user_questions),
        embed(written),
        [state.teacher_labels.get(question.id) for question in state.user_questions],
        [state.teacher_labels.get(question.id) for question in written],
    )
    if gap is None:
        return {}
    style_of_draft = {draft: brief.style.split(";")[0] for draft, brief in state.briefs.items()}
    by_style: dict[str, list[float]] = defaultdict(list)
    for question, probability in zip(written, gap.real_probability, strict=True):
        if not np.isnan(probability):
            by_style[style_of_draft.get(state.intended[question.id].draft or 0, "")].append(float(probability))
    mean = float(np.mean([probability for found in by_style.values() for probability in found]))
    return {
        style: (sum(found) + PRIOR_COUNT * mean) / (len(found) + PRIOR_COUNT) / mean
        for style, found in by_style.items()
    }


def _trainable(state: GenerationState, ids: Mapping[str, object]) -> list[Question]:
    """The questions with these ids that are not in the test split."""
    return [question for question in state.questions if question.id in ids and question.split != "test"]
