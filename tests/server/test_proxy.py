"""The proxy: everything passes through unchanged, decisions are learnt, taken over, checked and given back."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import httpx2
import openai
import pytest
from command_line import run_subprocess
from serving import MINUTES, Serving, wait
from teacher import Teacher, words

from fingerpost.store.server import DATABASE, ServerStore
from fingerpost.store.server_rows import DecisionCounts, DecisionRow

LABELS = ["billing", "delivery", "other"]
SCHEMA = {"type": "object", "properties": {"action": {"type": "string", "enum": LABELS}}, "required": ["action"],
          "additionalProperties": False}  # fmt: skip
FORM: Any = {"type": "json_schema", "json_schema": {"name": "route_message", "strict": True, "schema": SCHEMA}}
SYSTEM = (
    "Route the message.\n- billing: invoices and payments\n- delivery: parcels and couriers\n- other: anything else"
)


@contextmanager
def proxied(folder: Path, upstream: str, *more: str, **environment: str) -> Iterator[Serving]:
    with Serving(folder / "served", "--upstream", upstream, *more, **environment) as server:
        yield server


def text(number: int) -> str:
    """A message whose label the teacher reads from it."""
    return f"{words(number)} {LABELS[number % 3]} {words(number + 10_000)}"


def ask(client: openai.OpenAI, number: int, form: Any = FORM, system: str = SYSTEM, **more: Any) -> Any:
    turns: Any = [{"role": "system", "content": system}, {"role": "user", "content": text(number)}]
    options = {"response_format": form} if form is not None else {}
    return client.chat.completions.with_raw_response.create(model="gpt-big", messages=turns, **options, **more)


def answer(raw: Any) -> str:
    return str(json.loads(raw.parse().choices[0].message.content)["action"])


def rows(server: Serving) -> list[tuple[DecisionRow, DecisionCounts]]:
    store = ServerStore(server.folder / DATABASE)
    try:
        return [(row, store.decision_counts(row.id)) for row in store.decisions()]
    finally:
        store.close()


def ask_many(client: openai.OpenAI, numbers: range, **more: Any) -> list[Any]:
    found: dict[int, Any] = {}

    def work(part: range) -> None:
        for number in part:
            found[number] = ask(client, number, **more)

    threads = [threading.Thread(target=work, args=(numbers[start::8],)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[number] for number in numbers]


@pytest.fixture(scope="module")
def behind(student: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Serving, Serving]]:
    """A server of ours as the endpoint, and another one in front of it."""
    folder = tmp_path_factory.mktemp("behind")
    with Serving(folder / "upstream", f"gpt-big={student}") as upstream, proxied(folder, upstream.url) as front:
        yield upstream, front


def test_what_is_no_decision_passes_through_unchanged(behind: tuple[Serving, Serving]) -> None:
    upstream, front = behind
    sent = {"model": "gpt-big", "messages": [{"role": "user", "content": "my invoice is wrong"}], "logprobs": True}
    through = front.post("/v1/chat/completions", sent)
    direct = upstream.post("/v1/chat/completions", sent)
    varying = ("id", "created")
    assert {**through.json(), **dict.fromkeys(varying)} == {**direct.json(), **dict.fromkeys(varying)}
    assert through.headers["x-fingerpost-by"] == "upstream"
    assert through.headers.get_list("x-request-id") != [] and len(through.headers.get_list("x-request-id")) == 1
    with front.client() as client:
        file = client.files.create(file=("x.jsonl", b"{}\n" * 1000), purpose="batch")
        assert client.files.content(file.id).content == b"{}\n" * 1000
        assert [one.id for one in client.files.list()] == [file.id]
        with pytest.raises(openai.NotFoundError):
            client.files.retrieve("file-none")
        assert upstream.client().files.retrieve(file.id).id == file.id
        chunks = list(
            client.chat.completions.create(model="gpt-big", messages=sent["messages"], stream=True)  # type: ignore[arg-type, call-overload]
        )
        assert "billing" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        response = client.responses.create(model="gpt-big", input="my invoice is wrong")
        assert client.responses.retrieve(response.id).output_text == response.output_text
    assert rows(front) == []


def test_the_same_decision_on_both_wires_streamed_and_as_a_tool(behind: tuple[Serving, Serving]) -> None:
    _, front = behind
    tool = {"name": "route_message", "parameters": SCHEMA}
    with front.client() as client:
        for stream in (False, True):
            raw = ask(client, 0, stream=stream)
            assert raw.headers["x-fingerpost-by"] == "upstream"
            if stream:
                list(raw.parse())
        client.responses.create(model="gpt-big", input=text(1), instructions=SYSTEM,
                                text={"format": {"type": "json_schema", **FORM["json_schema"]}})  # fmt: skip
        found = rows(front)
        assert [(row.name, row.version, counts.answers) for row, counts in found] == [("route-message", 1, 3)]
        for choice in ({"type": "function", "function": {"name": "route_message"}}, "required"):
            ask(client, 2, form=None, tools=[{"type": "function", "function": tool}], tool_choice=choice)
        client.responses.create(model="gpt-big", input=text(3), instructions=SYSTEM, stream=False,
                                tools=[{"type": "function", "strict": True, **tool}], tool_choice="required")  # fmt: skip
    found = rows(front)
    assert [(row.name, counts.answers) for row, counts in found][1:] == [("route-message-2", 3)]
    assert found[0][0].labels == LABELS and found[0][0].mode == "observe"


def test_another_prompt_or_list_of_labels_is_another_version(behind: tuple[Serving, Serving]) -> None:
    _, front = behind
    before = len(rows(front))
    more = {**SCHEMA, "properties": {"action": {"type": "string", "enum": [*LABELS, "refund"]}}}
    changed = {"type": "json_schema", "json_schema": {"name": "x_route", "schema": more}}
    with front.client() as client:
        for number in range(3):
            ask(client, number, form={"type": "json_schema", "json_schema": {"name": "x_route", "schema": SCHEMA}},
                system=f"{SYSTEM}\nToday is day {number}.")  # fmt: skip
        for system in (SYSTEM, "Entirely different words decide now what this message wants from our shop"):
            ask(
                client,
                1,
                form={"type": "json_schema", "json_schema": {"name": "x_route", "schema": SCHEMA}},
                system=system,
            )
        ask(client, 1, form=changed)
    new = [(row.name, row.version, len(row.labels)) for row, _ in rows(front)][before:]
    assert new == [("x-route", 1, 3), ("x-route", 2, 3), ("x-route", 3, 3), ("x-route", 4, 4)]


def test_a_key_of_the_server_does_not_leave_it(student: Path, tmp_path: Path, teacher: Teacher) -> None:
    (tmp_path / "served").mkdir()
    store = ServerStore(tmp_path / "served" / DATABASE)
    key = store.add_key("app")
    store.close()
    with proxied(tmp_path, teacher.base_url, "--require-keys") as server:
        with server.client(key) as client, pytest.raises(openai.AuthenticationError, match="FINGERPOST_UPSTREAM_KEY"):
            ask(client, 0)
        with server.client("sk-theirs") as client:
            assert answer(ask(client, 0)) == "billing"
            with pytest.raises(openai.APIStatusError):
                client.fine_tuning.jobs.retrieve("ftjob-none")
    house = {"FINGERPOST_UPSTREAM_KEY": "sk-house"}
    with (
        proxied(tmp_path, teacher.base_url, "--require-keys", **house) as server,
        server.client(key) as client,
    ):
        assert answer(ask(client, 1)) == "delivery"
    assert [one for one in teacher.keys if "fp-" in one] == []
    assert {"Bearer sk-theirs", "Bearer sk-house"} <= set(teacher.keys)
    for file in (tmp_path / "served").rglob("*"):
        if file.is_file():
            assert b"sk-theirs" not in file.read_bytes() and b"sk-house" not in file.read_bytes()


def test_the_upstream_endpoint_is_down(tmp_path: Path) -> None:
    with (
        proxied(tmp_path, "http://127.0.0.1:9/v1") as server,
        server.client() as client,
        pytest.raises(openai.InternalServerError, match="cannot be reached"),
    ):
        ask(client, 0)


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server with this handler, in a thread of its own."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


@contextmanager
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The URL of a receiver of events, and the events."""
    events: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            events.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with listening(Receiver) as address:
        yield address, events


