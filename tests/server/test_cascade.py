"""The cascade: uncertain requests go to the teacher, and there is an answer whatever the teacher does."""

from __future__ import annotations

import json
import math
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from conftest import TASK, TEXTS
from serving import Serving, wait
from teacher import Teacher

from fingerpost.core.types import Verdict
from fingerpost.data.importer import import_file, import_log
from fingerpost.data.rows import Columns
from fingerpost.server.inference.breaker import FAILURES, MOST_OPEN_S, OPEN_S, Attempt, Breaker
from fingerpost.server.inference.teacher import longest_reply
from fingerpost.server.inference.thresholds import cutoffs
from fingerpost.server.settings import Settings
from fingerpost.store.project import Store
from fingerpost.store.server import ServerStore
from fingerpost.task.loader import load_task
from fingerpost.task.settings import TeacherSettings

TIMEOUT_S = 5


@pytest.fixture(scope="module")
def shared_teacher() -> Iterator[Teacher]:
    running = Teacher().start()
    yield running
    running.stop()


@pytest.fixture
def teacher(shared_teacher: Teacher) -> Teacher:
    """The module's teacher with its default behaviour and empty records."""
    for name, value in vars(Teacher()).items():
        if name in {field.name for field in fields(Teacher)} - {"port", "batches"}:
            setattr(shared_teacher, name, value)
    return shared_teacher


@pytest.fixture(scope="module")
def shared_server(
    tmp_path_factory: pytest.TempPathFactory, shared_teacher: Teacher, student: Path
) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("cascade")
    (folder / "task.toml").write_text(TASK.format(base_url=shared_teacher.base_url))
    arguments = [f"student={student}", "-C", str(folder), "--cutoff", "1", "--teacher-timeout", str(TIMEOUT_S)]
    with Serving(folder / "served", *arguments, OPENAI_API_KEY="x") as running:
        yield running


@pytest.fixture
def server(shared_server: Serving, teacher: Teacher) -> Serving:
    """A server that sends everything below a confidence of 1 to `teacher`, with a closed circuit breaker."""
    wait(lambda: shared_server.ask("billing").headers["x-fingerpost-by"] == "teacher")
    teacher.bodies.clear()
    return shared_server


def test_the_teacher_gets_the_request_as_the_client_sent_it(server: Serving, teacher: Teacher) -> None:
    body = {"temperature": 0.3, "max_tokens": 17, "response_format": {"type": "json_object"}, "user": "u"}
    turns = [{"role": "system", "content": "my prompt"}, {"role": "user", "content": "where is my parcel, delivery"}]
    response = server.post("/v1/chat/completions", {"model": "student", "messages": turns, "stream": True, **body})
    assert response.headers["x-fingerpost-by"] == "teacher"
    (sent,) = teacher.bodies
    assert sent == {"model": "test-model", "messages": turns, **body}


def test_its_answer_comes_back_in_the_format_of_the_student(server: Serving, teacher: Teacher) -> None:
    teacher.reply = '```json\n{"action":"Delivery"}\n```'
    completion = server.ask("what a nice day", logprobs=True).json()
    assert completion["choices"][0]["message"]["content"] == '{"action": "delivery"}'
    assert completion["model"] == "student"
    assert completion["usage"]["prompt_tokens"] == 100
    assert completion["usage"]["prompt_tokens_details"]["cached_tokens"] == 60
    assert sum(token["logprob"] for token in completion["choices"][0]["logprobs"]["content"]) == pytest.approx(-0.25)
    (sent,) = teacher.bodies
    assert sent["messages"][0]["role"] == "system"
    assert "- delivery: parcels and couriers" in sent["messages"][0]["content"]
    assert sent["logprobs"] is True


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (lambda teacher: setattr(teacher, "delay_s", 10 * TIMEOUT_S), "timeout"),
        (lambda teacher: teacher.fail.extend([(500, {})] * 3), "status-500"),
        (lambda teacher: teacher.fail.extend([(429, {})] * 3), "status-429"),
        (lambda teacher: setattr(teacher, "drop", 3), "unreachable"),
        (lambda teacher: setattr(teacher, "reply", "I would say it is hard to tell."), "nonsense"),
        (lambda teacher: teacher.stop(), "unreachable"),
    ],
)
def test_the_student_answers_when_the_teacher_fails(
    server: Serving, teacher: Teacher, break_it: Callable[[Teacher], None], reason: str
) -> None:
    break_it(teacher)
    response = server.ask("my invoice is wrong")
    if reason == "unreachable" and not teacher.drop:
        teacher.start()
    assert response.status_code == 200
    assert response.json()["choices"][0]["message"]["content"] == '{"action": "billing"}'
    assert (response.headers["x-fingerpost-by"], response.headers["x-fingerpost-teacher"]) == ("student", reason)


