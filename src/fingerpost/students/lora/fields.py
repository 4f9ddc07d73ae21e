"""Replies of several fields: those with few values are scored, the others are written under the JSON schema."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from fingerpost.core.errors import InputError
from fingerpost.core.text import shorten
from fingerpost.students.lora.dialogues import end_of_reply, tokens_of
from fingerpost.students.lora.generation import Grammar, GrammarCompiler, Sampling, write
from fingerpost.students.lora.scoring import PromptCache, ReplyTree, score_replies
from fingerpost.task.reply_schema import MAX_VALUES

PLACE = "\x00"

Path_ = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply of several fields.

    Attributes:
        value: the JSON object.
        text: as it was learnt.
        probabilities: of each scored field, the probability of each of its values, as JSON texts.
        tokens: number of tokens of the reply.
        logprob: its log-probability in nats, among the replies that keep the schema.
    """

    value: dict[str, Any]
    text: str
    probabilities: dict[Path_, dict[str, float]]
    tokens: int
    logprob: float


def leaves_of(schema: Mapping[str, Any], path: Path_ = ()) -> Iterator[tuple[Path_, dict[str, Any]]]:
    """The fields of an object's schema that hold values, by their paths, in order."""
    for name, part in schema["properties"].items():
        if isinstance(part, dict) and isinstance(part.get("properties"), dict) and part["properties"]:
            yield from leaves_of(part, (*path, name))
        else:
            yield (*path, name), part


def values_of(leaf: Mapping[str, Any]) -> list[Any] | None:
    """The values that a field may have, if they are few."""
    if "const" in leaf:
        return [leaf["const"]]
    if leaf.get("type") == "boolean":
        return [False, True]
    values = leaf.get("enum")
    return list(values) if isinstance(values, list) and 0 < len(values) <= MAX_VALUES else None


def is_flat(schema: Mapping[str, Any]) -> bool:
    """Whether each reply that keeps the schema has all of its fields, so that they can be filled in order."""
    properties = schema.get("properties")
    if schema.get("type") != "object" or not isinstance(properties, dict) or not properties:
        return False
    required = schema.get("required")
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        return False
    if set(required) != set(properties) or set(schema) - {
        "type", "properties", "required", "additionalProperties", "title", "description", "$schema",
    }:  # fmt: skip
        return False
    return all(
        isinstance(part, dict) and ("properties" not in part or is_flat(part)) and "$ref" not in part
        for part in properties.values()
    )


def fill(
    hold: Callable[[], AbstractContextManager[Any]],
    tokenizer: Any,
    compiler: GrammarCompiler,
    cache: PromptCache,
    prompt: list[int],
    schema: Mapping[str, Any],
    sampling: Sampling,
    ends: Sequence[int],
    context: int,
) -> Reply:
    """The reply to a prompt, field by field: each scored field gets its most probable value, given the fields before it.

    Args:
        schema: of an object for which `is_flat` holds.
        sampling: of the fields that are written.

    Raises:
        InputError: a field's schema cannot be enforced, or its value is longer than `sampling.max_tokens`.
    """
    leaves = list(leaves_of(schema))
    pieces = _skeleton(schema).split(json.dumps(PLACE))
    end = tokens_of(tokenizer, end_of_reply(tokenizer))
    text = pieces[0]
    logprob = 0.0
    values: list[Any] = []
    probabilities: dict[Path_, dict[str, float]] = {}
    for (path, leaf), after in zip(leaves, pieces[1:], strict=True):
        choices = values_of(leaf)
        if choices is None:
            grammar = compiler.around(text, leaf, after)
            value, found_logprob = _written(
                hold, tokenizer, grammar, cache, prompt, text, after, sampling, ends, context
            )
            logprob += found_logprob
        elif len(choices) == 1:
            value = choices[0]
        else:
            texts = [json.dumps(choice, ensure_ascii=False) for choice in choices]
            tree = ReplyTree.of([[*tokens_of(tokenizer, f"{text}{one}{after}"), *end] for one in texts])
            with hold() as model:
                scores = score_replies(model, cache, [prompt], tree)[0].double()
            shares = torch.softmax(scores, 0).tolist()
            probabilities[path] = dict(zip(texts, shares, strict=True))
            best = max(range(len(choices)), key=shares.__getitem__)
            value = choices[best]
            logprob += math.log(max(shares[best], 1e-30))
        values.append(value)
        text += json.dumps(value, ensure_ascii=False) + after
    found: dict[str, Any] = json.loads(text)
    return Reply(found, text, probabilities, len(tokens_of(tokenizer, text)), logprob)


def _skeleton(schema: Mapping[str, Any]) -> str:
    """The reply with a placeholder for each value."""

    def placed(part: Mapping[str, Any]) -> Any:
        inner = part.get("properties")
        return {name: placed(one) for name, one in inner.items()} if inner else PLACE

    return json.dumps(placed(schema), ensure_ascii=False)


def _written(
    hold: Callable[[], AbstractContextManager[Any]],
    tokenizer: Any,
    grammar: Grammar,
    cache: PromptCache,
    prompt: list[int],
    before: str,
    after: str,
    sampling: Sampling,
    ends: Sequence[int],
    context: int,
) -> tuple[Any, float]:
    """The value of a field that is written, after the text `before` and followed by `after`; and its log-probability."""
    # The last token is left to the grammar: with the value's first characters, it may be another one.
    forced = tokens_of(tokenizer, before)[:-1]
    if not grammar.deep_copy().consume_tokens(
        forced
    ):  # a tokenizer that adds a space: then the grammar leads from the start
        forced = []
    pieces = list(write(hold, tokenizer, cache, prompt, sampling, ends, context, grammar, forced))
    whole = tokenizer.decode(forced, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    whole += "".join(piece.text for piece in pieces)
    if not (whole.startswith(before) and whole.endswith(after)) or pieces[-1].finish == "length":
        shown = shorten(whole[len(before) :], 60)
        raise InputError(f"a value of the reply has more than {sampling.max_tokens} tokens ({shown}); raise max_tokens")
    return json.loads(whole[len(before) : len(whole) - len(after)]), sum(piece.logprob for piece in pieces)