@pytest.mark.slow
def test_a_decision_is_learnt_taken_over_checked_and_given_back(tmp_path: Path, teacher: Teacher) -> None:
    with webhook() as (url, events):
        life_of_a_decision(tmp_path, teacher, url, events)


def life_of_a_decision(folder: Path, teacher: Teacher, url: str, events: list[dict[str, Any]]) -> None:
    options = ("--auto", "--disagreement", "0.1", "--webhook", url)
    with proxied(folder, teacher.base_url, *options) as server, server.client() as client:
        for raw in ask_many(client, range(240)):
            assert raw.headers["x-fingerpost-by"] == "upstream"
        trained = wait(lambda: next((row for row, _ in rows(server) if row.training.get("cutoff")), None))
        assert trained.training["at_least"] >= 0.9
        numbers = iter(range(1_000, 100_000, 40))

        def in_service() -> bool:
            start = next(numbers)
            ask_many(client, range(start, start + 40))
            return rows(server)[0][0].mode == "on"

        wait(in_service)
        taken = ask_many(client, range(200_000, 200_200))
        by_student = [raw for raw in taken if raw.headers["x-fingerpost-by"].startswith("student")]
        assert len(by_student) > 100
        right = [answer(raw) == LABELS[number % 3] for number, raw in zip(range(200_000, 200_200), taken, strict=True)]
        assert sum(right) > 180
        assert (server.folder / "decisions" / "route-message" / "task.toml").is_file()
        teacher.reply = '{"action": "other"}'  # the vendor has changed its model

        def given_back() -> bool:
            start = next(numbers)
            ask_many(client, range(start, start + 40))
            return rows(server)[0][0].alarm is not None

        wait(given_back)
        row, counts = rows(server)[0]
        assert row.mode in ("shadow", "canary", "on") and counts.by_student > 100
        assert "differ from the upstream's" in str(row.alarm)
        (event,) = wait(lambda: [one for one in events if one["type"] == "decision.alarm"])
        assert event["data"] == {"id": "route-message"}
        listed = run_subprocess(("decisions", "--data", str(server.folder)), folder, "", {}).stdout
        assert all(part in listed for part in ("route-message: ", "proven: ", "shadow: ", "next: ")), listed