def test_an_answer_outside_the_enum_is_nonsense(server: Serving) -> None:
    inner = {"type": "object", "properties": {"to": {"enum": ["delivery", "other"]}}}
    response = server.ask(
        "billing", response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": inner}}
    )
    assert response.headers["x-fingerpost-teacher"] == "nonsense"
    assert json.loads(response.json()["choices"][0]["message"]["content"])["to"] in ("delivery", "other")


def test_the_breaker_opens_and_closes_again(server: Serving, teacher: Teacher) -> None:
    teacher.fail = [(500, {})] * FAILURES
    for _ in range(FAILURES):
        assert server.ask("my invoice is wrong").headers["x-fingerpost-teacher"] == "status-500"
    asked = sum(teacher.asked.values())
    assert server.ask("my invoice is wrong").headers["x-fingerpost-teacher"] == "breaker-open"
    assert sum(teacher.asked.values()) == asked
    assert "fingerpost_breaker_open 1.0" in server.get("/metrics").text
    wait(lambda: server.ask("my invoice is wrong").headers["x-fingerpost-by"] == "teacher")
    assert "fingerpost_breaker_open 0.0" in server.get("/metrics").text


def admitted(breaker: Breaker) -> Attempt:
    attempt = breaker.admit()
    assert attempt is not None
    return attempt


def test_the_breaker_by_its_clock() -> None:
    time = [0.0]
    breaker = Breaker(lambda: time[0])
    early = admitted(breaker)
    for _ in range(FAILURES - 1):
        breaker.failed(admitted(breaker))
    breaker.succeeded(admitted(breaker))
    for _ in range(FAILURES):
        breaker.failed(admitted(breaker))
    wait_s = OPEN_S
    for _ in range(6):
        assert breaker.state == "open"
        assert breaker.admit() is None
        time[0] += wait_s
        assert breaker.state == "half-open"
        probe = admitted(breaker)
        assert breaker.admit() is None  # one probe at a time
        breaker.failed(early)  # an attempt from before the breaker opened changes nothing
        breaker.abandoned(early)
        breaker.succeeded(early)
        assert breaker.admit() is None
        breaker.failed(probe)
        wait_s = min(MOST_OPEN_S, 2 * wait_s)
    time[0] += wait_s
    breaker.abandoned(admitted(breaker))
    breaker.succeeded(admitted(breaker))
    assert breaker.state == "closed"
    admitted(breaker)


def test_requests_that_wait_for_a_connection_do_not_open_the_breaker(server: Serving, teacher: Teacher) -> None:
    """The teacher takes four requests at a time; most of 40 find no free connection within the time-out."""
    teacher.delay_s = 0.4 * TIMEOUT_S
    decisions = server.post("/v1/route", {"input": ["my invoice is wrong"] * 40}).json()["data"]
    assert {decision["teacher"] for decision in decisions} == {None, "busy"}
    teacher.delay_s = 0
    assert server.ask("my invoice is wrong").headers["x-fingerpost-by"] == "teacher"


