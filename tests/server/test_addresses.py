"""Clients that are pointed here with little more than another address: Azure's, browsers, wrong base URLs, rate limits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import openai
import pytest
from serving import Serving

from fingerpost.server.ops.access import known_path

pytestmark = pytest.mark.slow
PAGE = "https://app.example.com"
QUESTION = [{"role": "user", "content": "my invoice is wrong"}]


@pytest.fixture(scope="module")
def server(student: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("addresses")
    arguments = (f"student={student}", "--require-keys", "--cors-origin", PAGE, "--requests-per-minute", "12")
    import subprocess
    import sys

    made = [
        subprocess.run(
            [sys.executable, "-m", "fingerpost", "keys", "add", name, "--data", str(folder / "served")],
            capture_output=True, text=True, check=True,
        ).stdout.strip()
        for name in ("azure", "browser", "limited")
    ]  # fmt: skip
    with Serving(folder / "served", *arguments) as started:
        started.keys = dict(zip(("azure", "browser", "limited"), made, strict=True))  # type: ignore[attr-defined]
        yield started


def root(server: Serving) -> str:
    return str(server.client().base_url).removesuffix("/v1/")


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("/openai/deployments/gpt-4.1/chat/completions", "/v1/chat/completions"),
        ("/openai/v1/chat/completions", "/v1/chat/completions"),
        ("/openai/files/file-1/content", "/v1/files/file-1/content"),
        ("/v1/models/", "/v1/models"),
        ("/", "/"),
        ("/v1/chat/completions", "/v1/chat/completions"),
    ],
)
def test_paths(path: str, known: str) -> None:
    assert known_path(path) == known


def test_azures_client(server: Serving) -> None:
    key = server.keys["azure"]  # type: ignore[attr-defined]
    client = openai.AzureOpenAI(azure_endpoint=root(server), api_key=key, api_version="2025-01-01-preview")
    answer = client.chat.completions.create(model="student", messages=QUESTION)  # type: ignore[arg-type]
    assert "billing" in str(answer.choices[0].message.content)
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").models.list()


def test_a_browser_asks_first_and_then_gets_the_answer(server: Serving) -> None:
    asked = {"origin": PAGE, "access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    preflight = httpx2.options(f"{root(server)}/v1/chat/completions", headers=asked)
    assert preflight.status_code == 200 and preflight.headers["access-control-allow-origin"] == PAGE
    key = server.keys["browser"]  # type: ignore[attr-defined]
    answer = httpx2.get(f"{root(server)}/v1/models/", headers={"origin": PAGE, "authorization": f"Bearer {key}"})
    assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == PAGE
    other = httpx2.options(f"{root(server)}/v1/models", headers={**asked, "origin": "https://evil.example.com"})
    assert "access-control-allow-origin" not in other.headers


def test_a_base_url_without_v1_gets_a_hint(server: Serving) -> None:
    key = server.keys["browser"]  # type: ignore[attr-defined]
    with pytest.raises(openai.NotFoundError, match="has to end with /v1"):
        openai.OpenAI(base_url=root(server), api_key=key).models.list()


def test_the_limit_tells_the_true_time_to_wait(server: Serving) -> None:
    headers = {"authorization": f"Bearer {server.keys['limited']}"}  # type: ignore[attr-defined]
    began = time.monotonic()
    answers = [httpx2.get(f"{root(server)}/v1/models", headers=headers) for _ in range(13)]
    assert [answer.status_code for answer in answers] == [200] * 12 + [429]
    left = [int(answer.headers["x-ratelimit-remaining-requests"]) for answer in answers]
    assert left == [*range(11, -1, -1), 0] and answers[0].headers["x-ratelimit-limit-requests"] == "12"
    wait = int(answers[-1].headers["retry-after"])
    assert 60 - (time.monotonic() - began) <= wait <= 60, "as long as the oldest of the requests counts"
