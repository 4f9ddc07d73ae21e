"""The state of generation, read from the store: what was planned, written, kept and confirmed, round by round."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from fingerpost.core.languages import LANGUAGES
from fingerpost.core.text import question_id, shorten
from fingerpost.core.types import Conversation, Message, Question, Verdict
from fingerpost.core.verdicts import QuestionVerdicts
from fingerpost.data.splits import NewQuestion, assign_in_store
from fingerpost.generation.brief import Brief, Item, meaning
from fingerpost.generation.filters import KEPT, Gate, fault, main_language
from fingerpost.generation.plan import Error, Known, plan_errors, plan_round
from fingerpost.generation.prompts import read_beyond, read_written, surplus
from fingerpost.generation.quality import Curve, Gap, learning_curve, synthetic_gap
from fingerpost.generation.requests import BEYOND
from fingerpost.store.project import Draft, Store
from fingerpost.task.settings import Task

if TYPE_CHECKING:
    from fingerpost.consensus.model import Array

STEP, SOURCE, WRITER = "generate", "synthetic", "writer"

ROUND = 120  # questions; more where that is less than LABEL_ROUND for each label

LABEL_ROUND = 5

VAIN = 3  # questions about a subject, none of them trusted

SAMPLE_WORDS = 40  # longer messages of users are no samples

Embed = Callable[[Sequence[Question]], "Array"]


@dataclass(slots=True)
class Round:
    """One round: questions asked for, what became of the texts (`fates`), and how the kept ones were answered blind.

    `gap` and `curve` are over all questions up to this round.
    """

    number: int
    asked: int = 0
    fates: Counter[str] = field(default_factory=Counter)
    confirmed: int = 0
    border: int = 0
    unanswered: int = 0
    gap: Gap | None = None
    curve: Curve | None = None

    @property
    def kept(self) -> int:
        return self.fates[KEPT]


def trusted(task: Task, store: Store) -> set[str]:
    """The ids of written questions that can be learnt from: the teacher, asked blind, or a person has confirmed them."""
    name, found = task.teacher.model if task.teacher else None, set()
    for key, verdicts in store.verdicts().items():
        counted = QuestionVerdicts(verdicts, task.names, name)
        if any(each.kind == WRITER for each in counted.valid) and counted.label():
            found.add(key)
    return found


class Desk:
    """What is planned, written, kept and labelled, as the store has it."""

    def __init__(self, task: Task, store: Store, embed: Embed, mark: str, teacher: str, writers: Sequence[str]) -> None:
        self._task, self._store, self._embed, self._mark = task, store, embed, mark
        self._writers, self._teacher = writers, teacher
        self._measured: dict[int, tuple[Gap | None, Curve | None]] = {}

    def drafts(self) -> list[Draft]:
        """All drafts; those of another task or writer that were never handed in are forgotten."""
        found, out = self._store.drafts(), self._handed_in()
        stale = {
            each.id
            for each in found
            if not each.answered and each.id not in out and (each.task != self._mark or each.model not in self._writers)
        }
        if stale:
            self._store.drop_drafts(stale)
        return [each for each in found if each.id not in stale]

    def open_drafts(self, writer: str) -> list[Draft]:
        """Those that this writer is still to be asked for, less what lies in a batch."""
        out = self._handed_in()
        return [each for each in self.drafts() if each.model == writer and not each.answered and each.id not in out]

    def _handed_in(self) -> set[int]:
        return {key[0] for key in self._store.batch_keys(STEP)}

    def written(self) -> set[str]:
        """The ids of all questions that were written here."""
        return set(self._meant())

    def tally(self, errors: Sequence[Error]) -> tuple[int, int]:
        """How many questions were asked for and how many are trusted; with errors, of those that are like these."""
        like = {each.text for each in errors}
        mine = {
            (draft.id, number)
            for draft in self.drafts()
            for number, item in enumerate(Brief.of_json(draft.brief).items)
            if not errors or (item.kind == "error" and item.about in like)
        }
        meant = self._meant()
        good = [meant[key] for key in trusted(self._task, self._store)]
        return len(mine), sum((each.draft, each.item) in mine for each in good)

    def judge(self) -> None:
        """Sift what was answered since the last time, in one transaction."""
        new = [each for each in self._store.drafts() if each.answered and each.outcomes is None]
        if not new:
            return
        stored = self._store.questions()
        gate = Gate(stored, self._embed)
        fates: dict[int, Counter[str]] = {each.id: Counter() for each in new}
        candidates: list[tuple[Draft, int, Item, Conversation]] = []
        names, usual = set(self._task.names), self._language()
        for draft in new:
            brief = Brief.of_json(draft.brief)
            if brief.form == BEYOND:
                continue
            found = read_written(brief, draft.raw)
            fates[draft.id].update({"no reply": len(brief.items) - len(found), "surplus": surplus(brief, draft.raw)})
            language = next((code for code, name in LANGUAGES.items() if name == brief.language), usual)
            for number, messages in found.items():
                item = brief.items[number]
                wrong = "no label" if item.label not in names else fault(self._task, item, messages, language)
                if wrong:
                    fates[draft.id][wrong] += 1
                else:
                    candidates.append((draft, number, item, messages))
        kept: dict[str, NewQuestion] = {}
        meant: list[Verdict] = []
        for (draft, number, item, messages), fate in zip(
            candidates, gate.new([messages for *_, messages in candidates]), strict=True
        ):
            fates[draft.id][fate] += 1
            if fate == KEPT:
                key = question_id(messages)
                kept[key] = NewQuestion(key, messages, SOURCE, None)
                meant.append(Verdict(key, "writer", draft.model, item.label, STEP, draft=draft.id, item=number))
        placed, sketches = assign_in_store(self._store, list(kept.values()), self._task.split)
        self._store.finish_drafts({key: dict(+counts) for key, counts in fates.items()}, placed, meant, sketches)

    def rounds(self) -> list[Round]:
        """What came of each round so far."""
        meant, blind = self._meant(), self._blind()
        found: dict[int, Round] = {}
        round_of: dict[int, int] = {}
        for draft in self._store.drafts():
            brief = Brief.of_json(draft.brief)
            if draft.round == 0 or draft.outcomes is None or brief.form == BEYOND:
                continue
            mine = found.setdefault(draft.round, Round(draft.round))
            mine.asked += len(brief.items)
            mine.fates.update(draft.outcomes)
            round_of[draft.id] = draft.round
        upto: dict[str, int] = {}
        for key, verdict in meant.items():
            number = round_of.get(verdict.draft or 0)
            if number is None:
                continue
            upto[key] = number
            said = blind.get(key)
            found[number].confirmed += said == verdict.label
            found[number].border += said is not None and said != verdict.label
            found[number].unanswered += said is None
        rounds = [found[number] for number in sorted(found)]
        self._measure(rounds, upto, meant, blind)
        return rounds

    def plan(self, lacking: int, errors: Sequence[Error], seed: int) -> None:
        """Note the briefs of the next round, for so many questions; before the first, those that ask for material."""
        drafts = self.drafts()
        mine = [(each, Brief.of_json(each.brief)) for each in drafts]
        if self._task.fallback and not errors and not any(brief.form == BEYOND for _, brief in mine):
            briefs, number = [Brief(BEYOND, ()) for _ in self._writers], 0
        else:
            number = 1 + max((each.round for each in drafts), default=0)
            asked, good = self.tally(errors)
            rate = max(0.2, good / asked) if asked else 1.0
            count = min(math.ceil(lacking / rate), max(ROUND, LABEL_ROUND * len(self._task.labels)))
            known = self._known(mine)
            briefs = (
                plan_errors(self._task, errors, known, count, f"{seed}/{number}")
                if errors
                else plan_round(self._task, known, count, f"{seed}/{number}")
            )
            if self._task.fallback and not errors:
                briefs = [*briefs, Brief(BEYOND, ())]  # for the round after it
        # Alike in form, they stand together: so the prompt cache stays warm.
        self._store.plan_drafts(
            Draft(0, number, brief.as_json(), self._mark, self._writers[i % len(self._writers)])
            for i, brief in enumerate(sorted(briefs, key=lambda each: each.form))
        )

    def _known(self, mine: Sequence[tuple[Draft, Brief]]) -> Known:
        meant, form_of = self._meant(), {draft.id: brief.form for draft, brief in mine}
        good = [meant[key] for key in trusted(self._task, self._store)]
        usable = Counter((form_of.get(each.draft or 0, "messages"), str(each.label)) for each in good)
        asked = Counter((brief.form, item.label) for _, brief in mine for item in brief.items)
        beyond = self._beyond(mine, {(each.draft, each.item) for each in good})
        languages = [LANGUAGES[each] for each in self._task.generate.languages]
        if not languages and self._language() not in ("", "en"):
            languages = [LANGUAGES[self._language()]]
        return Known(
            trusted=usable,
            asked=asked,
            close=self._close(),
            beyond=beyond,
            real=self._real_texts(),
            styles=self._style_weights(mine),
            languages=languages,
        )

    def _beyond(self, mine: Sequence[tuple[Draft, Brief]], good: Container[tuple[int | None, int | None]]) -> list[str]:
        """What the writer says is beyond the labels, less what seems not to be: nothing about it is ever confirmed."""
        vain: Counter[str] = Counter()
        fine: set[str] = set()
        for draft, brief in mine:
            for number, item in enumerate(brief.items):
                if item.kind == "near":
                    vain[item.about] += 1
                    fine |= {item.about} if (draft.id, number) in good else set()
        named = [each for draft, brief in mine if brief.form == BEYOND for each in read_beyond(draft.raw)]
        return [each for each in dict.fromkeys(named) if each in fine or vain[each] < VAIN]

    # --- what is there

    def _meant(self) -> dict[str, Verdict]:
        """By question, the writer's verdict."""
        found = {}
        for key, verdicts in self._store.verdicts().items():
            for each in verdicts:
                if each.kind == WRITER and each.label in self._task.names:
                    found[key] = each
        return found

    def _blind(self) -> dict[str, str]:
        """By question, the label that the teacher gives it."""
        found = {}
        for key, verdicts in self._store.verdicts().items():
            label = QuestionVerdicts(verdicts, self._task.names, self._teacher).teacher_label
            if label is not None:
                found[key] = label
        return found

    def _real(self) -> list[Question]:
        """Questions of users, none of them of the test side."""
        return [each for each in self._store.questions("train", "dev") if each.source != SOURCE]

    def _real_texts(self) -> list[str]:
        texts = (each.messages[-1].content for each in self._real() if each.split == "train")
        return [shorten(text, 200) for text in texts if 1 < len(text.split()) <= SAMPLE_WORDS]

    def _language(self) -> str:
        """The language that is expected where the task names none: that of its users, else of its descriptions."""
        if self._task.generate.languages:
            return self._task.generate.languages[0] if len(self._task.generate.languages) == 1 else ""
        return main_language(self._real_texts()[:200] or [meaning(each) for each in self._task.labels])

    def _close(self) -> dict[str, list[str]]:
        """Each label's two nearest, by its description's vector."""
        asked = [(Message("user", meaning(each)),) for each in self._task.labels]
        vectors = self._embed([Question(question_id(each), each, "", "", "train") for each in asked])
        alike = vectors @ vectors.T
        np.fill_diagonal(alike, -1)
        names = self._task.names
        return {name: [names[j] for j in np.argsort(-alike[i])[:2]] for i, name in enumerate(names)}

    def _measure(
        self, rounds: Sequence[Round], upto: dict[str, int], meant: dict[str, Verdict], blind: dict[str, str]
    ) -> None:
        """The gap and the learning curve after each round, over all that was kept until then."""
        written = [each for each in self._store.questions() if each.id in upto and each.split != "test"]
        if not written:
            return
        vectors = self._embed(written)
        real = self._real()
        theirs = self._embed(real) if real else None
        most = None
        for each in rounds:
            if each.number in self._measured:
                each.gap, each.curve = self._measured[each.number]
                most = most or (each.gap.n if each.gap else None)
                continue
            rows = [i for i, question in enumerate(written) if upto[question.id] <= each.number]
            labels = [blind.get(written[i].id) for i in rows]
            if theirs is not None:
                each.gap = synthetic_gap(theirs, vectors[rows], [blind.get(q.id) for q in real], labels, most)
                most = most or (each.gap.n if each.gap else None)
            trusted = [
                i for i, label in zip(rows, labels, strict=True) if label and label == meant[written[i].id].label
            ]
            each.curve = learning_curve(vectors[trusted], [str(blind[written[i].id]) for i in trusted])
            self._measured[each.number] = (each.gap, each.curve)

    def _style_weights(self, mine: Sequence[tuple[Draft, Brief]]) -> dict[str, float]:
        """How much more real than others the questions of each style look to the classifier of the gap."""
        real = self._real()
        blind, meant = self._blind(), self._meant()
        written = [each for each in self._store.questions() if each.id in meant and each.split != "test"]
        if not real or not written:
            return {}
        gap = synthetic_gap(
            self._embed(real),
            self._embed(written),
            [blind.get(each.id) for each in real],
            [blind.get(each.id) for each in written],
        )
        if gap is None:
            return {}
        style_of = {draft.id: brief.style.split(";")[0] for draft, brief in mine}
        seen: dict[str, list[float]] = defaultdict(list)
        for question, real_looking in zip(written, gap.real, strict=True):
            if not np.isnan(real_looking):
                seen[style_of.get(meant[question.id].draft or 0, "")].append(float(real_looking))
        mean = float(np.mean([value for values in seen.values() for value in values]))
        # Towards 1 where few questions speak.
        return {style: (sum(values) + 5 * mean) / (len(values) + 5) / mean for style, values in seen.items()}