def test_a_forced_tool_is_answered_by_the_teacher_too(server: Serving, teacher: Teacher) -> None:
    teacher.tool = True
    teacher.reply = json.dumps({"to": "delivery"})
    parameters = {"properties": {"to": {"enum": ["delivery", "other"]}}}
    response = server.ask(
        "my invoice is wrong",
        tools=[{"type": "function", "function": {"name": "route", "parameters": parameters}}],
        tool_choice={"type": "function", "function": {"name": "route"}},
    )
    assert response.headers["x-fingerpost-by"] == "teacher"
    (call,) = response.json()["choices"][0]["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"to": "delivery"}


def test_the_teachers_answers_are_imported_as_verdicts(
    server: Serving, folder: Path, store: Store, teacher: Teacher
) -> None:
    texts = ("where is my delivery today", "good day to you")
    server.ask(texts[0])
    teacher.reply = "nonsense"
    server.ask(texts[1])
    log = ServerStore(server.folder / "fingerpost.db")
    entries = [entry for entry in log.log_entries() if entry.messages[-1].content in texts]
    log.close()
    imported = import_log(store, load_task(folder / "task.toml"), entries, "served")
    assert (imported.new, imported.verdicts) == (2, 2)
    questions = {question.id: question.messages[-1].content for question in store.questions()}
    found = {
        questions[key]: (verdict.label, verdict.by, verdict.raw, verdict.usage.prompt)
        for key, (verdict,) in store.verdicts().items()
    }
    assert found == {
        texts[0]: ("delivery", "test-model", '{"action": "delivery"}', 100),
        texts[1]: (None, "test-model", "nonsense", 100),
    }


def test_a_budget_bounds_the_reply_and_is_never_exceeded(
    tmp_path: Path, folder: Path, student: Path, teacher: Teacher
) -> None:
    budget, cost = 0.004, (40 * 1.0 + 60 * 0.5 + 5 * 4.0) / 1e6
    arguments = [f"student={student}", "-C", str(folder), "--cutoff", "1", "--budget", str(budget)]
    with Serving(tmp_path / "served", *arguments, OPENAI_API_KEY="x") as server:
        assert server.ask("billing", service_tier="priority").headers["x-fingerpost-by"] == "teacher"
        assert server.ask("billing", max_completion_tokens=100_000).headers["x-fingerpost-teacher"] == "budget"
        image = {"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/x.png"}}
        response = server.ask([{"type": "text", "text": "billing"}, image])
        assert response.headers["x-fingerpost-teacher"] == "budget"
        (sent,) = teacher.bodies
        assert sent["max_tokens"] == 64
        assert "service_tier" not in sent

        reasons = [server.ask("my invoice is wrong").headers.get("x-fingerpost-teacher") for _ in range(60)]
        assert set(reasons) == {None, "budget"}
        assert (reasons[0], reasons[-1]) == (None, "budget")
        metrics = dict(line.rsplit(" ", 1) for line in server.get("/metrics").text.splitlines())
        spent = float(metrics["fingerpost_teacher_usd_total"])
    assert spent == pytest.approx(cost * (1 + reasons.count(None)))
    assert spent <= budget
    store = ServerStore(tmp_path / "served" / "fingerpost.db")
    assert store.ledger.account().committed_usd == pytest.approx(spent)
    store.close()


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"max_completion_tokens": 1, "max_tokens": 20_000}, {"max_completion_tokens": 1}),
        ({"max_tokens": 9, "max_completion_tokens": 12}, {"max_completion_tokens": 9, "max_tokens": 9}),
        *[({"max_tokens": value}, {"max_tokens": 64}) for value in (-1, 0, None, "many", [9], 1e300, 1.5)],
    ],
)
def test_one_possible_limit_goes_to_the_teacher(given: dict[str, object], sent: dict[str, int]) -> None:
    settings = TeacherSettings.model_validate({"model": "m", "base_url": "http://127.0.0.1:1/v1"})
    name, length = longest_reply(given, settings)
    assert sent[name] == length


