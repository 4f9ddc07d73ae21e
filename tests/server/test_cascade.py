"""The cascade: what the student is unsure of goes to the teacher; whatever becomes of the teacher, there is an answer."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import TASK, TEXTS
from serving import Serving, wait
from teacher import Teacher

from fingerpost.core.types import Verdict
from fingerpost.data.importer import import_file, import_log
from fingerpost.data.rows import Columns
from fingerpost.server.inference.breaker import FAILURES, MOST_OPEN_S, OPEN_S, Attempt, Breaker
from fingerpost.store.project import Store
from fingerpost.store.server import ServerStore
from fingerpost.task.loader import load_task

UNSURE = "zzz qqq billing xxx"


@pytest.fixture
def server(tmp_path: Path, folder: Path, student: Path) -> Iterator[Serving]:
    """Everything below a confidence of 1 goes to the teacher of `folder`, which has a second to answer."""
    arguments = [f"student={student}", "-C", str(folder), "--cutoff", "1", "--teacher-timeout", "1"]
    with Serving(tmp_path / "served", *arguments, OPENAI_API_KEY="x") as running:
        yield running


def test_the_teacher_is_asked_as_the_client_asked(server: Serving, teacher: Teacher) -> None:
    body = {"temperature": 0.3, "max_tokens": 17, "response_format": {"type": "json_object"}, "user": "u"}
    turns = [{"role": "system", "content": "my prompt"}, {"role": "user", "content": "where is my parcel, delivery"}]
    found = server.post("/v1/chat/completions", {"model": "student", "messages": turns, "stream": True, **body})
    assert found.headers["x-fingerpost-by"] == "teacher"
    (sent,) = teacher.bodies
    assert sent == {"model": "test-model", "messages": turns, **body}


def test_its_answer_comes_back_in_the_same_form(server: Serving, teacher: Teacher) -> None:
    teacher.reply = '```json\n{"action":"Delivery"}\n```'
    found = server.ask("what a nice day", logprobs=True)
    whole = found.json()
    assert whole["choices"][0]["message"]["content"] == '{"action": "delivery"}'
    assert whole["model"] == "student"
    assert whole["usage"]["prompt_tokens"] == 100
    assert whole["usage"]["prompt_tokens_details"]["cached_tokens"] == 60
    assert sum(token["logprob"] for token in whole["choices"][0]["logprobs"]["content"]) == pytest.approx(-0.25)
    (sent,) = teacher.bodies
    assert sent["messages"][0]["role"] == "system"
    assert "- delivery: parcels and couriers" in sent["messages"][0]["content"]
    assert sent["logprobs"] is True


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (lambda teacher: setattr(teacher, "delay_s", 30), "timeout"),
        (lambda teacher: teacher.fail.extend([(500, {})] * 3), "status-500"),
        (lambda teacher: teacher.fail.extend([(429, {})] * 3), "status-429"),
        (lambda teacher: setattr(teacher, "drop", 3), "unreachable"),
        (lambda teacher: setattr(teacher, "reply", "I would say it is hard to tell."), "nonsense"),
        (lambda teacher: teacher.stop(), "unreachable"),
    ],
)
def test_whatever_becomes_of_the_teacher_the_student_answers(
    server: Serving, teacher: Teacher, break_it: Callable[[Teacher], None], reason: str
) -> None:
    break_it(teacher)
    found = server.ask("my invoice is wrong")
    assert found.status_code == 200
    assert found.json()["choices"][0]["message"]["content"] == '{"action": "billing"}'
    assert (found.headers["x-fingerpost-by"], found.headers["x-fingerpost-teacher"]) == ("student", reason)
    if reason == "unreachable" and not teacher.drop:
        teacher.start()


def test_an_answer_outside_the_enum_is_nonsense(server: Serving, teacher: Teacher) -> None:
    inner = {"type": "object", "properties": {"to": {"enum": ["delivery", "other"]}}}
    found = server.ask(
        "billing", response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": inner}}
    )
    assert found.headers["x-fingerpost-teacher"] == "nonsense"
    assert json.loads(found.json()["choices"][0]["message"]["content"])["to"] in ("delivery", "other")


def test_a_dead_teacher_is_left_alone_and_found_again(server: Serving, teacher: Teacher) -> None:
    teacher.fail = [(500, {})] * FAILURES
    for _ in range(FAILURES):
        assert server.ask("my invoice is wrong").headers["x-fingerpost-teacher"] == "status-500"
    asked = sum(teacher.asked.values())
    assert server.ask("my invoice is wrong").headers["x-fingerpost-teacher"] == "breaker-open"
    assert sum(teacher.asked.values()) == asked
    assert "fingerpost_breaker_open 1.0" in server.get("/metrics").text
    wait(lambda: server.ask("my invoice is wrong").headers["x-fingerpost-by"] == "teacher", 3 * OPEN_S)
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
        assert breaker.admit() is None  # one attempt, not two
        breaker.failed(early)  # what was admitted before says nothing of the probe
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


def test_waiting_for_a_place_is_not_the_teachers_fault(
    tmp_path: Path, folder: Path, student: Path, teacher: Teacher
) -> None:
    """Four requests at a time, each 0.4 s: of 40 at once most find no place within a second, and the breaker stays closed."""
    teacher.delay_s = 0.4
    arguments = [f"student={student}", "-C", str(folder), "--cutoff", "1", "--teacher-timeout", "1"]
    with Serving(tmp_path / "served", *arguments, OPENAI_API_KEY="x") as server:
        many = server.post("/v1/route", {"input": ["my invoice is wrong"] * 40}).json()["data"]
        assert {each["teacher"] for each in many} == {None, "busy"}
        assert [each["by"] for each in many].count("teacher") >= 8
        assert server.ask("my invoice is wrong").headers["x-fingerpost-by"] == "teacher"


def test_a_forced_tool_is_answered_by_the_teacher_too(server: Serving, teacher: Teacher) -> None:
    teacher.tool = True
    teacher.reply = json.dumps({"to": "delivery"})
    tool = {
        "type": "function",
        "function": {"name": "route", "parameters": {"properties": {"to": {"enum": ["delivery", "other"]}}}},
    }
    found = server.ask(
        "my invoice is wrong", tools=[tool], tool_choice={"type": "function", "function": {"name": "route"}}
    )
    assert found.headers["x-fingerpost-by"] == "teacher"
    (call,) = found.json()["choices"][0]["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"to": "delivery"}


def test_with_a_budget_the_replys_length_is_bounded(
    tmp_path: Path, folder: Path, student: Path, teacher: Teacher
) -> None:
    arguments = [f"student={student}", "-C", str(folder), "--cutoff", "1", "--budget", "0.01"]
    with Serving(tmp_path / "served", *arguments, OPENAI_API_KEY="x") as server:
        assert server.ask("billing", service_tier="priority").headers["x-fingerpost-by"] == "teacher"
        assert server.ask("billing", max_completion_tokens=100_000).headers["x-fingerpost-teacher"] == "budget"
        image = [
            {"type": "text", "text": "billing"},
            {"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/x.png"}},
        ]
        assert server.ask(image).headers["x-fingerpost-teacher"] == "budget"
    (sent,) = teacher.bodies
    assert sent["max_tokens"] == 64
    assert "service_tier" not in sent


def test_a_budget_ends_the_teachers_part(tmp_path: Path, folder: Path, student: Path, teacher: Teacher) -> None:
    one = (40 * 1.0 + 60 * 0.5 + 5 * 4.0) / 1e6
    arguments = [f"student={student}", "-C", str(folder), "--cutoff", "1", "--budget", "0.004"]
    with Serving(tmp_path / "served", *arguments, OPENAI_API_KEY="x") as server:
        found = [server.ask("my invoice is wrong").headers.get("x-fingerpost-teacher") for _ in range(60)]
        assert found[0] is None
        assert set(found) == {None, "budget"}
        assert found[-1] == "budget"
        spent = float(next(
            line.split()[1] for line in server.get("/metrics").text.splitlines() if line.startswith("fingerpost_teacher_usd_total")
        ))  # fmt: skip
    assert spent == pytest.approx(one * found.count(None))
    store = ServerStore(tmp_path / "served" / "fingerpost.db")
    assert store.ledger.account().committed_usd == pytest.approx(spent)
    assert spent <= 0.004
    store.close()


def test_the_teachers_answers_are_imported_as_verdicts(
    server: Serving, folder: Path, store: Store, teacher: Teacher
) -> None:
    server.ask("where is my delivery")
    teacher.reply = "nonsense"
    server.ask("good day to you")
    task = load_task(folder / "task.toml")
    log = ServerStore(server.folder / "fingerpost.db")
    done = import_log(store, task, log.logged(), "served")
    log.close()
    assert (done.new, done.verdicts) == (2, 2)
    texts = {each.id: each.messages[-1].content for each in store.questions()}
    found = {
        texts[key]: (each.label, each.by, each.raw, each.usage.prompt) for key, (each,) in store.verdicts().items()
    }
    assert found == {
        "where is my delivery": ("delivery", "test-model", '{"action": "delivery"}', 100),
        "good day to you": (None, "test-model", "nonsense", 100),
    }


def project_with_dev(folder: Path, student: Path, right: float) -> None:
    """A project whose model has said of 300 dev questions what the teacher and a person said, as often as `right`."""
    from fingerpost.students.folder import DEV_ANSWERS, MANIFEST, DevAnswer, sha256, write_dev_answers

    model = folder / "model"
    shutil.copytree(student, model)
    file = folder / "dev.csv"
    rows = [f"{TEXTS['billing'][i % 10]} number {i * 7919} {chr(97 + i % 26) * 5},billing,dev" for i in range(300)]
    file.write_text("text,label,split\n" + "\n".join(rows) + "\n")
    with Store(folder / "fingerpost.db") as store:
        import_file(store, load_task(folder / "task.toml"), file, Columns())
        questions = [each for each in store.questions() if each.split == "dev"]
        store.add_verdicts(Verdict(each.id, "teacher", "test-model", "billing") for each in questions)
    good = round(right * len(questions))
    write_dev_answers(model, (
        DevAnswer(each.id, "billing", "billing" if i < good else "other", 0.99 - i / 1000) for i, each in enumerate(questions)
    ))  # fmt: skip
    manifest = json.loads((model / MANIFEST).read_text())
    manifest["files"][DEV_ANSWERS] = sha256(model / DEV_ANSWERS)
    (model / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize("option", ["--agreement", "--accuracy"])
def test_the_cut_off_is_chosen_on_dev_and_its_bound_is_stated(
    tmp_path: Path, folder: Path, student: Path, option: str
) -> None:
    project_with_dev(folder, student, 0.9)
    with Serving(tmp_path / "served", folder / "model", "-C", folder, option, "0.95", OPENAI_API_KEY="x") as server:
        line = next(each for each in server.greeting if "model" in each)
    assert "forwarded to test-model: " in line
    assert "with 95 % confidence" in line
    assert f"match {'the teacher' if option == '--agreement' else 'people'}'s" in line
    bound = float(line.split("at least ")[1].split("%")[0])
    assert 95 <= bound < 97


def test_a_target_that_cannot_be_met_is_said_and_the_teacher_answers(
    tmp_path: Path, folder: Path, student: Path, teacher: Teacher
) -> None:
    project_with_dev(folder, student, 0.0)
    arguments = [f"student={folder / 'model'}", "-C", folder, "--agreement", "0.98"]
    with Serving(tmp_path / "served", *arguments, OPENAI_API_KEY="x") as server:
        assert "all requests are forwarded to test-model" in "".join(server.greeting)
        assert server.ask("my invoice is wrong").headers["x-fingerpost-by"] == "teacher"


def test_a_teacher_that_takes_the_connection_and_says_nothing(tmp_path: Path, student: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        arguments = [
            f"student={student}",
            "--cutoff",
            "1",
            "--teacher",
            "m",
            "--teacher-url",
            url,
            "--teacher-timeout",
            "0.5",
        ]
        with Serving(tmp_path / "served", *arguments) as server:
            found: list[str] = []
            asking = [
                threading.Thread(target=lambda: found.append(server.ask("x").headers["x-fingerpost-teacher"]))
                for _ in range(8)
            ]
            for each in asking:
                each.start()
            for each in asking:
                each.join()
            assert set(found) <= {"timeout", "breaker-open", "busy"}
            assert len(found) == 8


def test_the_teacher_needs_a_name(tmp_path: Path, student: Path) -> None:
    with pytest.raises(AssertionError, match="there is no teacher"):
        Serving(tmp_path, student, "--cutoff", "0.5").start()
    (tmp_path / "task.toml").write_text(TASK.format(base_url="http://127.0.0.1:1/v1"))
    with pytest.raises(AssertionError, match="give one of"):
        Serving(tmp_path, student, "-C", tmp_path, "--cutoff", "0.5", "--agreement", "0.9").start()
