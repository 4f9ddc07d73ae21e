from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from command_line import HOUR, Cli
from conftest import question_text, write_questions
from teacher import USAGE, Teacher

from fingerpost.core.errors import BudgetError, TaskError, TeacherError
from fingerpost.data.importer import import_file
from fingerpost.labelling.label import LabelPlan, label, plan_labels
from fingerpost.labelling.position_bias import position_bias
from fingerpost.labelling.requests import LabelSelection
from fingerpost.store.project import Store
from fingerpost.task.prompt import label_order
from fingerpost.task.settings import Task

COST = (40 * 1.0 + 60 * 0.5 + 5 * 4.0) / 1e6  # of one answer of the test teacher


@pytest.fixture
def ready(store: Store, task: Task, folder: Path) -> Store:
    import_file(store, task, write_questions(folder / "q.txt", 30))
    return store


def with_teacher(task: Task, **changes: Any) -> Task:
    assert task.teacher is not None
    return task.model_copy(update={"teacher": task.teacher.model_copy(update=changes)})


def test_every_question_is_asked_once_and_its_answer_kept(
    ready: Store, task: Task, folder: Path, teacher: Teacher
) -> None:
    planned = plan_labels(task, ready)
    done = label(task, ready, planned, folder)
    assert (done.done, done.usable, done.unusable) == (30, 30, 0)
    assert teacher.asked == Counter({question_text(i): 1 for i in range(30)})
    for question in ready.questions():
        (verdict,) = ready.verdicts()[question.id]
        assert verdict.label == question.messages[0].content.split()[0]
        assert verdict.logprob == -0.25 and verdict.raw and verdict.order in (0, 1, 2)
        assert verdict.usage.cost_usd == pytest.approx(COST) and verdict.usage.cached == 60
    assert ready.ledger.account().committed_usd == pytest.approx(30 * COST) == done.cost_usd
    assert len(plan_labels(task, ready).jobs) == 0


