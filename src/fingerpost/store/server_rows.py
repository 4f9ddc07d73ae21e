"""Rows of the server's database as frozen dataclasses. Times are seconds since 1970, as in OpenAI's API."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias, TypedDict

from sqlalchemy import RowMapping

from fingerpost.core.types import Conversation, Message, Usage

Json: TypeAlias = dict[str, Any]
EventLevel: TypeAlias = Literal["info", "warn", "error"]


@dataclass(frozen=True, slots=True)
class FileRow:
    """An uploaded file or a result. `bytes` is its size."""

    id: str
    created_at: int
    filename: str
    purpose: str
    bytes: int
    expires_at: int | None = None


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job failed. `param` is the request field at fault, if any."""

    code: str
    message: str
    param: str | None = None


@dataclass(frozen=True, slots=True)
class JobRow:
    """A fine-tuning job.

    Attributes:
        request: the request's fields as the client sent them.
        attempts: how many times a process has started on the current phase (validation or training).
        interrupted: how many times the server was killed while the job ran.
        model: name of the trained model; None before the job succeeds and after the model is deleted.
        announced: whether the webhook was told that the job ended.
    """

    id: str
    created_at: int
    status: str
    request: Json
    paused: bool = False
    attempts: int = 0
    interrupted: int = 0
    estimated_finish: int | None = None
    finished_at: int | None = None
    error: JobError | None = None
    model: str | None = None
    result_file: str | None = None
    trained_tokens: int | None = None
    announced: bool = False


class JobChanges(TypedDict, total=False):
    """The fields of a job that can change."""

    status: str
    paused: bool
    attempts: int
    interrupted: int
    estimated_finish: int | None
    finished_at: int | None
    error: JobError | None
    model: str | None
    result_file: str | None
    trained_tokens: int | None
    announced: bool


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event of a job. `kind` is `metrics` where it has `data`, else `message`. `seq` grows with time."""

    seq: int
    job_id: str
    created_at: int
    level: str
    kind: str
    message: str
    data: Json | None = None


@dataclass(frozen=True, slots=True)
class BatchCounts:
    """How many lines of a batch there are, were answered and failed."""

    total: int = 0
    completed: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class BatchRow:
    """A batch of chat completions.

    Attributes:
        request: the request's fields as the client sent them.
        times: when the batch reached a state, by the API's field name, such as `in_progress_at`.
        output_file, error_file: file ids of the answers and of the failed lines.
        errors: what was wrong with the input file, as the API's list object.
        announced: whether the webhook was told that the batch ended.
    """

    id: str
    created_at: int
    status: str
    request: Json
    counts: BatchCounts = BatchCounts()
    times: dict[str, int] = field(default_factory=dict)
    output_file: str | None = None
    error_file: str | None = None
    errors: Json | None = None
    announced: bool = False


class BatchChanges(TypedDict, total=False):
    """The fields of a batch that can change."""

    status: str
    counts: BatchCounts
    times: dict[str, int]
    output_file: str | None
    error_file: str | None
    errors: Json | None
    announced: bool


@dataclass(frozen=True, slots=True)
class KeyRow:
    """An API key: its hash, and a `hint` of its first and last characters."""

    name: str
    sha256: str
    hint: str
    created_at: int
    revoked_at: int | None = None


@dataclass(frozen=True, slots=True)
class LoggedTeacherReply:
    """The teacher's reply to a logged request.

    Attributes:
        label: None where the reply was unusable.
        probabilities: by label, where the reply states them.
    """

    model: str
    label: str | None
    raw: str
    logprob: float | None
    usage: Usage
    probabilities: dict[str, float] | None = None


@dataclass(frozen=True, slots=True)
class RequestLogEntry:
    """A request and the decision on it.

    Attributes:
        key: name of the API key, if one was sent.
        label: the label that was returned.
        confidence: the student's calibrated probability of its own best label.
        by: `student` or `teacher`.
        teacher: the teacher's reply, where there was one.
        decision: id of the decision that a request to an upstream endpoint belongs to.
        student: of such a request, the student's label, if it has one.
    """

    request_id: str
    at: int
    key: str | None
    model: str
    messages: Conversation
    label: str | None
    confidence: float
    by: str
    latency_s: float
    teacher: LoggedTeacherReply | None = None
    decision: int | None = None
    student: str | None = None


@dataclass(frozen=True, slots=True)
class ResponseRow:
    """A stored response of the Responses wire.

    Attributes:
        input: the items of the request.
        response: the response object.
        previous: id of the response that it builds on.
    """

    id: str
    created_at: int
    input: list[Json]
    response: Json
    previous: str | None = None


Mode: TypeAlias = Literal["observe", "shadow", "canary", "on"]
"""What is done about a decision: its answers are kept; the student answers beside; it answers a share; it answers."""


@dataclass(frozen=True, slots=True)
class DecisionRow:
    """A version of a decision: requests with the same labels, the same prompt and the same form of reply.

    Attributes:
        share: in the mode `canary`, the share of requests that the student may answer.
        place: where a reply has the label: `path`, the names of the JSON fields down to it; `tool`, the tool whose arguments
            these are; `by_tool`, whether the tool's name is the label.
        labels: the values of the labels.
        prompt: the system prompt.
        model: the model that was asked for.
        reply_template, user_template: of replies in plain text, and of the user's messages.
        imported: id of the last logged request that is in the decision's project.
        training: the last training: `at`, `rows`, `seconds`, `humans`; `cutoff` with `n`, `of`, `right` and `at_least`, if one was
            proven, by the answers as the consensus with the reviews corrects them if they are `corrected`; and how often the
            student `differs` from the upstream at most.
        monitor: the state of the alarm for drift.
        alarm: why the student was taken out of service.
        announced: whether the webhook was told of the alarm.
        upstream_alarm: when and how the upstream model has changed.
        upstream_announced: whether the webhook was told of that.
    """

    id: int
    name: str
    version: int
    created_at: int
    mode: Mode
    share: float
    place: Json
    labels: list[str | int]
    prompt: str
    model: str
    reply_template: Json | None = None
    user_template: Json | None = None
    imported: int = 0
    training: Json = field(default_factory=dict)
    monitor: Json = field(default_factory=dict)
    alarm: str | None = None
    announced: bool = True
    upstream_alarm: str | None = None
    upstream_announced: bool = True

    @property
    def folder(self) -> str:
        """The name of its project's folder."""
        return self.name if self.version == 1 else f"{self.name}.{self.version}"


