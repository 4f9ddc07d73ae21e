"""The official client library for a provider's files, batches and jobs, whose answers are not trusted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import openai

from fingerpost.core.errors import TeacherError
from fingerpost.llm.completion import DEFAULT_BASE_URL
from fingerpost.llm.transport import DeadlineTransport

MAX_BYTES = 2**30
"""The most bytes of a result file."""
MIN_DEADLINE_S = 600.0
"""Seconds for a whole response, at least: result files are large."""
RETRIES = 3


def provider_client(api_key: str, base_url: str | None, timeout_s: float) -> openai.OpenAI:
    """A client of the provider. Close it.

    Args:
        base_url: None for OpenAI, or what OPENAI_BASE_URL says.
        timeout_s: seconds for each step of a request, such as connecting.
    """
    import httpx2

    client = openai.OpenAI(api_key=api_key, base_url=base_url, timeout=timeout_s, max_retries=RETRIES)
    url = str(client.base_url) or DEFAULT_BASE_URL
    client.close()
    transport = DeadlineTransport(url, MAX_BYTES, max(MIN_DEADLINE_S, timeout_s))
    return client.with_options(http_client=httpx2.Client(transport=transport, timeout=timeout_s, follow_redirects=True))


def call_provider(where: object, call: Callable[[], Any], *fields: str) -> Any:
    """What a call of the client library returns.

    Args:
        where: the provider's name or address.
        fields: attributes of the result that have to be texts.

    Raises:
        TeacherError: the response is not what OpenAI's API answers.
        OpenAIError: as the library raises it.
    """
    try:
        found = call()
        valid = all(isinstance(getattr(found, name), str) and getattr(found, name) for name in fields)
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError):
        valid = False
    if not valid:
        raise TeacherError(f"{where} does not answer as OpenAI's API does; does base_url end with /v1?")
    return found