def test_a_kill_loses_no_answer_that_was_delivered(tmp_path: Path, teacher: Teacher) -> None:
    teacher.delay_s = 0.002
    delivered: list[int] = []
    with proxied(tmp_path, teacher.base_url) as server:

        def work(start: int) -> None:
            with httpx2.Client(timeout=MINUTES) as client:
                for number in range(start, start + 10_000, 4):
                    turns = [{"role": "user", "content": text(number)}]
                    try:
                        client.post(
                            f"{server.url}/chat/completions",
                            json={"model": "m", "messages": turns, "response_format": FORM},
                        ).raise_for_status()
                    except httpx2.HTTPError:
                        return
                    delivered.append(number)

        threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
        for thread in threads:
            thread.start()
        wait(lambda: len(delivered) > 100)
        server.kill()
        for thread in threads:
            thread.join()
        server.start()
        store = ServerStore(server.folder / DATABASE)
        logged = {entry.messages[-1].content for _, entry in store.decision_log(1)}
        store.close()
    assert {text(number) for number in delivered} <= logged


def test_streams_are_not_held_back_and_many_connections_stay_open(tmp_path: Path) -> None:
    """An endpoint that sends one part every 50 ms, to 200 clients at once."""
    import asyncio

    part, parts, gap = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n', 5, 0.05

    async def endpoint(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(next(line.split(b":")[1] for line in head.lower().split(b"\r\n") if b"content-length" in line))
        await reader.readexactly(length)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        for _ in range(parts):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(gap)
        writer.write(b"data: [DONE]\n\n")
        await writer.drain()
        writer.close()

    async def one(client: httpx2.AsyncClient, url: str, decision: bool) -> tuple[float, float, bytes]:
        began, first, body = time.perf_counter(), 0.0, b""
        sent: dict[str, Any] = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}]}
        sent |= {"response_format": FORM} if decision else {}
        async with client.stream("POST", f"{url}/chat/completions", json=sent) as response:
            async for received in response.aiter_raw():
                first = first or time.perf_counter() - began
                body += received
        return first, time.perf_counter() - began, body

    async def all_at_once() -> list[tuple[float, float, bytes]]:
        server = await asyncio.start_server(endpoint, "127.0.0.1", 0, backlog=500)
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        with proxied(tmp_path, address) as front:
            async with httpx2.AsyncClient(timeout=MINUTES, limits=httpx2.Limits(max_connections=None)) as client:
                found = await asyncio.gather(*(one(client, front.url, number % 2 == 0) for number in range(200)))
        server.close()
        return found

    found = asyncio.run(all_at_once())
    assert all(body == part * parts + b"data: [DONE]\n\n" for _, _, body in found)
    assert all(first < whole - gap for first, whole, _ in found)