def test_requests_are_at_temperature_0_with_a_schema_and_in_blocks_of_one_order(
    ready: Store, task: Task, folder: Path, teacher: Teacher
) -> None:
    task = with_teacher(task, concurrency=1)
    label(task, ready, plan_labels(task, ready), folder)
    body = teacher.bodies[0]
    assert body["temperature"] == 0 and body["logprobs"] is True and body["max_tokens"] == 64
    schema = body["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["action"]["enum"] == ["billing", "delivery", "other"]
    prompts = [each["messages"][0]["content"] for each in teacher.bodies]
    changes = sum(one != other for one, other in pairwise(prompts))
    assert len(set(prompts)) == 3 and changes == 2


def test_votes_ask_in_different_orders_and_measure_position_bias(
    ready: Store, task: Task, folder: Path, teacher: Teacher
) -> None:
    label(task, ready, plan_labels(task, ready, LabelSelection(limit=10)), folder)
    planned = plan_labels(task, ready, LabelSelection(votes=3))
    assert len(planned.jobs) == 80  # 90 less the 10 that are answered
    label(task, ready, planned, folder)
    verdicts = ready.verdicts().values()
    assert all({each.order for each in mine} == {0, 1, 2} for mine in verdicts)
    bias = position_bias(task, 3, verdicts)
    assert (bias.questions, bias.changed, sum(bias.observed)) == (30, 0, 90)
    assert sum(bias.expected) == pytest.approx(90) == pytest.approx(sum(bias.observed))
    with pytest.raises(TaskError, match="--votes 4"):
        plan_labels(task, ready, LabelSelection(votes=4))


def test_position_bias_of_a_teacher_that_always_takes_the_first_label(task: Task) -> None:
    from fingerpost.core.types import Verdict

    verdicts = [
        [
            Verdict(f"q{i}", "teacher", "m", label_order(task, order, 3)[0], prompt="p", order=order)
            for order in range(3)
        ]
        for i in range(20)
    ]
    bias = position_bias(task, 3, verdicts)
    assert bias.changed == 20 and bias.observed[0] == 60 and bias.expected[0] == pytest.approx(20)


@pytest.mark.parametrize(
    ("refuse", "missing", "there"),
    [
        (
            {"response_format": "response_format json_schema is not supported"},
            "response_format",
            "temperature",
        ),
        ({"logprobs": "this model does not support logprobs"}, "logprobs", "response_format"),
        ({"temperature": "temperature is fixed for this model"}, "temperature", "logprobs"),
        ({"max_tokens": "use max_completion_tokens instead"}, "max_tokens", "max_completion_tokens"),
    ],
)
def test_what_an_endpoint_lacks_is_left_out(
    ready: Store, task: Task, folder: Path, teacher: Teacher, refuse: dict[str, str], missing: str, there: str
) -> None:
    teacher.refuse = refuse
    assert label(task, ready, plan_labels(task, ready), folder).usable == 30
    assert missing not in teacher.bodies[-1] and there in teacher.bodies[-1]


def test_a_rate_limit_holds_all_requests_back_for_as_long_as_it_says(
    ready: Store, task: Task, folder: Path, teacher: Teacher
) -> None:
    import time

    teacher.fail = [(429, {"retry-after": "1"})]
    began = time.perf_counter()
    assert label(with_teacher(task, concurrency=1), ready, plan_labels(task, ready), folder).usable == 30
    assert time.perf_counter() - began >= 1.0
    assert sum(teacher.asked.values()) == 31


def test_requests_a_minute_are_respected(ready: Store, task: Task, folder: Path, teacher: Teacher) -> None:
    import asyncio

    from fingerpost.llm.client import ChatModel

    limited = with_teacher(task, requests_per_minute=5, concurrency=8).teacher
    assert limited is not None

    async def answered() -> int:
        """How many of eight requests are answered, a second after the first five were."""
        async with ChatModel(limited, folder) as model:
            asks = [asyncio.create_task(model.ask([{"role": "user", "content": str(i)}], {})) for i in range(8)]
            while sum(ask.done() for ask in asks) < 5:
                await asyncio.sleep(0.05)
            done, pending = await asyncio.wait(asks, timeout=1)
            for ask in pending:
                ask.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
            return len(done)

    assert asyncio.run(answered()) == 5


def test_a_broken_connection_counts_in_full_and_is_asked_again(
    ready: Store, task: Task, folder: Path, teacher: Teacher
) -> None:
    teacher.drop = 1
    planned = plan_labels(task, ready)
    assert label(with_teacher(task, concurrency=1), ready, planned, folder).usable == 30
    account = ready.ledger.account()
    assert account.uncertain == 1 and account.committed_usd > 30 * COST
    teacher.drop = 1000
    with pytest.raises(TeacherError, match="lost 3 times"):
        label(
            with_teacher(task, concurrency=1),
            ready,
            plan_labels(task, ready, LabelSelection(again=False, votes=2)),
            folder,
        )


@pytest.mark.parametrize("status", [500, 502, 504, 408])
def test_what_may_have_been_charged_counts_in_full(
    ready: Store, task: Task, folder: Path, teacher: Teacher, status: int
) -> None:
    teacher.fail = [(status, {})]
    assert label(with_teacher(task, concurrency=1), ready, plan_labels(task, ready), folder).usable == 30
    assert ready.ledger.account().uncertain == 1


def test_a_server_that_is_too_busy_has_charged_nothing(
    ready: Store, task: Task, folder: Path, teacher: Teacher
) -> None:
    teacher.fail = [(503, {"retry-after": "0.1"})]
    assert label(task, ready, plan_labels(task, ready), folder).usable == 30
    assert ready.ledger.account().uncertain == 0


def test_an_empty_answer_is_charged(ready: Store, task: Task, folder: Path, teacher: Teacher) -> None:
    teacher.reply, teacher.usage = "", None
    with pytest.raises(TeacherError, match="names a label"):
        label(task, ready, plan_labels(task, ready), folder)
    assert ready.ledger.account().committed_usd > 0


def test_more_cached_tokens_than_tokens_cost_no_less_than_nothing(
    ready: Store, task: Task, folder: Path, teacher: Teacher
) -> None:
    teacher.usage = {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 500}}
    label(task, ready, plan_labels(task, ready), folder)
    assert ready.ledger.account().committed_usd == pytest.approx(30 * (10 * 0.5 + 5 * 4.0) / 1e6)