@dataclass(frozen=True, slots=True)
class RepeatedPrompt:
    """A prompt whose replies repeat, so that it is probably a decision that no schema shows.

    Attributes:
        replies: that were seen when it was found.
        labels: what they named.
    """

    at: int
    model: str
    prompt: str
    replies: int
    labels: list[str]


@dataclass(frozen=True, slots=True)
class DecisionCounts:
    """The logged requests of a decision.

    Attributes:
        requests: all of them.
        by_student: answered by the student.
        answers: with an upstream answer.
        compared: answers to requests that the student labelled, too, and that it does not answer itself.
        agreed: of those, with the same label.
        upstream_s: mean seconds of an upstream answer.
        student_s: mean seconds of the student.
        cost_usd: mean cost of an upstream answer, where it is known.
    """

    requests: int
    by_student: int
    answers: int
    compared: int
    agreed: int
    upstream_s: float | None
    student_s: float | None
    cost_usd: float | None


class DecisionChanges(TypedDict, total=False):
    """The fields of a decision that can change."""

    mode: Mode
    share: float
    labels: list[str | int]
    reply_template: Json | None
    user_template: Json | None
    imported: int
    training: Json
    monitor: Json
    alarm: str | None
    announced: bool
    upstream_alarm: str | None
    upstream_announced: bool


# --- dataclasses from and to database rows


def to_decision(row: RowMapping) -> DecisionRow:
    return DecisionRow(**row)


def to_response(row: RowMapping) -> ResponseRow:
    return ResponseRow(row["id"], row["created_at"], row["input"], row["response"], row["previous"])


def to_file(row: RowMapping) -> FileRow:
    return FileRow(row["id"], row["created_at"], row["filename"], row["purpose"], row["bytes"], row["expires_at"])


def to_job(row: RowMapping) -> JobRow:
    return JobRow(
        id=row["id"],
        created_at=row["created_at"],
        status=row["status"],
        request=row["request"],
        paused=row["paused"],
        attempts=row["attempts"],
        interrupted=row["interrupted"],
        estimated_finish=row["estimated_finish"],
        finished_at=row["finished_at"],
        error=JobError(**row["error"]) if row["error"] else None,
        model=row["model"],
        result_file=row["result_file"],
        trained_tokens=row["trained_tokens"],
        announced=row["announced"],
    )


def to_event(row: RowMapping) -> EventRow:
    return EventRow(
        row["seq"], row["job_id"], row["created_at"], row["level"], row["kind"], row["message"], row["data"]
    )


def to_batch(row: RowMapping) -> BatchRow:
    return BatchRow(
        id=row["id"],
        created_at=row["created_at"],
        status=row["status"],
        request=row["request"],
        counts=BatchCounts(**row["counts"]),
        times=row["times"],
        output_file=row["output_file"],
        error_file=row["error_file"],
        errors=row["errors"],
        announced=row["announced"],
    )


def to_key(row: RowMapping) -> KeyRow:
    return KeyRow(row["name"], row["sha256"], row["hint"], row["created_at"], row["revoked_at"])


def to_log_entry(row: RowMapping) -> RequestLogEntry:
    return RequestLogEntry(
        request_id=row["request_id"],
        at=row["at"],
        key=row["key"],
        model=row["model"],
        messages=tuple(Message(role, content) for role, content in row["messages"]),
        label=row["label"],
        confidence=row["confidence"],
        by=row["by"],
        latency_s=row["latency_s"],
        teacher=None if row["teacher"] is None else _teacher_reply(row["teacher"]),
        decision=row["decision"],
        student=row["student"],
    )


def _teacher_reply(stored: Json) -> LoggedTeacherReply:
    usage = stored["usage"]
    # version 0.1.0 stored the list [prompt, cached, completion, cost_usd, latency_s]
    parsed = Usage(*usage) if isinstance(usage, list) else Usage(**usage)
    return LoggedTeacherReply(stored["model"], stored["label"], stored["raw"], stored["logprob"], parsed,
                              stored.get("probabilities"))  # fmt: skip


def log_entry_values(entry: RequestLogEntry) -> Json:
    """The row to insert for a log entry."""
    return {
        "request_id": entry.request_id,
        "at": entry.at,
        "key": entry.key,
        "model": entry.model,
        "messages": [[turn.role, turn.content] for turn in entry.messages],
        "label": entry.label,
        "confidence": entry.confidence,
        "by": entry.by,
        "latency_s": entry.latency_s,
        "teacher": None if entry.teacher is None else asdict(entry.teacher),
        "decision": entry.decision,
        "student": entry.student,
    }
