"""The fixed panel of a decision, prompts whose replies repeat, and what an alarm puts into the review queue."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from command_line import run_subprocess
from conftest import question_text
from serving import Serving, wait
from teacher import Teacher, words
from test_loop import LABELS, Logged

from fingerpost.core.types import Message, Usage
from fingerpost.project import Project
from fingerpost.server.jobs.webhook import _event_of
from fingerpost.server.loop.panel import Panel, PanelRunner, panel_of
from fingerpost.server.loop.projects import queue_disagreements
from fingerpost.server.loop.recognition import ObservedReply, recognise
from fingerpost.server.loop.repeated_prompts import FEWEST, MOST_REPLIES, RepeatedPrompts
from fingerpost.server.loop.summary import summarise
from fingerpost.server.loop.typed_questions import asked_questions, recognise_question
from fingerpost.server.loop.upstream import Upstream
from fingerpost.server.schemas import ChatRequest
from fingerpost.store.server import DATABASE, ServerStore
from fingerpost.store.server_rows import LoggedTeacherReply, RequestLogEntry

SCHEMA = {"type": "object", "properties": {"action": {"enum": LABELS}}, "required": ["action"]}
FORM = {"type": "json_schema", "json_schema": {"name": "ticket", "schema": SCHEMA}}


def request(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "big", "messages": [{"role": "user", "content": text}], "response_format": FORM, **more}


def panel_of_requests(count: int) -> Panel:
    panel = Panel()
    for number in range(count):
        recognised = recognise("chat", request(question_text(number), stream=True), None)
        assert recognised is not None and panel.add_request(recognised, LABELS[number % 3], None)
    return panel


def test_requests_are_kept_once_redacted_and_without_their_stream() -> None:
    panel = panel_of_requests(2)
    assert [one["path"] for one in panel.requests] == ["/v1/chat/completions"] * 2
    assert "stream" not in panel.requests[0]["body"] and panel.requests[0]["label"] == "billing"
    again = recognise("chat", request(question_text(0)), None)
    assert again is not None and not panel.add_request(again, "billing", None)
    large = recognise("chat", request("x" * 30_000), None)
    assert large is not None and not panel.add_request(large, "billing", None)
    secret = recognise("chat", request("my card is 4711"), None)
    assert secret is not None and panel.add_request(secret, "billing", lambda text: text.replace("4711", "#"))
    assert "4711" not in json.dumps(panel.requests) and panel.requests[-1]["body"]["response_format"] == FORM
    body = {
        "model": "m",
        "state": {"card": ["4711"]},
        "questions": {"q": {"type": "noul", "instructions": "is 4711 his?"}},
    }
    asked = asked_questions("/v1/systemone", body)
    assert asked is not None
    typed = recognise_question(asked, 0, None, body)
    assert panel.add_request(typed, "true", lambda text: text.replace("4711", "#"))
    assert "4711" not in json.dumps(panel.requests)


def test_answers_that_change_more_than_by_chance_are_another_model() -> None:
    panel = panel_of_requests(50)
    same: list[str | None] = [str(one["label"]) for one in panel.requests]
    assert not panel.add_answers([*["other"] * 2, *same[2:]], "big")  # the noise: two of them
    assert panel.limit < 0.2
    for _ in range(20):
        assert not panel.add_answers([None, *same[1:]], "big")
    changed: list[str | None] = ["other"] * 50
    assert panel.add_answers(changed, "big") or panel.add_answers(changed, "big")
    assert panel.alarm is not None and "repeated requests got a different answer from big" in panel.alarm
    assert panel.repeated is None and [one["label"] for one in panel.requests] == changed


def test_the_panel_is_put_to_the_endpoint(tmp_path: Path, teacher: Teacher) -> None:
    logged = Logged(tmp_path / "served", path=("action",))
    panel = panel_of_requests(12)
    logged.store.put_panel(logged.row.id, asdict(panel))
    store = logged.store

    async def repeat() -> None:
        upstream = Upstream(teacher.base_url)
        runner = PanelRunner(store, upstream, 12, "sk-upstream", 0.0)
        await runner._next()
        await upstream.close()

    asyncio.run(repeat())
    stored = panel_of(store.get_panel(logged.row.id))
    assert teacher.keys == {"Bearer sk-upstream": 12} and stored.repeated is not None and stored.alarm is None
    teacher.fail = [(500, {})] * 12
    asyncio.run(repeat())
    assert panel_of(store.get_panel(logged.row.id)).outcomes == []
    teacher.reply = '{"action": "billing"}'
    for _ in range(4):
        asyncio.run(repeat())
    (row,) = store.decisions()
    assert row.upstream_alarm is not None and not row.upstream_announced and row.announced
    assert summarise(store, row, logged.folder).panel == 12
    store.change_decision(row.id, announced=False, alarm="drift")  # both alarms are told, one after the other
    told = []
    while rows := store.unannounced():
        told.append(_event_of(rows[0])[0])  # type: ignore[arg-type]
        store.mark_announced(rows[0])
    assert told == ["decision.upstream_changed", "decision.alarm"]


@pytest.mark.slow
def test_a_served_panel(tmp_path: Path, teacher: Teacher) -> None:
    options = ("--upstream", teacher.base_url, "--panel", "3")
    with Serving(tmp_path / "served", *options, FINGERPOST_UPSTREAM_KEY="sk-up") as front, front.client() as client:
        for number in range(4):
            client.chat.completions.create(**request(question_text(number)))

        def repeated() -> bool:
            store = ServerStore(front.folder / DATABASE)
            try:
                return any(panel_of(store.get_panel(row.id)).repeated for row in store.decisions())
            finally:
                store.close()

        wait(repeated)
    assert teacher.keys["Bearer sk-up"] == 3
    refused = run_subprocess(("serve", "--upstream", teacher.base_url, "--panel", "3"), tmp_path, "", {})
    assert refused.returncode == 2 and "FINGERPOST_UPSTREAM_KEY" in refused.stderr


@pytest.mark.slow
def test_a_prompt_whose_replies_repeat_is_announced(tmp_path: Path, teacher: Teacher) -> None:
    with Serving(tmp_path / "served", "--upstream", teacher.base_url) as front, front.client() as client:
        for number in range(FEWEST):
            turns: Any = [
                {"role": "system", "content": f"Sort the mail of {words(0)}, today 2026-11-{1 + number % 28}."},
                {"role": "user", "content": f"{LABELS[number % 3]} {words(number)}"},
            ]
            client.chat.completions.create(model="big", messages=turns)
        listed = run_subprocess(("decisions", "--data", str(front.folder)), tmp_path, "", {}).stdout
        assert 'possible decision: the prompt "Sort the mail' in listed and "billing, delivery, other" in listed
        for _ in range(3):
            client.chat.completions.create(model="big", messages=turns, extra_headers={"x-fingerpost-decision": "mail"})
        listed = run_subprocess(("decisions", "--data", str(front.folder)), tmp_path, "", {}).stdout
        assert "mail: observe" in listed and "possible decision" not in listed


def test_free_text_is_not_watched_for_long(tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    store = ServerStore(tmp_path / "served" / DATABASE)
    watched = RepeatedPrompts(store, None)
    system = {"role": "system", "content": "Be kind."}
    asked = ChatRequest(model="big", messages=[system, {"role": "user", "content": "hello"}])  # type: ignore[list-item]
    bare = ChatRequest(model="big", messages=[{"role": "user", "content": "hello"}])  # type: ignore[list-item]
    assert not watched.watches(bare)
    watched.add(asked, ObservedReply("word " * 100))
    assert not watched.watches(asked)
    other = ChatRequest(model="small", messages=[system, {"role": "user", "content": "hello"}])  # type: ignore[list-item]
    for number in range(FEWEST):
        assert watched.watches(other) or number > FEWEST // 2
        watched.add(other, ObservedReply(f"a different answer, {words(number)}"))
    assert not watched.watches(other) and store.repeated_prompts() == []
    polite = ChatRequest(model="polite", messages=[system, {"role": "user", "content": "hello"}])  # type: ignore[list-item]
    for _ in range(MOST_REPLIES + 1):
        watched.add(polite, ObservedReply("OK"))
    assert not watched.watches(polite)


def test_what_raised_an_alarm_leads_the_review_queue(tmp_path: Path) -> None:
    logged = Logged(tmp_path / "served")
    logged.add(logged.row, range(200))
    row = logged.learn(logged.row)

    def entry(number: int, student: str, confidence: float) -> RequestLogEntry:
        label = LABELS[number % 3]
        teacher = LoggedTeacherReply("big", label, f'{{"queue": "{label}"}}', None, Usage())
        messages = (Message("user", question_text(number)),)
        return RequestLogEntry(
            f"new_{number}",
            number,
            None,
            "big",
            messages,
            student,
            confidence,
            "student",
            0.1,
            teacher,
            row.id,
            student,
        )

    cutoff = float(row.training["cutoff"])
    logged.store.add_log_entries(
        [
            *(entry(number, LABELS[(number + 1) % 3], 1.0) for number in range(300, 304)),
            entry(310, LABELS[311 % 3], cutoff / 2),  # unsure
            entry(320, LABELS[320 % 3], 1.0),  # agreed
        ]
    )
    known = next(one for one in Project(logged.folder / "ticket").store().questions("train"))
    number = int(str(next(i for i in range(200) if question_text(i) == known.messages[-1].content)))
    logged.store.add_log_entries([entry(number, LABELS[(number + 1) % 3], 1.0)])
    assert queue_disagreements(logged.store, row, logged.folder) == 5
    project = Project(logged.folder / "ticket")
    with project.store() as store:
        queue = project.review(store, "ann")
        first = []
        for _ in range(6):
            card = queue.next()
            assert card is not None
            first.append(card)
            queue.answer(card.question, str(card.teacher_label))
    texts = {card.question.messages[-1].content for card in first[:5]}
    assert texts == {question_text(one) for one in (*range(300, 304), number)}
    assert "contributed to an alarm" in first[0].reason
    assert "contributed to an alarm" not in first[5].reason


def test_a_broken_response_is_not_asked_again_and_again(
    tmp_path: Path, teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fingerpost.server.loop.panel.POLL_S", 0.01)
    logged = Logged(tmp_path / "served", path=("action",))
    logged.store.put_panel(logged.row.id, asdict(panel_of_requests(12)))
    teacher.payload = (b"", {"content-length": "500"})  # more than comes

    async def twice() -> None:
        upstream = Upstream(teacher.base_url)
        for _ in range(2):
            await PanelRunner(logged.store, upstream, 12, "sk", 3_600.0)._next()
        await upstream.close()

    teacher.raw = [("chat", b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{")] * 12
    teacher.payload = None
    asyncio.run(twice())
    assert teacher.raw == [] and panel_of(logged.store.get_panel(logged.row.id)).asked_at > 0
    assert sum(teacher.answered.values()) == 0


def test_missing_answers_do_not_narrow_the_noise() -> None:
    panel = panel_of_requests(50)
    same: list[str | None] = [str(one["label"]) for one in panel.requests]
    panel.add_answers([*["other"] * 5, *same[5:26], *[None] * 24], "big")
    assert panel.limit > 0.3