def test_a_known_model_behind_a_local_proxy_is_not_taken_for_free(ready: Store, task: Task) -> None:
    assert plan_labels(with_teacher(task, prices=None, model="gpt-4.1-mini"), ready).at_most_usd > 0
    assert plan_labels(with_teacher(task, prices=None, model="my-own-model"), ready).at_most_usd == 0


def test_the_budget_stops_it_and_a_higher_one_goes_on(ready: Store, task: Task, folder: Path, teacher: Teacher) -> None:
    at_most = plan_labels(task, ready, LabelSelection(limit=1)).at_most_usd
    budget = at_most + 4 * COST
    done = label(task, ready, plan_labels(task, ready), folder, budget_usd=budget)
    assert done.stopped == "budget" and 1 <= done.done < 30
    assert ready.ledger.account().committed_usd <= budget
    with pytest.raises(BudgetError, match="raise --budget"):
        label(task, ready, plan_labels(task, ready), folder, budget_usd=COST)
    assert label(task, ready, plan_labels(task, ready), folder, budget_usd=1.0).stopped == ""
    assert teacher.answered == Counter({question_text(i): 1 for i in range(30)})


def test_without_token_counts_the_most_is_booked(ready: Store, task: Task, folder: Path, teacher: Teacher) -> None:
    teacher.usage = None
    planned = plan_labels(task, ready)
    label(task, ready, planned, folder)
    assert ready.ledger.account().committed_usd == pytest.approx(planned.at_most_usd)


def test_the_bill_is_never_more_than_the_plan_says(ready: Store, task: Task, folder: Path, teacher: Teacher) -> None:
    planned: LabelPlan = plan_labels(task, ready)
    size = len(str(teacher.bodies))
    label(task, ready, planned, folder)
    assert all(len(str(body["messages"]).encode()) > USAGE["prompt_tokens"] for body in teacher.bodies) and size == 2
    assert ready.ledger.account().committed_usd <= planned.at_most_usd


def test_nonsense_is_kept_as_no_answer_and_stops_it_early(
    ready: Store, task: Task, folder: Path, teacher: Teacher
) -> None:
    teacher.reply = "Sure! I would say billing."
    with pytest.raises(TeacherError, match="none of the teacher's 1[0-9] replies names a label .*Sure!"):
        label(task, ready, plan_labels(task, ready), folder)
    kept = [each for mine in ready.verdicts().values() for each in mine]
    assert 10 <= len(kept) < 20 and all(each.label is None and each.raw for each in kept)
    teacher.reply = None
    rest = len(plan_labels(task, ready).jobs)
    assert rest == 30 - len(kept)
    assert label(task, ready, plan_labels(task, ready, LabelSelection(retry=True)), folder).usable == 30


def test_a_refused_question_is_not_asked_for_ever(ready: Store, task: Task, folder: Path, teacher: Teacher) -> None:
    teacher.fail = [(400, {})]
    done = label(task, ready, plan_labels(task, ready), folder)
    assert (done.usable, done.unusable) == (29, 1)
    assert len(plan_labels(task, ready).jobs) == 0


def test_another_prompt_is_asked_only_when_wanted(ready: Store, task: Task, folder: Path, teacher: Teacher) -> None:
    label(task, ready, plan_labels(task, ready), folder)
    changed = task.model_copy(update={"instructions": "Route with care."})
    assert len(plan_labels(changed, ready).jobs) == 0
    assert len(plan_labels(changed, ready, LabelSelection(again=True)).jobs) == 30


