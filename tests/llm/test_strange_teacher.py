"""Endpoints that answer with impossible numbers, too much, too slowly, or with statuses that may have been charged."""

from __future__ import annotations

import gzip
import json
import math
import resource
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
from conftest import write_questions
from hypothesis import given
from hypothesis import strategies as st
from teacher import USAGE, Teacher

from fingerpost.core.errors import TeacherError
from fingerpost.core.utils import MAX_COUNT
from fingerpost.data.importer import import_file
from fingerpost.labelling.label import label, plan_labels
from fingerpost.labelling.requests import LabelSelection
from fingerpost.llm.client import retry_after
from fingerpost.llm.completion import MAX_REPLY_CHARACTERS, RequestLost, parse_reply, usage_with_cost
from fingerpost.store.project import Store
from fingerpost.task.settings import Task, TeacherSettings

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
SETTINGS = TeacherSettings.model_validate({"model": "m", "prices": {"input": 1.0, "output": 4.0}})
IMPOSSIBLE: list[Any] = ["many", [7], float("nan"), 10**23, float("inf"), -5, 1.5, True, {}, None]


def completion(**changes: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": '{"action": "other"}'}} | changes.pop("choice", {})], **changes}


@given(st.dictionaries(st.sampled_from([*USAGE, "x"]), JSON) | JSON, JSON, JSON)
def test_any_usage_log_probability_or_refusal_gives_a_possible_cost(usage: Any, logprobs: Any, refusal: Any) -> None:
    choice = {"message": {"content": "other", "refusal": refusal}, "logprobs": {"content": logprobs}}
    reply = parse_reply(json.dumps({"choices": [choice], "usage": usage}), 0.1, "x")
    counted = usage_with_cost(SETTINGS, reply, at_most_usd=0.25)
    assert counted.cost_usd is not None and math.isfinite(counted.cost_usd) and counted.cost_usd >= 0
    assert counted.prompt is None or 0 <= counted.prompt <= MAX_COUNT
    assert (counted.prompt is not None) or counted.cost_usd == 0.25
    assert reply.logprob is None or (math.isfinite(reply.logprob) and reply.logprob <= 0)
    assert reply.refusal is None or isinstance(reply.refusal, str)


@given(JSON)
def test_anything_else_than_a_completion_counts_as_a_lost_request(body: Any) -> None:
    with pytest.raises(RequestLost):
        parse_reply(json.dumps(body), 0.1, "x")


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 50_000, b"\xff\xfe", b"9" * 5_000, b""])
def test_a_body_that_is_no_json_counts_as_a_lost_request(body: bytes) -> None:
    with pytest.raises(RequestLost):
        parse_reply(body, 0.1, "x")


def test_a_reply_is_stored_up_to_a_limit() -> None:
    reply = parse_reply(json.dumps(completion(choice={"message": {"content": "x" * 3 * MAX_REPLY_CHARACTERS}})), 0, "x")
    assert reply.text is not None and len(reply.text) == MAX_REPLY_CHARACTERS


@pytest.fixture
def ready(store: Store, task: Task, folder: Path) -> Store:
    import_file(store, task, write_questions(folder / "q.txt", 12))
    return store


def with_teacher(task: Task, **changes: Any) -> Task:
    assert task.teacher is not None
    return task.model_copy(update={"teacher": task.teacher.model_copy(update=changes)})


@pytest.mark.parametrize("value", IMPOSSIBLE)
def test_impossible_token_counts_keep_the_answer_and_the_reservation(
    ready: Store, task: Task, folder: Path, teacher: Teacher, value: Any
) -> None:
    teacher.usage = USAGE | {"prompt_tokens": value}
    planned = plan_labels(task, ready)
    done = label(task, ready, planned, folder)
    assert (done.done, done.usable) == (12, 12) and len(ready.verdicts()) == 12
    assert ready.ledger.account().committed_usd == pytest.approx(planned.at_most_usd)


@pytest.mark.parametrize("status", [500, 520, 524, 529, 599])
def test_a_status_that_may_have_been_charged_keeps_its_reservation_and_the_run_goes_on(
    ready: Store, task: Task, folder: Path, teacher: Teacher, status: int
) -> None:
    teacher.fail = [(status, {})]
    done = label(task, ready, plan_labels(task, ready), folder)
    assert done.usable == 12
    assert ready.ledger.account().uncertain == 1