@pytest.mark.parametrize("given", [{"max_tokens": None}, {"max_tokens": "x"}, {"max_tokens": [1]}, {"max_tokens": -1}])
def test_a_strange_limit_is_no_server_error(server: Serving, given: dict[str, object]) -> None:
    assert server.ask("billing", **given).status_code in (200, 400)


def project_with_dev(folder: Path, student: Path, accuracy: float) -> Path:
    """A project whose model answered 300 dev questions, as often right as `accuracy`; returns the model folder."""
    from fingerpost.students.folder import DEV_ANSWERS, MANIFEST, DevAnswer, sha256, write_answers

    model = folder / "model"
    shutil.copytree(student, model)
    file = folder / "dev.csv"
    rows = [f"{TEXTS['billing'][i % 10]} number {i * 7919} {chr(97 + i % 26) * 5},billing,dev" for i in range(300)]
    file.write_text("text,label,split\n" + "\n".join(rows) + "\n")
    with Store(folder / "fingerpost.db") as store:
        import_file(store, load_task(folder / "task.toml"), file, Columns())
        questions = [question for question in store.questions() if question.split == "dev"]
        store.add_verdicts(Verdict(question.id, "teacher", "test-model", "billing") for question in questions)
    right = round(accuracy * len(questions))
    answers = [
        DevAnswer(question.id, "billing", "billing" if i < right else "other", 0.99 - i / 1000)
        for i, question in enumerate(questions)
    ]
    write_answers(model / DEV_ANSWERS, answers)
    manifest = json.loads((model / MANIFEST).read_text())
    manifest["files"][DEV_ANSWERS] = sha256(model / DEV_ANSWERS)
    (model / MANIFEST).write_text(json.dumps(manifest))
    return model


def test_the_cutoff_is_chosen_on_dev_rows(tmp_path: Path, folder: Path, student: Path) -> None:
    model = project_with_dev(folder, student, 0.9)
    task = load_task(folder / "task.toml")
    for target in ({"agreement": 0.95}, {"accuracy": 0.95}):
        settings = Settings(tmp_path / "served", project=folder, task=task, teacher=task.teacher, **target)  # type: ignore[arg-type]
        choice = cutoffs(settings)(model)
        assert choice.cutoff is not None
        assert choice.cutoff < 1
        assert choice.found is not None
        assert 0.95 <= choice.found.at_least < 0.97
    settings = Settings(tmp_path / "served", project=folder, task=task, teacher=task.teacher, agreement=0.999)
    assert cutoffs(settings)(model).cutoff == math.inf


def test_the_teacher_answers_everything_if_the_target_cannot_be_met(
    tmp_path: Path, folder: Path, student: Path, teacher: Teacher
) -> None:
    model = project_with_dev(folder, student, 0.0)
    arguments = [f"student={model}", "-C", folder, "--agreement", "0.98"]
    with Serving(tmp_path / "served", *arguments, OPENAI_API_KEY="x") as server:
        assert server.ask("my invoice is wrong").headers["x-fingerpost-by"] == "teacher"


def test_a_teacher_that_accepts_connections_and_sends_nothing(tmp_path: Path, student: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        arguments = ["--cutoff", "1", "--teacher", "m", "--teacher-url", url, "--teacher-timeout", "0.5"]
        with Serving(tmp_path / "served", f"student={student}", *arguments) as server:
            reasons: list[str] = []
            threads = [
                threading.Thread(target=lambda: reasons.append(server.ask("x").headers["x-fingerpost-teacher"]))
                for _ in range(8)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert set(reasons) <= {"timeout", "breaker-open", "busy"}
            assert len(reasons) == 8


def test_contradictory_options_are_refused(tmp_path: Path, student: Path) -> None:
    with pytest.raises(AssertionError, match="--teacher"):
        Serving(tmp_path, student, "--cutoff", "0.5").start()
    (tmp_path / "task.toml").write_text(TASK.format(base_url="http://127.0.0.1:1/v1"))
    with pytest.raises(AssertionError, match="--agreement"):
        Serving(tmp_path, student, "-C", tmp_path, "--cutoff", "0.5", "--agreement", "0.9").start()
