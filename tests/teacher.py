"""A teacher on a real socket, for tests and benchmarks: it counts its requests, and fails on demand.

Run as a program it prints its port and serves until its standard input closes. Arguments: the delay of an answer in
seconds, and a log file that gets one line per answered request.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batches import Batches
from fine_tuning import FineTuning

LABELS = ("billing", "delivery", "other")
MEANS = {"billing": "invoices and payments", "delivery": "parcels and couriers"}
SYLLABLES = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 5,
    "total_tokens": 105,
    "prompt_tokens_details": {"cached_tokens": 60},
}


@dataclass
class Teacher:
    """A chat endpoint that answers with the first label that the last message contains, else with `other`; with all of
    them, if the request's schema asks for a list.

    A request to write questions gets, for each line, a text that contains the label whose meaning (`MEANS`) is in the
    line. It also takes batches and fine-tuning jobs.

    Attributes:
        delay_s: seconds before each answer.
        reply: the content of every answer, in place of the label.
        written: the reply to every request to write questions.
        tool: answer with a tool call in place of a message.
        refuse: field of a request -> the message of the status 400 that requests with this field get.
        fail: (status, headers) of the next requests, in order.
        drop: so many of the next requests get no answer and a closed connection.
        usage, logprob: what answers report; None to leave it out.
        raw: (part of a path, bytes): the next request to such a path gets these bytes, and the connection is closed.
        payload: the bytes of every response, with these headers, in place of a completion.
        drip_s: seconds between any two bytes of a response.
        log: a file that gets one line per answered request.
        asked, answered: number of requests by the text of their last message.
        bodies: the requests, oldest first.
        idempotency_keys: number of requests by their header Idempotency-Key.
        keys: the requests' headers Authorization.
        most_at_once: the highest number of simultaneous requests so far.
    """

    delay_s: float = 0.0
    reply: str | None = None
    written: str | None = None
    tool: bool = False
    refuse: dict[str, str] = field(default_factory=dict)
    fail: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    drop: int = 0
    raw: list[tuple[str, bytes]] = field(default_factory=list)
    payload: tuple[bytes, dict[str, str]] | None = None
    drip_s: float = 0.0
    usage: Any = field(default_factory=lambda: dict(USAGE))
    logprob: float | None = -0.25
    log: Path | None = None
    asked: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    idempotency_keys: Counter[str] = field(default_factory=Counter)
    keys: Counter[str] = field(default_factory=Counter)
    most_at_once: int = 0
    port: int = 0
    batches: Batches = field(default_factory=Batches)
    fine_tuning: FineTuning = field(default_factory=FineTuning)
    _now: int = 0
    _texts: int = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> Teacher:
        """Serve in a thread of its own; returns as soon as it accepts connections."""
        ready = threading.Event()
        self._loop = asyncio.new_event_loop()

        async def serve() -> None:
            self._server = await asyncio.start_server(self._connection, "127.0.0.1", self.port, backlog=1024)
            self.port = self._server.sockets[0].getsockname()[1]
            ready.set()

        def run() -> None:
            self._loop.run_until_complete(serve())
            self._loop.run_forever()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        assert ready.wait(600)
        return self

    def stop(self) -> None:
        """Close all connections and end the thread."""

        async def cancel() -> None:
            self._server.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(cancel(), self._loop).result(600)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(600)
        self._loop.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode("latin-1").split("\r\n")
                headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
                data = await reader.readexactly(int(headers.get("content-length", 0)))
                method, path = lines[0].split()[:2]
                if self.raw and self.raw[0][0] in path:
                    writer.write(self.raw.pop(0)[1])
                    await writer.drain()
                    break
                if not path.endswith(("/chat/completions", "/decisions")):
                    if path.startswith("/v1/fine_tuning/jobs"):
                        status, payload = self.fine_tuning.handle(method, path, data)
                    else:
                        status, payload = await self.batches.handle(method, path, data, self._answer)
                    _send(writer, status, {}, payload)
                    await writer.drain()
                    continue
                body = json.loads(data or b"{}")
                self._now += 1
                self.keys[headers.get("authorization", "")] += 1
                self.idempotency_keys[headers.get("idempotency-key", "")] += 1
                self.most_at_once = max(self.most_at_once, self._now)
                try:
                    answer = await self._answer(body)
                finally:
                    self._now -= 1
                if answer is None:
                    break
                status, extra, content = answer
                payload, more = self.payload or (json.dumps(content).encode(), {})
                if self.drip_s:
                    await self._drip(writer, payload)
                    continue
                _send(writer, status, extra | more, payload)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _drip(self, writer: asyncio.StreamWriter, payload: bytes) -> None:
        _send(writer, 200, {}, b"", len(payload))
        for byte in payload:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(self.drip_s)

    async def _answer(self, body: dict[str, Any]) -> tuple[int, dict[str, str], Any] | None:
        turns = body.get("messages") or body["input"]
        text = turns if isinstance(turns, str) else turns[-1]["content"]
        text = text if isinstance(text, str) else json.dumps(text)
        self.asked[text] += 1
        self.bodies.append(body)
        if self.drop:
            self.drop -= 1
            return None
        if self.fail:
            status, headers = self.fail.pop(0)
            return status, headers, {"error": {"message": f"status {status}", "type": "x", "code": None}}
        for name, message in self.refuse.items():
            if name in body:
                return (
                    400,
                    {},
                    {"error": {"message": message, "type": "invalid_request_error", "param": name}},
                )
        await asyncio.sleep(self.delay_s)
        if "questions" in body:
            self.answered[text] += 1
            answers = [_typed_answer(question, self.reply or text) for question in body["questions"]]
            used = {"input_tokens": 100, "output_tokens": 5, "total_tokens": 105}
            return 200, {}, {"answers": answers, "model": body["model"], "usage": used}
        label = next((label for label in LABELS if label in text), "other")
        content = self.reply if self.reply is not None else json.dumps({"action": label})
        wanted = ((body.get("response_format") or {}).get("json_schema") or {}).get("schema", {}).get("properties", {})
        if wanted.get("action", {}).get("type") == "array" and self.reply is None:
            content = json.dumps({"action": [name for name in LABELS if name in text]})
        if "request" in wanted and self.reply is None:  # the request that a text answers
            content = json.dumps({"request": f"please write about {text.split()[0].strip('.,').lower()}"})
        if "1" in wanted:
            content = self.written if self.written is not None else self._write(text, wanted)
        self.answered[text] += 1
        if self.log:
            with self.log.open("a") as stream:
                stream.write(json.dumps(text) + "\n")
        choice: dict[str, Any] = {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": content},
        }
        if self.tool:
            call = {"id": "call_1", "type": "function", "function": {"name": "route", "arguments": content}}
            choice["message"] = {"role": "assistant", "content": None, "tool_calls": [call]}
        if self.logprob is not None and body.get("logprobs"):
            token = {"token": content, "logprob": self.logprob, "bytes": None, "top_logprobs": []}
            choice["logprobs"] = {"content": [token]}
        completion = {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [choice],
        }
        return 200, {}, completion | ({"usage": self.usage} if self.usage is not None else {})

    def _write(self, text: str, wanted: dict[str, Any]) -> str:
        lines = {line.split(". ")[0]: line for line in text.splitlines() if line[:1].isdigit()}
        first, texts = text.splitlines()[0], {}
        for key in wanted:
            self._texts += 1
            label = next(
                (name for name, meaning in MEANS.items() if meaning in lines.get(key, first).split(";")[0]), "other"
            )
            said = f"{label} {words(self._texts)}"
            turns = wanted[key].get("properties")
            texts[key] = {turn: f"{said} {turn}" for turn in turns} if turns else said
        return json.dumps(texts)


def _typed_answer(question: dict[str, Any], text: str) -> dict[str, Any]:
    """The first value that the text contains, else the last one, with a probability of 0.8."""
    named = {"type": question["type"], "name": question.get("name")}
    if question["type"] == "predicate":
        return named | {"probability": 0.8 if "yes" in text else 0.2}
    of_choice = question["type"] == "choice"
    values = (
        [one["value"] for one in question["choices"]] if of_choice else [one["label"] for one in question["levels"]]
    )
    best = next((value for value in values if str(value) in text), values[-1])
    shares = [0.8 if value == best else 0.2 / (len(values) - 1) for value in values]
    if of_choice:
        rows = [{"value": value, "probability": share} for value, share in zip(values, shares, strict=True)]
        return named | {"choice": best, "confidence": 0.8, "probabilities": rows}
    levels = [{"label": value, "value": i, "probability": shares[i]} for i, value in enumerate(values)]
    return named | {
        "score": sum(i * share for i, share in enumerate(shares)),
        "confidence": 0.8,
        "probabilities": levels,
    }


def words(number: int) -> str:
    """Five words, different for every number, so that the texts are no near-duplicates."""
    digest = hashlib.sha256(str(number).encode()).digest()
    return " ".join("".join(SYLLABLES[byte % len(SYLLABLES)] for byte in digest[i : i + 3]) for i in range(0, 15, 3))


def _send(
    writer: asyncio.StreamWriter, status: int, extra: dict[str, str], payload: bytes, length: int | None = None
) -> None:
    more = "".join(f"{key}: {value}\r\n" for key, value in extra.items())
    length = len(payload) if length is None else length
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{more}\r\n"
    writer.write(head.encode() + payload)


if __name__ == "__main__":
    teacher = Teacher(delay_s=float(sys.argv[1]), log=Path(sys.argv[2]) if len(sys.argv) > 2 else None).start()
    print(teacher.port, flush=True)
    sys.stdin.read()
