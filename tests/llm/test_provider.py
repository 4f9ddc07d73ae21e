"""The client of a provider's files and batches: slow links, redirects, and answers that drip."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import openai
import pytest
from faults import http

from fingerpost.core.errors import TeacherError
from fingerpost.llm import provider
from fingerpost.llm.provider import call_provider, provider_client

FILE = http('{"id": "file-1", "object": "file", "status": "processed"}')


@contextmanager
def server(answers: list[bytes], read_pause_s: float = 0.0, drip_s: float = 0.0) -> Iterator[tuple[str, list[bytes]]]:
    """A server that answers one request per connection; yields its base URL and the first lines of the requests."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    seen: list[bytes] = []

    def serve() -> None:
        for answer in answers:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                data = b""
                while b"\r\n\r\n" not in data:
                    data += connection.recv(65_536)
                head, _, body = data.partition(b"\r\n\r\n")
                seen.append(head.split(b"\r\n")[0])
                lengths = [
                    line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
                ]
                left = int(lengths[0]) - len(body) if lengths else 0
                while left > 0 and (part := connection.recv(65_536)):
                    left -= len(part)
                    time.sleep(read_pause_s)
                for start in range(0, len(answer), 1 if drip_s else len(answer)):
                    try:
                        connection.sendall(answer[start : start + (1 if drip_s else len(answer))])
                    except OSError:
                        return
                    time.sleep(drip_s)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1", seen
    finally:
        listener.close()


def test_an_upload_may_take_longer_than_the_time_out_of_a_step() -> None:
    with server([FILE], read_pause_s=0.005) as (url, _), provider_client("x", url, 1.0) as client:
        began = time.monotonic()
        file = client.files.create(file=("x", b"x" * 20_000_000), purpose="batch")
        assert file.id == "file-1" and time.monotonic() - began > 1.0


def test_results_behind_a_redirect_are_fetched() -> None:
    moved = http("", "302 Found", location="/elsewhere")
    with server([moved, http('{"a": 1}\n')]) as (url, seen), provider_client("x", url, 10.0) as client:
        assert client.files.content("file-1").text == '{"a": 1}\n'
    assert seen == [b"GET /v1/files/file-1/content HTTP/1.1", b"GET /elsewhere HTTP/1.1"]


def test_a_response_that_drips_ends_with_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider, "MIN_DEADLINE_S", 1.0)
    monkeypatch.setattr(provider, "RETRIES", 0)
    with server([FILE], drip_s=0.2) as (url, _), provider_client("x", url, 0.9) as client:
        began = time.monotonic()
        with pytest.raises(openai.APITimeoutError):
            client.files.retrieve("file-1")
        assert time.monotonic() - began < 20  # all of it would take half a minute


def test_what_is_no_answer_of_the_api_is_an_error_of_ours() -> None:
    with (
        server([http("<html>", content_type="text/html")]) as (url, _),
        provider_client("x", url, 10.0) as client,
        pytest.raises(TeacherError, match="does not answer as OpenAI's API does"),
    ):
        call_provider(url, lambda: client.files.retrieve("file-1"), "id")
