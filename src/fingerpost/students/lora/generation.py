"""Writes replies token by token: sampled or greedy, stopped, streamed, and kept to a grammar where one is given."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import llguidance.hf
import llguidance.torch
import torch
from llguidance import LLMatcher

from fingerpost.core.errors import InputError
from fingerpost.students.lora.scoring import PromptCache

Grammar: TypeAlias = LLMatcher
"""What a reply must look like, at its beginning."""
COMPACT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""JSON as `json.dumps` writes it, which is how replies are learnt. Free white space could go on for ever."""
UNFINISHED = "\ufffd"
"""What the decoder writes for bytes that are no whole character yet."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a reply is sampled.

    Attributes:
        temperature: 0 takes the most probable token.
        top_p: only the most probable tokens with this total probability (nucleus sampling, Holtzman et al. 2020).
        max_tokens: after which the reply is cut.
        stop: texts at which the reply ends; they are not part of it.
        seed: of the random numbers; None draws one.
        frequency_penalty, presence_penalty: subtracted from the logits of tokens that were written, as OpenAI's API defines them.
        alternatives: number of the most probable tokens that each piece names.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    seed: int | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    alternatives: int = 0

    def for_choice(self, index: int) -> Sampling:
        """For one of several choices: with a seed of its own."""
        return self if self.seed is None else replace(self, seed=(self.seed + index) % 2**63)


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a reply.

    Attributes:
        text: may be empty, where a token ends within a character.
        tokens: number of tokens that it took.
        logprob: their log-probability in nats, before temperature.
        finish: in the last piece, why the reply ended: `stop` or `length`.
        alternatives: texts and log-probabilities of the most probable tokens.
        usage: in the last piece, the tokens of the prompt and of the whole reply.
    """

    text: str
    tokens: int
    logprob: float
    finish: str | None = None
    alternatives: tuple[tuple[str, float], ...] = ()
    usage: tuple[int, int] | None = None


class GrammarCompiler:
    """Compiles what replies must look like, for one tokenizer.

    Args:
        vocabulary: number of rows of the model's output matrix. Those beyond the tokenizer's tokens stand for nothing.
    """

    def __init__(self, tokenizer: Any, vocabulary: int) -> None:
        self._tokenizer = llguidance.hf.from_tokenizer(tokenizer, max(vocabulary, len(tokenizer)))

    def schema(self, schema: Mapping[str, Any]) -> Grammar:
        """JSON that keeps a schema.

        Raises:
            InputError: it uses what cannot be enforced.
        """
        try:
            return self._compiled(LLMatcher.grammar_from_json_schema(dict(schema), overrides=COMPACT))
        except ValueError as error:
            raise InputError(f"the schema cannot be enforced ({error}); simplify it") from None

    def around(self, before: str, schema: Mapping[str, Any], after: str) -> Grammar:
        """A JSON value that keeps a schema, between two texts.

        Raises:
            InputError: the schema uses what cannot be enforced.
        """
        compact = {**schema, "x-guidance": COMPACT}
        start, end = (json.dumps(part, ensure_ascii=False) for part in (before, after))
        return self._compiled(
            LLMatcher.grammar_from_lark(f"start: {start} value {end}\nvalue: %json {json.dumps(compact)}\n")
        )

    def _compiled(self, grammar: str) -> Grammar:
        matcher = LLMatcher(self._tokenizer, grammar)
        if matcher.is_error():
            raise InputError(f"the schema cannot be enforced ({matcher.get_error()[:200]}); simplify it")
        return matcher


