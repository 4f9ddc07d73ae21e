"""A generative student that an engine runs: llama.cpp's server in a process of its own, or any OpenAI-compatible endpoint."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import httpx2

from fingerpost.core.errors import InputError, ModelError
from fingerpost.core.text import parse_json, shorten
from fingerpost.llm import gguf
from fingerpost.students.folder import Manifest
from fingerpost.students.lora.base import GGUF, require_base
from fingerpost.students.lora.export import ADAPTER_GGUF, write_adapter
from fingerpost.students.lora.generation import Piece, Sampling

if TYPE_CHECKING:
    from fingerpost.students.lora.predict import LoraStudent

SLOTS = 4
"""Replies that llama.cpp writes at the same time."""
TIMEOUT_S = 600.0
PLAIN_SAMPLING = {"top_k": 0, "min_p": 0.0}
"""Turns off what llama.cpp would do beside temperature and top_p."""


class EngineWriter:
    """Writes replies through an OpenAI-compatible endpoint.

    Args:
        model: the model's name at the endpoint.
        options: further fields of each request.
    """

    def __init__(self, manifest: Manifest, base_url: str, model: str, options: Mapping[str, Any] | None = None) -> None:
        self.manifest, self._model, self._options = manifest, model, dict(options or {})
        # llama.cpp closes idle connections, which a kept one notices too late.
        limits = httpx2.Limits(max_keepalive_connections=0)
        self._client = httpx2.Client(base_url=base_url, timeout=TIMEOUT_S, limits=limits)
        self._url = base_url
        weakref.finalize(self, self._client.close)

    def reply(
        self, messages: Sequence[Mapping[str, str]], sampling: Sampling, schema: Mapping[str, Any] | None = None
    ) -> Iterator[Piece]:
        """A reply to chat messages, piece by piece; see `LoraStudent.reply`.

        Raises:
            InputError: the engine refuses the request.
            ModelError: the engine cannot be reached, or its answer cannot be read.
        """
        body: dict[str, Any] = {
            "model": self._model, "messages": list(messages), "stream": True, "stream_options": {"include_usage": True},
            "temperature": sampling.temperature, "top_p": sampling.top_p, "max_tokens": sampling.max_tokens,
            "frequency_penalty": sampling.frequency_penalty, "presence_penalty": sampling.presence_penalty,
            **self._options,
        }  # fmt: skip
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.seed is not None:
            body["seed"] = sampling.seed
        if sampling.alternatives:
            body |= {"logprobs": True, "top_logprobs": sampling.alternatives}
        if schema is not None:
            named = {"name": "reply", "strict": True, "schema": dict(schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        try:
            with self._client.stream("POST", "chat/completions", json=body) as response:
                if response.status_code >= 400:
                    found = shorten(response.read().decode("utf-8", errors="replace"), 200)
                    if response.status_code < 500:
                        raise InputError(f"the engine refuses the request: {found}")
                    raise ModelError(f"the engine at {self._url} fails: {found}")
                yield from _pieces(response.iter_lines())
        except httpx2.HTTPError as error:
            raise ModelError(f"the engine at {self._url} does not answer ({error}); start it again") from None


def _pieces(lines: Iterator[str]) -> Iterator[Piece]:
    """The pieces in a stream of server-sent events. The last one has the counts of tokens."""
    finish: str | None = None
    usage = None
    for line in lines:
        data = line.removeprefix("data:").strip()
        if not line.startswith("data:") or data == "[DONE]":
            continue
        try:
            event = parse_json(data)
        except ValueError:
            raise ModelError(f"the engine's answer cannot be read: {shorten(data, 100)}") from None
        if "error" in event:
            raise ModelError(f"the engine fails: {shorten(str(event['error']), 200)}")
        if counts := event.get("usage"):
            usage = (int(counts.get("prompt_tokens") or 0), int(counts.get("completion_tokens") or 0))
        for choice in event.get("choices") or ():
            finish = choice.get("finish_reason") or finish
            text = (choice.get("delta") or {}).get("content") or ""
            if text:
                yield _piece(text, (choice.get("logprobs") or {}).get("content") or [])
    if finish is None:
        raise ModelError("the engine's answer ended before its end; see its log")
    yield Piece("", 0, 0.0, finish, (), usage)


def _piece(text: str, tokens: Sequence[Mapping[str, Any]]) -> Piece:
    logprob = sum(float(token.get("logprob") or 0.0) for token in tokens)
    others = tuple(
        (str(other.get("token")), float(other.get("logprob") or 0.0))
        for token in tokens[:1]
        for other in token.get("top_logprobs") or ()
    )
    return Piece(text, 1, logprob, None, others)


def runs_in_llama_cpp(manifest: Manifest) -> bool:
    """Whether llama.cpp can run a model: its base is a GGUF file, and the package for it is installed."""
    name = manifest.encoder.get("name", "")
    return Path(name).suffix.lower() == GGUF and find_spec("xllamacpp") is not None


def fastest_writer(student: LoraStudent) -> EngineWriter | LoraStudent:
    """What writes a student's replies fastest: llama.cpp where it can run the model, else the student itself."""
    return in_llama_cpp(student.folder, student.manifest) if runs_in_llama_cpp(student.manifest) else student


def in_llama_cpp(folder: Path, manifest: Manifest) -> EngineWriter:
    """A student in llama.cpp's server, which ends with this object.

    Raises:
        ModelError: the base model's file has gone, or llama.cpp cannot load it or the adapter.
    """
    base = Path(manifest.encoder["name"])
    require_base(manifest)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(TemporaryDirectory()))
        write_adapter(folder, scratch / ADAPTER_GGUF)
        url = stack.enter_context(gguf.serving(base, scratch / ADAPTER_GGUF, SLOTS))
        writer = EngineWriter(manifest, url, manifest.name, PLAIN_SAMPLING)
        weakref.finalize(writer, stack.pop_all().close)
        return writer
