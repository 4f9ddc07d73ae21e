"""The Decisions API, POST /decisions: a typed question about a conversation, and the probability of each of its values."""

from __future__ import annotations

import json
import math
from typing import Any

from fingerpost.core.errors import TeacherError
from fingerpost.core.text import parse_json, storable
from fingerpost.core.types import Usage
from fingerpost.core.utils import count, finite
from fingerpost.llm.completion import MAX_REPLY_CHARACTERS, Chat, Reply, RequestLost, Schema

VALUE_FIELD = {"choice": "value", "score": "label"}
"""The field that names a value in the probabilities of an answer, by type of the question."""
SMALLEST = 0.001
"""Probabilities below are left out."""


def decision_body(model: str, messages: Chat, question: Schema | None) -> dict[str, Any]:
    """The body of a request.

    Args:
        messages: the first one holds the question's instructions, the others are the conversation.
        question: from `fingerpost.task.prompt.decision_question`.

    Raises:
        TeacherError: it is no question, so that only a chat endpoint could answer.
    """
    if question is None or question.get("type") not in VALUE_FIELD:
        raise TeacherError(
            f'{model} answers typed questions only (api = "decisions"), so it can label, but neither write questions nor '
            "describe labels; name another model for that, such as one in [[generate.writers]]"
        )
    instructions, *turns = messages
    given = [{"role": turn["role"], "content": turn["content"]} for turn in turns]
    return {"model": model, "input": given, "questions": [{**question, "instructions": instructions["content"]}]}


def parse_decision(body: str | bytes, seconds: float | None, where: str) -> Reply:
    """Parse a response body: the text is a JSON object of the question's name and the value that was chosen.

    Args:
        seconds: latency of the request, stored in the reply's usage.
        where: the endpoint, for the error message.

    Raises:
        RequestLost: the body is not a response of the Decisions API.
    """
    try:
        response = parse_json(body)
        answer = response["answers"][0]
        kind, name = answer["type"], answer.get("name")
        used = response.get("usage") or {}
        prompt, completion = count(used.get("input_tokens")), count(used.get("output_tokens"))
        cached = count((used.get("input_tokens_details") or {}).get("cached_tokens"))
        usage = (
            Usage(latency_s=seconds)
            if None in (prompt, completion)
            else Usage(prompt, cached, completion, None, seconds)
        )
        if kind not in VALUE_FIELD:
            return Reply(None, usage, None, f"an answer of the type '{kind}'")
        shares = {
            str(row[VALUE_FIELD[kind]]): probability
            for row in answer["probabilities"]
            if (probability := finite(row["probability"])) is not None and SMALLEST <= probability <= 1
        }
        best = str(answer["choice"]) if kind == "choice" else max(shares, key=shares.__getitem__)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise RequestLost(
            f"{where} did not return a valid /v1/decisions response; check that base_url ends with /v1"
        ) from None
    text = storable(json.dumps({str(name or "answer"): best}, ensure_ascii=False))[:MAX_REPLY_CHARACTERS]
    logprob = math.log(shares[best]) if best in shares else None
    return Reply(text, usage, logprob, probabilities=shares, message=answer)