def write(
    hold: Callable[[], AbstractContextManager[Any]],
    tokenizer: Any,
    cache: PromptCache,
    prompt: Sequence[int],
    sampling: Sampling,
    ends: Sequence[int],
    context: int,
    grammar: Grammar | None = None,
    forced: Sequence[int] = (),
) -> Iterator[Piece]:
    """Write a reply, piece by piece.

    Args:
        hold: gives the model to this thread. It is held for one token at a time, so that several replies can be written.
        prompt: the prompt's tokens.
        ends: tokens that end a reply.
        context: the most tokens that the model reads; the reply is cut there.
        grammar: what the reply must look like.
        forced: the reply's first tokens, which are not part of the pieces.
    """
    draw = torch.Generator(device="cpu")
    if sampling.seed is None:
        draw.seed()
    else:
        draw.manual_seed(sampling.seed)
    matcher = grammar.deep_copy() if grammar is not None else None
    if matcher is not None and forced:
        matcher.consume_tokens(list(forced))
    given = [*prompt, *forced]
    with hold() as model:
        used = cache.prepare(model, [given])
        keys = cache.expand(used, 1)
        tokens = torch.tensor([given[used:]], device=model.device)
    text = _Text(tokenizer, sampling.stop)
    counts: dict[int, int] = {}
    most = max(1, min(sampling.max_tokens, context - len(given)))
    for number in range(1, most + 1):
        with hold() as model, torch.inference_mode():
            logits = model(input_ids=tokens, cache=keys, use_cache=True, logits_to_keep=1).logits[0, -1].float().cpu()
        token, logprob = _next(logits, sampling, matcher, ends, counts, draw)
        others = _alternatives(tokenizer, logits, sampling.alternatives)
        counts[token] = counts.get(token, 0) + 1
        if matcher is not None and token not in ends:
            matcher.consume_token(token)
        piece, finish = ("", "stop") if token in ends else text.add(token)
        if finish is None and matcher is not None and matcher.is_stopped():
            finish = "stop"
        if finish is None and number == most:
            finish = "length"
        if finish is not None and not text.stopped:
            piece += text.rest()
        yield Piece(piece, 1, logprob, finish, others, None if finish is None else (len(prompt), number))
        if finish is not None:
            return
        tokens = torch.tensor([[token]], device=tokens.device)


def _alternatives(tokenizer: Any, logits: torch.Tensor, count: int) -> tuple[tuple[str, float], ...]:
    """The most probable tokens' texts and log-probabilities."""
    if not count:
        return ()
    found = torch.log_softmax(logits, -1).topk(count)
    return tuple(
        (tokenizer.decode([token]), logprob)
        for token, logprob in zip(found.indices.tolist(), found.values.tolist(), strict=True)
    )


def _next(
    logits: torch.Tensor,
    sampling: Sampling,
    matcher: LLMatcher | None,
    ends: Sequence[int],
    counts: Mapping[int, int],
    draw: torch.Generator,
) -> tuple[int, float]:
    """The next token and its log-probability."""
    logprobs = torch.log_softmax(logits, -1)
    scores = logits.clone()
    if counts and (sampling.frequency_penalty or sampling.presence_penalty):
        seen = torch.tensor(list(counts))
        scores[seen] -= sampling.presence_penalty + sampling.frequency_penalty * torch.tensor(
            list(counts.values()), dtype=scores.dtype
        )
    if matcher is not None:
        mask = llguidance.torch.allocate_token_bitmask(1, len(scores))
        llguidance.torch.fill_next_token_bitmask(matcher, mask, 0)
        ended = matcher.is_accepting()
        kept = scores[list(ends)].clone()
        llguidance.torch.apply_token_bitmask_inplace(scores[None], mask)
        scores[list(ends)] = kept if ended else -torch.inf
    if sampling.temperature <= 0:
        token = int(scores.argmax())
        return token, float(logprobs[token])
    probabilities = torch.softmax(scores / sampling.temperature, -1)
    if sampling.top_p < 1:
        ordered, order = probabilities.sort(descending=True)
        outside = ordered.cumsum(0) - ordered >= sampling.top_p
        probabilities[order[outside]] = 0
    token = int(torch.multinomial(probabilities, 1, generator=draw))
    return token, float(logprobs[token])


class _Text:
    """Tokens as text, without half characters, and without what may become a stop text."""

    def __init__(self, tokenizer: Any, stop: Sequence[str]) -> None:
        self._tokenizer, self._stop = tokenizer, stop
        self._tokens: list[int] = []
        self._given = 0
        self.stopped = False

    def add(self, token: int) -> tuple[str, str | None]:
        """The text that is certain now, and `stop` if a stop text has come."""
        self._tokens.append(token)
        whole = self._decode()
        places = [place for text in self._stop if (place := whole.find(text)) >= 0]
        if places:
            self.stopped = True
            return self._give(whole, min(places)), "stop"
        if whole.endswith(UNFINISHED):
            return "", None
        held = max((n for text in self._stop for n in range(1, len(text)) if whole.endswith(text[:n])), default=0)
        return self._give(whole, len(whole) - held), None

    def rest(self) -> str:
        """The text that was held back."""
        whole = self._decode()
        return self._give(whole, len(whole))

    def _give(self, whole: str, end: int) -> str:
        piece = whole[self._given : max(end, self._given)]
        self._given = max(end, self._given)
        return piece

    def _decode(self) -> str:
        text: str = self._tokenizer.decode(self._tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text
