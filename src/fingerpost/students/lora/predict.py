"""The generative student as a predictor: labels are scored; texts are sampled."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fingerpost.core.errors import InputError, ModelError
from fingerpost.core.predictor import BasePredictor
from fingerpost.core.types import WHOLE, Conversation, Label, Message, Prediction, Usage
from fingerpost.data.dialogues import Dialogue
from fingerpost.students.encoder.predict import softmax
from fingerpost.students.folder import Manifest
from fingerpost.students.lora.dialogues import items_of, prompt_text, reply_tokens, tokens_of
from fingerpost.students.lora.fields import fill, is_flat
from fingerpost.students.lora.generation import GrammarCompiler, Piece, Sampling, write
from fingerpost.students.lora.label_prompts import LabelPrompt
from fingerpost.students.lora.packing import dev_losses
from fingerpost.students.lora.runner import runner_of
from fingerpost.students.lora.scoring import PromptCache, ReplyTree, score_replies
from fingerpost.task.prompt import chat
from fingerpost.task.reply_format import ReplyTemplate, UserTemplate

LOSS_TOKENS = 2048
"""The most tokens of a conversation whose loss is computed; longer ones are cut."""
BATCH_TOKENS = 4096
"""The most tokens that are computed at once, of prompts and replies together."""


class LoraStudent(BasePredictor):
    """A causal language model with an adapter.

    Labels are read from the prompt: `with_prompt` gives a predictor for the same labels as codes, or for more of them.

    Raises:
        ModelError: on construction, if the base model or the adapter cannot be loaded.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.name, self.folder, self.manifest = folder.name, folder, manifest
        self.labels = [label.name for label in manifest.labels]
        self.runner = runner_of(manifest.encoder["name"], manifest.encoder["sha256"])
        self._adapter = self.runner.add(folder)
        weakref.finalize(self, self.runner.remove, self._adapter)
        self.tokenizer = self.runner.base.tokenizer
        self.prompt = prompt_of(manifest)
        self.cache = PromptCache()
        self._owner: LoraStudent | None = None

    @property
    def all_views(self) -> LoraStudent:
        """The same student: it has no faster tier."""
        return self

    def with_prompt(self, prompt: LabelPrompt) -> LoraStudent:
        """The same model, asked with another prompt. Its scores are not calibrated for it."""
        other = object.__new__(LoraStudent)
        other.__dict__.update({name: value for name, value in self.__dict__.items() if name != "_tree"})
        other.prompt, other.labels, other.cache = prompt, [one.label.name for one in prompt.listed], PromptCache()
        other._owner = self  # the adapter is freed with the student that loaded it
        return other

    def with_labels(self, labels: Sequence[Label]) -> LoraStudent:
        """The same model, asked with further labels at the end of the prompt's list."""
        return self.with_prompt(self.prompt.with_labels(labels))

    def model(self) -> Any:
        """A context in which the model with this student's adapter is this thread's alone."""
        return self.runner.active(self._adapter)

    def _predict(self, conversations: Sequence[Conversation]) -> list[Prediction]:
        """One prediction for each conversation, in order. `usage.latency_s` is the time of the batch divided by its size."""
        if not self.labels:
            raise ModelError(f"{self.folder} writes texts and has no labels; ask it through 'fingerpost serve'")
        predictions: list[Prediction | None] = [None] * len(conversations)
        prompts = [self.prompt_tokens(messages) for messages in conversations]
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        for chosen in self._batches(order, prompts):
            began = time.perf_counter()
            rows = softmax(self.log_probabilities([prompts[i] for i in chosen]) / self.manifest.temperature)
            seconds = (time.perf_counter() - began) / len(chosen)
            for i, row in zip(chosen, rows.tolist(), strict=True):
                usage = Usage(prompt=len(prompts[i]), completion=0, cost_usd=0.0, latency_s=seconds)
                scores = dict(zip(self.labels, row, strict=True))
                label = max(scores, key=scores.__getitem__)
                predictions[i] = Prediction(label, scores[label], scores, self.name, usage, WHOLE)
        return [prediction for prediction in predictions if prediction is not None]

    def _batches(self, order: Sequence[int], prompts: Sequence[list[int]]) -> list[list[int]]:
        """The rows in batches of at most BATCH_TOKENS, at least one row each; short prompts come first."""
        batches: list[list[int]] = []
        room = 0
        for i in order:
            size = len(prompts[i]) + len(self._tree.tokens)
            if not batches or room < size:
                batches.append([])
                room = BATCH_TOKENS
            batches[-1].append(i)
            room -= size
        return batches

    def log_probabilities(self, prompts: Sequence[list[int]]) -> NDArray[np.float64]:
        """The log-probability of each label's reply after each prompt, in nats, shape (prompts, labels)."""
        with self.model() as model:
            found: NDArray[np.float64] = score_replies(model, self.cache, prompts, self._tree).double().numpy()
        return found

    @cached_property
    def _tree(self) -> ReplyTree:
        return ReplyTree.of([reply_tokens(self.tokenizer, self.prompt.reply(label)) for label in self.labels])

    def prompt_tokens(self, messages: Conversation) -> list[int]:
        """The tokens of the prompt for a conversation; too long ones lose their oldest turns, then the end of the message."""
        return prompt_tokens(self.tokenizer, self.prompt, messages, self.manifest)

    def reply(
        self, messages: Sequence[Mapping[str, str]], sampling: Sampling, schema: Mapping[str, Any] | None = None
    ) -> Iterator[Piece]:
        """A reply to chat messages, piece by piece.

        Args:
            schema: JSON schema that the reply keeps. Of an object that always has the same fields, those with few values are
                scored, and the reply is one piece.

        Raises:
            InputError: the schema cannot be enforced, or the messages are too long.
        """
        prompt = self.chat_tokens(messages)
        if schema is not None and is_flat(schema):
            context = self.runner.base.context
            found = fill(
                self.model, self.tokenizer, self._compiler, self.cache, prompt, schema, sampling, self._ends, context
            )
            yield Piece(found.text, found.tokens, found.logprob, "stop", (), (len(prompt), found.tokens))
            return
        grammar = None if schema is None else self._compiler.schema(schema)
        yield from write(
            self.model, self.tokenizer, self.cache, prompt, sampling, self._ends, self.runner.base.context, grammar
        )

    def loss(self, dialogues: Sequence[Dialogue]) -> float:
        """The mean loss of the replies of conversations, in nats per token."""
        limit = min(self.runner.base.context, LOSS_TOKENS)
        items = [item for dialogue in dialogues for item in items_of(self.tokenizer, dialogue, limit)]
        with self.model() as model:
            return dev_losses(model, items, limit, model.dtype)[0]

    @cached_property
    def _compiler(self) -> GrammarCompiler:
        vocabulary = int(self.runner.base.model.config.get_text_config().vocab_size)
        return GrammarCompiler(self.tokenizer, vocabulary)

    def chat_tokens(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """The tokens of chat messages.

        Raises:
            InputError: they do not leave room for a reply of one token.
        """
        tokens = tokens_of(self.tokenizer, prompt_text(self.tokenizer, messages))
        if len(tokens) >= self.runner.base.context:
            raise InputError(
                f"the messages have {len(tokens):,} tokens, the model reads {self.runner.base.context:,}; shorten them"
            )
        return tokens

    @cached_property
    def _ends(self) -> list[int]:
        """The tokens that end a reply."""
        given = getattr(self.runner.base.model.generation_config, "eos_token_id", None)
        known = given if isinstance(given, list) else [given]
        return sorted(
            {reply_tokens(self.tokenizer, "")[0], self.tokenizer.eos_token_id, *(t for t in known if t is not None)}
        )

    def count_tokens(self, text: str) -> int:
        """Number of tokens of a text."""
        return len(tokens_of(self.tokenizer, text))


def prompt_of(manifest: Manifest) -> LabelPrompt:
    """The prompt that a model was trained with, its labels in their own order."""
    template = manifest.reply_template or ReplyTemplate()
    return LabelPrompt.of(manifest.system, manifest.labels, template)


def messages_of(system: str, messages: Conversation, history: int, user_template: UserTemplate) -> list[dict[str, str]]:
    """Chat messages: the system prompt, where there is one, and the last turns of the conversation.

    Args:
        history: how many earlier turns are read.
        user_template: the constant text around the user's message.
    """
    *earlier, last = messages
    last = Message(last.role, f"{user_template.before}{last.content}{user_template.after}")
    turns = [*(earlier[-history:] if history else ()), last]
    while len(turns) > 1 and turns[0].role != "user":  # a chat template expects the user first
        turns = turns[1:]
    return chat(system, tuple(turns))[0 if system else 1 :]


def prompt_tokens(tokenizer: Any, prompt: LabelPrompt, messages: Conversation, manifest: Manifest) -> list[int]:
    """The tokens of the prompt for a conversation. What does not fit is cut: first old turns, then the message's end."""
    limit = max(2, manifest.max_tokens - MOST_REPLY_TOKENS)
    for history in range(min(manifest.history, len(messages) - 1), -1, -1):
        given = messages_of(prompt.text, messages, history, manifest.user_template)
        tokens = tokens_of(tokenizer, prompt_text(tokenizer, given))
        if len(tokens) <= limit:
            return tokens
    cut = replace(
        messages[-1], content=messages[-1].content[: max(1, len(messages[-1].content) * limit // (2 * len(tokens)))]
    )
    return prompt_tokens(tokenizer, prompt, (cut,), manifest) if len(cut.content) > 1 else tokens[-limit:]


MOST_REPLY_TOKENS = 256
"""Tokens of the context that are left for the reply."""
