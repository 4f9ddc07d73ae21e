"""The evaluation, and the way from its figures to the questions behind them; the agreement of the reviewers."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from pydantic import ValidationError
from starlette.responses import Response
from starlette.routing import Route

from fingerpost.core.errors import InputError, ModelError
from fingerpost.core.verdicts import QuestionVerdicts, active
from fingerpost.evaluation import formatting
from fingerpost.evaluation.metrics import cohen_kappa
from fingerpost.evaluation.report import sentences
from fingerpost.evaluation.results import Interval, Report
from fingerpost.project import Project
from fingerpost.store.project import Store
from fingerpost.students.folder import read_manifest
from fingerpost.ui.pages import Pages, Visit
from fingerpost.ui.queue import SharedQueue

LISTED = 100
"""Questions on a page."""
CELLS = 40
"""Confusions that are listed."""
CHARTS = (
    ("accuracy", "Accuracy with 95 % intervals"),
    ("cost", "Cost and latency"),
    ("reliability", "Confidence and accuracy"),
    ("coverage", "Accuracy by the share that is answered"),
    ("curve", "Learning curve"),
)
"""The charts of a report, and what they show."""
EMPTY = '<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>'


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two reviewers agree on the questions that both have answered.

    Attributes:
        kappa: Cohen's kappa; None where there are too few questions.
        differing: the questions on which they differ, with what each says.
    """

    one: str
    other: str
    n: int
    agreed: int
    kappa: Interval | None
    differing: tuple[tuple[str, str, str], ...]