def test_a_reply_that_drips_ends_with_the_deadline_of_the_whole_request(
    ready: Store, task: Task, folder: Path, teacher: Teacher
) -> None:
    teacher.drip_s = 0.3
    task = with_teacher(task, timeout_s=1.0)
    began = time.monotonic()
    with pytest.raises(TeacherError, match="lost 3 times"):
        label(task, ready, plan_labels(task, ready), folder)
    assert time.monotonic() - began < 60  # a whole reply would take five minutes


def test_a_compressed_reply_is_read_up_to_a_limit(ready: Store, task: Task, folder: Path, teacher: Teacher) -> None:
    packer, zeros = zlib.compressobj(wbits=31), b"\0" * 2**20
    bomb = b"".join(packer.compress(zeros) for _ in range(600)) + packer.flush()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    teacher.payload = bomb, {"content-encoding": "gzip"}
    with pytest.raises(TeacherError, match="lost 3 times"):
        label(with_teacher(task, concurrency=1), ready, plan_labels(task, ready), folder)
    teacher.payload = None
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024
    account = ready.ledger.account()
    assert account.calls == account.uncertain and not ready.verdicts()


@pytest.mark.parametrize("name", ["gzip", "deflate"])
def test_a_compressed_reply_of_usual_length_is_read(
    ready: Store, task: Task, folder: Path, teacher: Teacher, name: str
) -> None:
    compress = gzip.compress if name == "gzip" else zlib.compress
    teacher.payload = compress(json.dumps(completion(usage=USAGE)).encode()), {"content-encoding": name}
    assert label(task, ready, plan_labels(task, ready), folder).usable == 12


def test_a_header_of_the_recordings_means_nothing_from_a_live_teacher(
    ready: Store, task: Task, folder: Path, teacher: Teacher
) -> None:
    teacher.payload = json.dumps(completion()).encode(), {"fingerpost-latency-s": "nan", "fingerpost_latency_s": "x"}
    assert label(task, ready, plan_labels(task, ready), folder).usable == 12
    latencies = [one.usage.latency_s for found in ready.verdicts().values() for one in found]
    assert all(seconds is not None and 0 < seconds < 600 for seconds in latencies)


def test_an_idempotent_endpoint_gets_one_key_for_a_request_and_its_repetitions(
    ready: Store, task: Task, folder: Path, teacher: Teacher
) -> None:
    task = with_teacher(task, idempotency_header="Idempotency-Key")
    teacher.drop = 2
    label(task, ready, plan_labels(task, ready), folder)
    assert sum(teacher.idempotency_keys.values()) == 14 and len(teacher.idempotency_keys) == 12
    account = ready.ledger.account()
    assert account.calls == 14 and account.uncertain == 0  # the two lost ones are known to be free
    teacher.reply = "nonsense"
    changed = task.model_copy(update={"instructions": "Route with care."})
    with pytest.raises(TeacherError):
        label(changed, ready, plan_labels(changed, ready, LabelSelection(again=True)), folder)
    teacher.reply = None
    label(changed, ready, plan_labels(changed, ready, LabelSelection(again=True, retry=True)), folder)
    assert set(teacher.idempotency_keys.values()) == {1, 2}  # no key is used again on purpose


@pytest.mark.parametrize(
    ("value", "date", "seconds"),
    [
        ("7", None, 7.0),
        ("Thu, 01 Jan 2026 10:00:07 GMT", "Thu, 01 Jan 2026 10:00:00 GMT", 7.0),  # whatever the time is here
        ("Thu, 01 Jan 2026 10:00:00 GMT", None, 0.0),
        ("Fri, 01 Jan 2126 10:00:00 GMT", "nonsense", None),
        ("nonsense", None, None),
        ("9" * 400, None, None),
        ("-5", None, None),
    ],
)
def test_the_wait_that_an_endpoint_asks_for(value: str, date: str | None, seconds: float | None) -> None:
    headers = {"retry-after": value} | ({"date": date} if date else {})
    found = retry_after(headers)
    assert found == seconds or (seconds is None and found is not None and found > 1e9)