def test_teachers_that_cannot_be_used(
    ready: Store, task: Task, folder: Path, monkeypatch: pytest.MonkeyPatch, teacher: Teacher
) -> None:
    def fails(match: str, **changes: Any) -> None:
        other = with_teacher(task, **changes)
        with pytest.raises(TeacherError, match=match):
            label(other, ready, plan_labels(other, ready), folder)

    fails("cannot be reached", base_url="http://127.0.0.1:9/v1")
    fails("there is no recording", recorded="none.jsonl")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    fails("set the environment variable OPENAI_API_KEY", base_url="http://example.invalid/v1")
    fails("no price is known", base_url="http://example.invalid/v1", prices=None)
    fails("no model file", gguf="none.gguf")
    for status, match in ((401, "refuses the API key"), (404, "404"), (402, "402")):
        teacher.fail = [(status, {})] * 8
        fails(match)
    assert ready.verdicts() == {} and ready.ledger.account().committed_usd == pytest.approx(0)


def test_answers_can_be_recorded_and_played_back(
    ready: Store, task: Task, folder: Path, teacher: Teacher, tmp_path_factory: pytest.TempPathFactory
) -> None:
    label(task, ready, plan_labels(task, ready), folder, record=folder / "answers.jsonl")
    asked = sum(teacher.asked.values())
    replayed = with_teacher(task, recorded="answers.jsonl")
    with Store(tmp_path_factory.mktemp("replay") / "db") as other:
        import_file(other, task, folder / "q.txt")
        assert label(replayed, other, plan_labels(replayed, other), folder).usable == 30
        for key, (verdict,) in other.verdicts().items():
            (live,) = ready.verdicts()[key]
            assert (verdict.label, verdict.raw, verdict.logprob) == (live.label, live.raw, live.logprob)
            assert verdict.usage.latency_s == pytest.approx(live.usage.latency_s, abs=0.001)
        changed = replayed.model_copy(update={"instructions": "Something else."})
        with pytest.raises(TeacherError, match="record again"):
            label(changed, other, plan_labels(changed, other, LabelSelection(again=True)), folder)
    assert sum(teacher.asked.values()) == asked


def test_ctrl_c_lets_the_answers_in_flight_arrive(folder: Path, teacher: Teacher, cli: Cli, task: Task) -> None:
    import os
    import signal
    import subprocess
    import sys
    import time

    write_questions(folder / "q.txt", 200)
    assert cli("import", "q.txt").returncode == 0
    teacher.delay_s = 0.1
    run = subprocess.Popen([sys.executable, "-m", "fingerpost", "label", "--yes"], cwd=folder, env=os.environ,
                           stdout=subprocess.PIPE, text=True)  # fmt: skip
    while sum(teacher.answered.values()) < 20:
        time.sleep(0.02)
    teacher.delay_s = 2  # so that many questions are still open when the signal arrives
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=HOUR)
    assert run.returncode == 130 and "run the command again to continue" in output
    with Store(folder / "fingerpost.db") as store:
        assert len(store.verdicts()) == sum(teacher.answered.values()) < 200
        assert store.ledger.account().uncertain == 0


def test_a_recording_whose_last_line_is_torn_goes_on(ready: Store, task: Task, folder: Path, teacher: Teacher) -> None:
    file = folder / "answers.jsonl"
    label(task, ready, plan_labels(task, ready, LabelSelection(limit=4)), folder, record=file)
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:-1], lines[-1][:20]]))  # cut off in a kill
    label(task, ready, plan_labels(task, ready, LabelSelection(limit=1)), folder, record=file)
    lines = file.read_text().splitlines()
    assert len(lines) == 4
    file.write_text("\n".join(lines))  # whole, but without the end of the line
    label(task, ready, plan_labels(task, ready, LabelSelection(limit=1)), folder, record=file)
    assert file.read_text().splitlines()[:4] == lines and len(file.read_text().splitlines()) == 5
