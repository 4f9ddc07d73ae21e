"""A project folder, and every step on it as a method that returns its result and prints nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fingerpost.core.errors import InputError, TaskError
from fingerpost.core.text import encoder_input, fingerprint
from fingerpost.core.types import Progress, ProgressCallback, no_progress
from fingerpost.core.utils import chunks, require_training
from fingerpost.core.verdicts import LabelsFrom
from fingerpost.data.importer import ImportResult, import_file, import_log
from fingerpost.data.rows import Columns
from fingerpost.labelling.label import LabelPlan, label, plan_labels, plan_of
from fingerpost.labelling.position_bias import PositionBias, position_bias
from fingerpost.labelling.requests import EVERYTHING, STEP, LabelSelection, jobs_with_shots, open_jobs, order_count
from fingerpost.llm.requests import RunProgress, teacher_endpoint, teacher_of
from fingerpost.project.next_steps import ProjectState, next_steps
from fingerpost.store.project import STREAMED, Store
from fingerpost.store.server import DATABASE, ServerStore
from fingerpost.students import load
from fingerpost.students.folder import MANIFEST, matches_task, read_manifest
from fingerpost.task.loader import TASK_FILE, load_task
from fingerpost.task.settings import StudentSettings, Task
from fingerpost.training.export import Exported, export

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fingerpost.consensus.review import ReviewQueue
    from fingerpost.consensus.session import UniformSample
    from fingerpost.core.types import Prediction, Predictor, Question
    from fingerpost.evaluation.results import Report
    from fingerpost.evaluation.thresholds import CascadeTarget
    from fingerpost.generation.generate import Generated
    from fingerpost.store.ledger import Account, StepCost
    from fingerpost.training.train import Trained

LARGE = 20_000
"""Questions from which on the next step is not looked for after every command, because that reads all of them."""
REVIEW_FIRST = "review_first.json"
"""The ids of the questions that the review queue begins with."""
MOST_FIRST = 1_000
STUDENT, BASE, UNREVIEWED = "student", "base", "without-reviews"


@dataclass(frozen=True, slots=True)
class Status:
    """What a project has, and what is next.

    Attributes:
        questions: number of questions by source, then by split.
        verdicts: (kind, author, questions, verdicts, verdicts without a label) of each author.
        unanswered: requests that the teacher has not answered.
        student: the student's folder, if it was trained on the present labels.
        report: the report, if it measures the present state.
        next_steps: commands to run next, the best one first.
    """

    task: Task
    questions: dict[str, dict[str, int]]
    verdicts: list[tuple[str, str, int, int, int]]
    account: Account
    unanswered: int
    student: Path | None
    report: Path | None
    next_steps: tuple[str, ...]


class Project:
    """A project folder: task.toml, the database `fingerpost.db`, `models`, `reports` and a cache of embeddings.

    Args:
        folder: holds task.toml, which is read and checked here.

    Attributes:
        on_progress: receives the progress of embedding texts, in whichever step they are needed.

    Raises:
        TaskError: task.toml is missing or wrong.
    """

    def __init__(self, folder: str | Path = ".") -> None:
        self.folder = Path(folder)
        self.task: Task = load_task(self.folder / TASK_FILE)
        self.models = self.folder / "models"
        self.reports = self.folder / "reports"
        self.on_progress: ProgressCallback = no_progress
        self._encoder: tuple[str, str | None] | None = None
        self._max_tokens: dict[str, int] = {}

    def store(self) -> Store:
        """The project's database, created on first use. Close it, or use it in a `with`."""
        return Store(self.folder / DATABASE)

    def embed(self, questions: Sequence[Question], settings: StudentSettings | None = None) -> NDArray[np.float32]:
        """Unit vectors of questions, shape (questions, width); kept in the folder `cache`."""
        require_training("comparing texts")
        from fingerpost.students.encoder.vectors import vectors_of

        found = self._resolved(settings or self.task.student)
        return vectors_of(questions, found, self.folder / "cache", self.on_progress)

    def embed_for_consensus(
        self, questions: Sequence[Question], settings: StudentSettings | None = None
    ) -> NDArray[np.float32]:
        """As `embed`, by the consensus encoder, if the settings name one."""
        named = (settings or self.task.student).consensus_encoder
        if named is not None:
            settings = (settings or self.task.student).model_copy(update={"encoder": named})
        return self.embed(questions) if settings is None else self.embed(questions, settings)

    def _resolved(self, settings: StudentSettings) -> StudentSettings:
        """The settings with the encoder that `auto` stands for in this project, and the tokens that it reads at once.

        Both are chosen once, by all questions (without any, by the labels' descriptions), so that all vectors that this
        object computes are comparable.
        """
        from fingerpost.students.encoder.network import MAX_TOKENS, Encoder, are_short
        from fingerpost.students.encoder.source import AUTO, choose_encoder

        if settings.encoder == AUTO:
            self._encoder = self._encoder or choose_encoder(AUTO, self._texts(settings.history))
            settings = settings.model_copy(update={"encoder": self._encoder[0]})
        if settings.max_tokens is None:
            if settings.encoder not in self._max_tokens:
                texts = self._texts(settings.history)
                length = MAX_TOKENS if are_short(texts) else Encoder(settings.encoder).covering(texts)
                self._max_tokens[settings.encoder] = length
            settings = settings.model_copy(update={"max_tokens": self._max_tokens[settings.encoder]})
        return settings

    def _texts(self, history: int) -> list[str]:
        """What the encoder reads of all questions; without any, the labels' descriptions."""
        with self.store() as store:
            texts = [encoder_input(question.messages, history) for question in store.questions()]
        return texts or [label.description or label.name for label in self.task.labels]

    def import_file(
        self, path: str | Path, columns: Columns = Columns(), on_progress: ProgressCallback = no_progress
    ) -> ImportResult:
        """Import a file of questions; what was imported before stays as it is.

        Raises:
            InputError: the file or a named column cannot be used. Rows that cannot be used are listed in the result.
        """
        with self.store() as store:
            return import_file(store, self.task, Path(path), columns, on_progress)

    def import_log(self, served: str | Path, source: str = "served", limit: int | None = None) -> ImportResult:
        """Import what a server was asked, the least confident first; `limit` caps the number of new questions.

        Raises:
            InputError: `served` is not the folder of a server.
        """
        database = Path(served) / DATABASE
        if not database.is_file():
            raise InputError(f"{served} is not the folder of a server; name the one given to 'fingerpost serve --data'")
        log = ServerStore(database)
        try:
            with self.store() as store:
                return import_log(store, self.task, log.log_entries(), source, limit)
        finally:
            log.close()

    def generate(self, **options: Any) -> Generated:
        """Have the teacher write questions; options as of `fingerpost.generation.generate.generate`."""
        require_training("generating questions")
        from fingerpost.generation.generate import generate

        with self.store() as store, store.exclusive("generate"):
            return generate(self.task, store, self.folder, self.embed, **options)

    def ask_second_teacher(self) -> None:
        """From now on, this object labels with the second teacher.

        Raises:
            TaskError: the task has no second teacher.
        """
        if self.task.second_teacher is None:
            raise TaskError(f"{self.folder / TASK_FILE} has no second teacher; add a table [second_teacher]")
        self.task = self.task.model_copy(update={"teacher": self.task.second_teacher})

    def ask_teacher(self, text: str, *, budget_usd: float | None = None) -> Prediction:
        """The teacher's answer to one message, as a trial. It costs money, which is recorded; the answer is not stored.

        Raises:
            TaskError: the task has no teacher.
            TeacherError: the teacher cannot be asked.
            BudgetError: the request could exceed the budget.
        """
        from fingerpost.labelling.teacher import LiveTeacher  # the client takes half a second to import

        with self.store() as store, teacher_endpoint(teacher_of(self.task), self.folder) as reachable:
            task = self.task.model_copy(update={"teacher": reachable})
            return LiveTeacher(task, self.folder, store.ledger, budget_usd).predict(text)

    def plan_labels(self, selection: LabelSelection = EVERYTHING, *, batch: bool = False) -> LabelPlan:
        """The requests that the teacher is still to be asked, with their estimated and their maximal cost.

        Raises:
            TaskError: the task has no teacher, or fewer label orders than votes.
            TeacherError: the model's price is not known.
        """
        with self.store() as store:
            return plan_labels(self.task, store, selection, batch=batch)

    def plan_doubtful(self, limit: int = 100, *, batch: bool = False) -> LabelPlan:
        """The requests that ask the teacher again about the most doubtful questions, with reviewed ones as examples.

        Args:
            limit: number of questions at most.

        Raises:
            MissingExtra: the extra `train` is not installed.
            InputError: too few questions were reviewed.
            TaskError: the task has no teacher.
            TeacherError: the model's price is not known.
        """
        require_training("finding doubtful labels")
        from fingerpost.consensus.doubtful import doubtful_questions

        with self.store() as store:
            found = doubtful_questions(self.task, store, self.embed_for_consensus, limit)
            return plan_of(self.task, store, jobs_with_shots(self.task, store, found), batch=batch)

    def label(
        self,
        plan: LabelPlan,
        *,
        budget_usd: float | None = None,
        record: Path | None = None,
        batch: bool = False,
        on_progress: ProgressCallback = no_progress,
    ) -> RunProgress:
        """Ask the teacher what was planned; see `fingerpost.labelling.label.label`."""
        with self.store() as store:
            return label(
                self.task, store, plan, self.folder,
                budget_usd=budget_usd, record=record, batch=batch, on_progress=on_progress,
            )  # fmt: skip

    def position_bias(self) -> PositionBias:
        """How the teacher's answers depend on the order of the labels in its prompt."""
        name = teacher_of(self.task).model
        with self.store() as store:
            answered = (
                [verdict for verdict in verdicts if verdict.kind == "teacher" and verdict.by == name]
                for part in chunks(store.question_ids(), STREAMED)
                for verdicts in store.verdicts_of(part).values()
            )
            return position_bias(self.task, order_count(self.task), answered)

    def ask_first(self, ids: Sequence[str]) -> None:
        """From now on, the review queue begins with these questions, and with those that were named before."""
        named = list(dict.fromkeys([*ids, *sorted(self._asked_first())]))[:MOST_FIRST]
        (self.folder / REVIEW_FIRST).write_text(json.dumps(named), encoding="ascii")

    def _asked_first(self) -> frozenset[str]:
        try:
            return frozenset(json.loads((self.folder / REVIEW_FIRST).read_text(encoding="ascii")))
        except (OSError, ValueError):
            return frozenset()

    def review(self, store: Store, by: str) -> ReviewQueue:
        """A session over the review queue. `store` stays open for as long as the session is used.

        Args:
            by: the reviewer's name.
        """
        require_training("reviewing")
        from fingerpost.consensus.review import ReviewQueue

        return ReviewQueue(self.task, store, by, self.embed_for_consensus, self._asked_first())

    def test_sample(self, store: Store, by: str, size: int) -> UniformSample:
        """A session over a uniform sample of the test questions, to measure with."""
        from fingerpost.consensus.session import UniformSample

        return UniformSample(self.task, store, by, size)

    def export(self, train_file: str | Path, validation_file: str | Path, **options: Any) -> Exported:
        """Write chat JSONL for fine-tuning; options as of `fingerpost.training.export.export`."""
        with self.store() as store:
            return export(self.task, store, Path(train_file), Path(validation_file), **options)

    def train(
        self,
        labels: LabelsFrom = "consensus",
        *,
        folder: str | Path | None = None,
        compare: bool = True,
        on_progress: ProgressCallback = no_progress,
        **options: Any,
    ) -> Trained:
        """Train the project's student.

        With `compare`, where reviews changed labels, a student without the reviews is trained beside it, so that the
        report can say what the reviews gained. It is kept while the teacher's labels stay the same.

        Args:
            labels: whose labels to learn from.
            folder: the model folder; `models/student` by default.
            options: as of `fingerpost.students.encoder.train.fit`; where not given, the task's own.

        Raises:
            MissingExtra: the extra `train` is not installed.
            InputError: there is too little to learn from.
        """
        require_training("training")
        from fingerpost.training.dataset import from_store
        from fingerpost.training.train import Trained, train

        given = {**self.task.student.model_dump(), **options}
        settings = StudentSettings(**{key: given[key] for key in StudentSettings.model_fields})
        resolved = self._resolved(settings)
        given |= {
            "encoder": resolved.encoder,
            "max_tokens": resolved.max_tokens,
            "requested": {"encoder": settings.encoder, "max_tokens": settings.max_tokens},
        }
        if self._encoder is not None and self._encoder[1]:
            on_progress(Progress("train", self._encoder[1]))
        del given["base"]  # of a language model
        other_encoder = given.pop("consensus_encoder") not in (None, settings.encoder)
        embed = partial(self.embed_for_consensus, settings=settings)
        task = self.task.model_copy(update={"student": settings})
        target = Path(folder) if folder is not None else self.models / STUDENT
        unreviewed: Trained | None = None
        with self.store() as store:
            data = from_store(task, store, labels, embed)
            data = replace(data, vectors={}) if other_encoder else data
            plain = self.models / UNREVIEWED
            stale = bool(options) or not self.is_trained("teacher", plain, store)
            if compare and folder is None and data.changed and stale:
                on_progress(Progress("train", "without the reviews, to compare"))
                rows = from_store(task, store, "teacher", embed)
                unreviewed = Trained(plain, train(rows, plain, on_progress=on_progress, **given))
        return Trained(target, train(data, target, on_progress=on_progress, **given), unreviewed)

    def is_trained(
        self, labels: LabelsFrom = "consensus", folder: Path | None = None, store: Store | None = None
    ) -> bool:
        """Whether the model in the folder was trained on the present labels, for the present task."""
        from fingerpost.training.dataset import fingerprint_of

        folder = folder or self.models / STUDENT
        if not (folder / MANIFEST).is_file():
            return False
        if store is None:
            with self.store() as opened:
                return self.is_trained(labels, folder, opened)
        try:
            data = fingerprint_of(self.task, store, labels)
        except InputError:
            return False
        manifest = read_manifest(folder)
        return manifest.data_fingerprint == data and matches_task(manifest, self.task)

    def students(self) -> list[Path]:
        """The model folders of the project, without the untuned base."""
        found = sorted(path.parent for path in self.models.glob(f"*/{MANIFEST}"))
        return [path for path in found if path.name != BASE and not path.name.startswith(".")]

    def evaluate(
        self,
        models: Sequence[str | Path] = (),
        *,
        learning_curve: bool = False,
        cascade: CascadeTarget | None = None,
        on_progress: ProgressCallback = no_progress,
    ) -> Report:
        """Measure base, teacher and students on the project's test questions; the report is kept in `reports`.

        Args:
            models: model folders; all of the project by default.
            learning_curve: also train linear heads on fewer examples.
            cascade: also measure each student together with the teacher, as `fingerpost serve` runs them.

        Raises:
            MissingExtra: the extra `train` is not installed.
            InputError: there is no student, no test question, or the cascade's teacher was not asked about all of them.
        """
        require_training("measuring")
        from fingerpost.evaluation.project import evaluate_project

        folders = [Path(model) for model in models] or self.students()
        if not folders:
            raise InputError("there is no student yet; run 'fingerpost train'")
        from fingerpost.training.dataset import from_store

        with self.store() as store:
            data = from_store(self.task, store, "consensus", self.embed_for_consensus)
            task = self.task.model_copy(update={"student": self._resolved(self.task.student)})
            report = evaluate_project(
                task, store, folders, self.models / BASE, self.embed_for_consensus,
                inputs=self._state(store), cascade=cascade, on_progress=on_progress,
                training=data.train, curve=learning_curve,
                vectors={} if self.task.student.consensus_encoder else data.vectors,
            )  # fmt: skip
        self.reports.mkdir(exist_ok=True)
        (self.reports / "report.json").write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8")
        return report

    def predictor(self, name: str = STUDENT) -> Predictor:
        """A model of the project, loaded."""
        return load(self.models / name)

    def report_is_current(self) -> bool:
        """Whether `reports/report.json` measures the present questions, labels and models."""
        with self.store() as store:
            return self._reported() == self._state(store)

    def costs(self) -> tuple[list[StepCost], Account]:
        """What each step cost, by model; and the sums over all calls."""
        with self.store() as store:
            return store.ledger.step_costs(), store.ledger.account()

    def status(self) -> Status:
        """What there is, what it cost, what to do next."""
        with self.store() as store:
            questions: dict[str, dict[str, int]] = {}
            for (source, split), count in sorted(store.counts().items()):
                questions.setdefault(source, {})[split] = count
            unanswered = len(open_jobs(self.task, store)) if self.task.teacher else 0
            state = self._project_state(store)
            trained, measured = state.trained, state.measured
            verdicts, account = store.verdict_counts(), store.ledger.account()
        student = self.models / STUDENT
        return Status(
            self.task, questions, verdicts, account, unanswered, student if trained else None,
            self.reports / "report.html" if measured else None, next_steps(state),
        )  # fmt: skip

    def next_steps(self) -> tuple[str, ...]:
        """The commands to run next, the best one first; of a large project, the one that finds that out."""
        with self.store() as store:
            if sum(store.counts().values()) > LARGE:
                return (f"fingerpost status {self.folder}" if self.folder != Path() else "fingerpost status",)
            return next_steps(self._project_state(store))

    def _project_state(self, store: Store) -> ProjectState:
        sizes: dict[str, int] = {}
        for (_, split), count in store.counts().items():
            sizes[split] = sizes.get(split, 0) + count
        labels = store.label_counts(self.task.teacher_model)
        batches = store.batch_keys(STEP, self.task.teacher_model) if self.task.teacher else []
        return ProjectState(
            folder="" if self.folder == Path() else str(self.folder),
            teacher=self.task.teacher is not None,
            train=sizes.get("train", 0),
            dev=sizes.get("dev", 0),
            test=sizes.get("test", 0),
            unlabelled=labels.unlabelled,
            human_train=labels.by.get(("train", "human"), 0),
            human_test=labels.by.get(("test", "human"), 0),
            teacher_labels=sum(count for (_, kind), count in labels.by.items() if kind == "teacher"),
            unanswered_test=labels.unanswered_test,
            pending_batch_requests=len(batches),
            trained=self.is_trained(store=store),
            measured=self._reported() == self._state(store),
        )

    def _state(self, store: Store) -> str:
        """Changes when a report would come out differently: test rows, verdicts, models."""
        manifests = [(folder / MANIFEST).read_text(encoding="utf-8") for folder in self.students()]
        counts = [str(item) for item in [*sorted(store.counts().items()), *store.verdict_counts()]]
        return fingerprint([self.task.model_dump_json(), *counts, *manifests])

    def _reported(self) -> str | None:
        """The state that the stored report measured."""
        try:
            return str(json.loads((self.reports / "report.json").read_text(encoding="utf-8")).get("inputs"))
        except (OSError, ValueError):
            return None