class Scripted(BaseHTTPRequestHandler):
    """An endpoint that answers with what the test has put into `reply`, and keeps the requests."""

    protocol_version = "HTTP/1.1"
    reply: tuple[int, dict[str, str], bytes] = (200, {"content-type": "application/json"}, b"{}")
    asked: ClassVar[list[tuple[str, str, dict[str, str], bytes]]] = []

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.asked.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        status, headers, content = type(self).reply
        if self.path.endswith("/models") and not self.headers.get("authorization"):
            status, content = 401, b"{}"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_DELETE = _answer

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def scripted() -> Iterator[tuple[str, type[Scripted]]]:
    class Mine(Scripted):
        asked: ClassVar[list[tuple[str, str, dict[str, str], bytes]]] = []

    with listening(Mine) as address:
        yield f"{address}tenant/v1", Mine


def test_what_one_caller_gets_does_not_reach_another(tmp_path: Path, scripted: tuple[str, type[Scripted]]) -> None:
    url, endpoint = scripted
    with proxied(tmp_path, url) as server:
        endpoint.reply = (200, {"content-type": "text/plain", "set-cookie": "session=secret; path=/"}, b"hello")
        first = server.get("/v1/things?a=%2F1", **{"x-mine": "one", "x-fingerpost-decision": "no"})
        assert first.headers["set-cookie"].startswith("session=secret") and first.text == "hello"
        assert len(first.headers.get_list("date")) == 1
        server.get("/v1/things")
        (_, path, headers, _), (_, _, second, _) = endpoint.asked
        assert path == "/tenant/v1/things?a=%2F1" and headers["x-mine"] == "one"
        assert "cookie" not in second and "x-fingerpost-decision" not in headers
        for sneaky in ("/v1/%2e%2e/other/keys", "/v1/a/%2E%2E/b", "/v1/..%2f..%2fother", "/v1/x%5c..%5cy"):
            answer = server.get(sneaky)
            assert answer.status_code in (400, 404), sneaky
        assert len(endpoint.asked) == 2


def test_odd_answers_reach_the_client_whole(tmp_path: Path, scripted: tuple[str, type[Scripted]]) -> None:
    url, endpoint = scripted
    json_type = {"content-type": "application/json"}
    odd = [
        {
            "choices": [{"message": {"content": [{"type": "text", "text": "{}"}]}}],
            "usage": {"prompt_tokens_details": [1]},
        },
        {"choices": [{"message": {"tool_calls": [{"function": {"name": 3, "arguments": {}}}]}}], "usage": "much"},
        {"choices": []},
        [],
    ]
    with proxied(tmp_path, url) as server:
        for value in odd:
            endpoint.reply = (200, json_type, json.dumps(value).encode())
            assert server.ask("x", response_format=FORM).json() == value
        endpoint.reply = (200, json_type, b"no JSON")
        assert server.ask("x", response_format=FORM).text == "no JSON"
        endpoint.reply = (429, {**json_type, "retry-after": "7"}, b'{"error": {"message": "slow down"}}')
        refused = server.ask("x", response_format=FORM)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "7")
        big = b"x" * 6_000_000
        endpoint.reply = (200, {"content-type": "audio/mpeg"}, big)
        assert httpx2.post(f"{server.url}/audio/speech", content=big, timeout=MINUTES).content == big
        assert endpoint.asked[-1][3] == big


def test_strangers_neither_pass_nor_fill_the_list(tmp_path: Path, scripted: tuple[str, type[Scripted]]) -> None:
    url, endpoint = scripted
    (tmp_path / "served").mkdir()
    store = ServerStore(tmp_path / "served" / DATABASE)
    store.add_key("app")
    store.close()
    with proxied(tmp_path, url, "--require-keys") as server:
        assert server.ask("x").status_code == 401 and not endpoint.asked
        endpoint.reply = (401, {"content-type": "application/json"}, b'{"error": {"message": "who?"}}')
        for number in range(5):
            headers = {"authorization": "Bearer sk-wrong", "x-fingerpost-decision": f"junk-{number}"}
            assert server.post("/v1/chat/completions", {"model": "m", "messages": []} | {"messages": [
                {"role": "user", "content": "x"}]}, **headers).status_code == 401  # fmt: skip
        assert rows(server) == []


def test_an_endpoint_without_keys_proves_nobody(tmp_path: Path, teacher: Teacher) -> None:
    """The test teacher lists nothing; a server of ours does, without a key."""
    with Serving(tmp_path / "open") as upstream:
        (tmp_path / "served").mkdir()
        store = ServerStore(tmp_path / "served" / DATABASE)
        store.add_key("app")
        store.close()
        with proxied(tmp_path, upstream.url, "--require-keys") as server:
            assert server.get("/v1/models", authorization="Bearer any").status_code == 401