class ReportPages:
    """The pages of the report."""

    def __init__(self, pages: Pages, project: Project, store: Store, queue: SharedQueue) -> None:
        self._pages, self._project, self._store, self._queue = pages, project, store, queue

    def routes(self) -> list[Route]:
        """All routes."""
        get = self._pages.get
        return [
            get("/report", self.show),
            get("/report/{chart}.svg", self.chart),
            get("/questions", self.questions),
            get("/questions/{question}", self.question),
            get("/labels/{label:path}", self.label),
        ]

    def show(self, visit: Visit) -> Response:
        """The evaluation, the versions of the student, and the agreement of the reviewers."""
        report = self._report()
        current = report is not None and self._project.report_is_current()
        return self._pages.render(
            visit, "report", report=report, current=current, sentences=sentences, formatting=formatting,
            charts=_charts(report), cells=_confusions(report), versions=self._versions(), agreements=self._agreements(),
        )  # fmt: skip

    def chart(self, visit: Visit) -> Response:
        """A chart of the report, as an image."""
        from fingerpost.evaluation.report.charts import draw  # takes half a second to import

        report = self._report()
        drawn = draw(report) if report is not None else {}
        name = str(visit.request.path_params["chart"])
        if name not in dict(CHARTS) or name not in drawn:
            return Response(EMPTY, media_type="image/svg+xml")
        return Response(drawn[name], media_type="image/svg+xml")

    def questions(self, visit: Visit) -> Response:
        """The test questions in a cell of the confusion matrix: with this label, and this answer of a model."""
        gold, answer, model = (visit.query.get(name, "") for name in ("gold", "answer", "model"))
        report = self._report()
        found = next((one for one in report.models if one.name == model), None) if report is not None else None
        mistakes = [one for one in found.mistakes if one.gold == gold and (one.answer or "") == answer] if found else []
        by_text = {question.messages[-1].content: question.id for question in self._store.questions("test")}
        listed = [(by_text.get(one.text), one.text, one.confidence) for one in mistakes[:LISTED]]
        return self._pages.render(visit, "questions", gold=gold, answer=answer, model=model, listed=listed)

    def question(self, visit: Visit) -> Response:
        """A question with all its verdicts."""
        question = self._queue.question(str(visit.request.path_params["question"]))
        verdicts = self._store.verdicts_of([question.id]).get(question.id, [])
        counting = {id(one) for one in active(verdicts)}
        return self._pages.render(
            visit, "question", question=question, verdicts=[(one, id(one) in counting) for one in reversed(verdicts)],
            label=QuestionVerdicts(verdicts, self._project.task.answers, self._project.task.teacher_model).label(),
        )  # fmt: skip

    def label(self, visit: Visit) -> Response:
        """A label: its description, what it is taken for, and questions with it."""
        name = str(visit.request.path_params["label"])
        label = next((one for one in self._project.task.labels if one.name == name), None)
        if label is None:
            raise InputError(f"there is no label '{name}'")
        report = self._report()
        scores = [
            (model.name, score)
            for model in (report.models if report else [])
            for score in model.labels
            if score.label == name
        ]
        cells = [cell for cell in _confusions(report) if name in (cell["gold"], cell["answer"])]
        return self._pages.render(visit, "label", label=label, scores=scores, cells=cells, formatting=formatting)

    # --- internals

    def _report(self) -> Report | None:
        """The stored report, if there is one."""
        try:
            return Report.model_validate_json((self._project.reports / "report.json").read_bytes())
        except (OSError, ValidationError, json.JSONDecodeError):
            return None

    def _versions(self) -> list[dict[str, Any]]:
        """The students in the project's folder, the newest first."""
        found = []
        for folder in self._project.students():
            try:
                manifest = read_manifest(folder)
            except ModelError:
                continue
            found.append({
                "name": folder.name, "created": manifest.created, "rows": manifest.training.get("train_rows"),
                "accuracy": manifest.training.get("dev_accuracy"), "changed": manifest.training.get("changed_labels"),
                "human": manifest.labels_from.get("human", 0),
            })  # fmt: skip
        return sorted(found, key=lambda one: str(one["created"]), reverse=True)

    def _agreements(self) -> list[Agreement]:
        """The agreement of each two reviewers that have answered the same questions."""
        given: dict[str, dict[str, str]] = {}
        for key, verdicts in self._store.verdicts_of(self._store.answered_by_several()).items():
            human = QuestionVerdicts(verdicts, self._project.task.answers).human
            if len(human) > 1:
                given[key] = {one.by: one.label if one.label is not None else "no label fits" for one in human}
        pairs = Counter(pair for said in given.values() for pair in combinations(sorted(said), 2))
        found = []
        for (one, other), n in pairs.most_common(10):
            both = [(key, said[one], said[other]) for key, said in given.items() if one in said and other in said]
            differing = tuple(entry for entry in both if entry[1] != entry[2])
            names = sorted({label for _, first, second in both for label in (first, second)})
            index = {name: i for i, name in enumerate(names)}
            first, second = (np.array([index[entry[i]] for entry in both]) for i in (1, 2))
            kappa = cohen_kappa(first, second, len(names)) if n > 1 and len(names) > 1 else None
            found.append(Agreement(one, other, n, n - len(differing), kappa, differing[:LISTED]))
        return found


def _charts(report: Report | None) -> list[tuple[str, str]]:
    """The charts that a report has data for."""
    if report is None:
        return []
    has = {
        "accuracy": bool(report.accuracy), "cost": True, "curve": bool(report.learning_curve),
        "reliability": any(model.reliability for model in report.models),
        "coverage": any(model.coverage for model in report.models),
    }  # fmt: skip
    return [(name, about) for name, about in CHARTS if has[name]]


def _confusions(report: Report | None) -> list[dict[str, Any]]:
    """The confusions of the first student, the most frequent first."""
    student = report.student if report is not None else None
    if report is None or student is None or not student.confusion:
        return []
    cells: list[dict[str, Any]] = []
    for row, gold in enumerate(report.labels):
        for column, count in enumerate(student.confusion[row]):
            answer = report.labels[column] if column < len(report.labels) else ""
            if count and answer != gold:
                cells.append({"gold": gold, "answer": answer, "count": count, "model": student.name})
    return sorted(cells, key=lambda cell: -cell["count"])[:CELLS]
