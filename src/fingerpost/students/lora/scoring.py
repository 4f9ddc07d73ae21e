"""The probability of each of several replies: one pass over the prompt, and the replies as a prefix tree.

Replies that begin alike share the tokens of their beginnings. All of the tree's tokens are computed in one pass: each reads the
prompt and its own ancestors (as in tree attention, Miao et al. 2024, "SpecInfer").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from fingerpost.students.lora.dialogues import common_beginning


@dataclass(frozen=True)
class ReplyTree:
    """Replies as a prefix tree.

    Attributes:
        tokens: of each node, shape (nodes,). A node comes after its parent.
        parents: of each node, -1 at the first tokens, shape (nodes,).
        paths: of each reply, its nodes in order.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    paths: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, replies: Sequence[Sequence[int]]) -> ReplyTree:
        """The tree of replies, which are lists of tokens, each with the token that ends it.

        The ends are left out if no reply begins another one: they would only cost time.
        """
        cut = [tuple(reply[:-1]) for reply in replies]
        begun = {reply[:n] for reply in cut for n in range(len(reply))}
        if len(set(cut)) == len(cut) and all(cut) and not begun & set(cut):
            return cls._of(cut)
        return cls._of(replies)

    @classmethod
    def _of(cls, replies: Sequence[Sequence[int]]) -> ReplyTree:
        tokens: list[int] = []
        parents: list[int] = []
        known: dict[tuple[int, int], int] = {}
        paths = []
        for reply in replies:
            path, parent = [], -1
            for token in reply:
                if (parent, token) not in known:
                    known[parent, token] = len(tokens)
                    tokens.append(token)
                    parents.append(parent)
                parent = known[parent, token]
                path.append(parent)
            paths.append(tuple(path))
        return cls(tuple(tokens), tuple(parents), tuple(paths))

    @cached_property
    def inner(self) -> list[int]:
        """The nodes that have a child: the output of the others predicts nothing."""
        return sorted({parent for parent in self.parents if parent >= 0})

    @cached_property
    def ancestors(self) -> torch.Tensor:
        """Whether a node (row) has another (column) as itself or as an ancestor, shape (nodes, nodes)."""
        reads = torch.eye(len(self.tokens), dtype=torch.bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                reads[node] |= reads[parent]
        return reads

    @cached_property
    def depths(self) -> torch.Tensor:
        """The number of ancestors of each node, shape (nodes,)."""
        return self.ancestors.sum(1) - 1


class PromptCache:
    """Keys and values of the beginning that prompts have in common, so that they are computed once."""

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._layers: list[tuple[torch.Tensor, torch.Tensor]] = []

    @torch.inference_mode()
    def prepare(self, model: Any, prompts: Sequence[list[int]]) -> int:
        """Compute the common beginning of the prompts, where it is not known; returns how many tokens of it can be used."""
        common = common_beginning([*prompts, prompts[0][:-1]])
        known = len(common_beginning([common, self._tokens]))
        if known >= len(common) // 2:  # the rest is computed with what is different in each prompt
            return known
        from transformers import DynamicCache

        cache = DynamicCache()
        tokens = torch.tensor([common], device=model.device)
        model(input_ids=tokens, cache=cache, use_cache=True, logits_to_keep=1)
        self._layers = [(layer.keys, layer.values) for layer in cache.layers]
        self._tokens = list(common)
        return len(common)

    def expand(self, used: int, rows: int) -> Any:
        """A cache with the first `used` tokens for each of `rows` rows."""
        from transformers import DynamicCache

        cache = DynamicCache()
        if used:
            for number, (keys, values) in enumerate(self._layers):
                cache.update(
                    keys[:, :, :used].expand(rows, -1, -1, -1), values[:, :, :used].expand(rows, -1, -1, -1), number
                )
        return cache


@torch.inference_mode()
def score_replies(model: Any, cache: PromptCache, prompts: Sequence[list[int]], tree: ReplyTree) -> torch.Tensor:
    """The log-probability of each reply after each prompt, in nats, shape (prompts, replies).

    Args:
        prompts: tokens of each prompt, at least one.
        tree: the replies, each with the token that ends it.
    """
    used = cache.prepare(model, prompts)
    rests = [prompt[used:] for prompt in prompts]
    longest, inner, rows = max(map(len, rests)), tree.inner, len(prompts)
    nodes = len(inner)
    tokens = torch.zeros(rows, longest + nodes, dtype=torch.long)
    positions = torch.zeros(rows, longest + nodes, dtype=torch.long)
    reads = torch.zeros(rows, longest + nodes, used + longest + nodes, dtype=torch.bool)
    reads[:, :, :used] = True
    for row, rest in enumerate(rests):  # shorter prompts are padded at their beginning
        start = longest - len(rest)
        tokens[row, start:longest] = torch.tensor(rest)
        tokens[row, longest:] = torch.tensor(tree.tokens)[inner]
        positions[row, start:longest] = torch.arange(used, used + len(rest))
        positions[row, longest:] = used + len(rest) + tree.depths[inner]
        reads[row, start:longest, used + start : used + longest] = torch.tril(
            torch.ones(len(rest), len(rest), dtype=torch.bool)
        )
        reads[row, longest:, used + start : used + longest] = True
        reads[row, longest:, used + longest :] = tree.ancestors[inner][:, inner]
    device, dtype = model.device, model.dtype
    mask = torch.zeros(reads.shape, dtype=dtype).masked_fill(~reads, torch.finfo(dtype).min)[:, None]
    logits = model(
        input_ids=tokens.to(device),
        position_ids=positions.to(device),
        attention_mask=mask.to(device),
        cache=cache.expand(used, rows),
        use_cache=True,
        logits_to_keep=torch.arange(longest - 1, longest + nodes, device=device),
    ).logits
    # The output before a node predicts it: that of its parent, or of the prompt's last token.
    place = {-1: 0} | {node: number for number, node in enumerate(inner, 1)}
    rows_of = torch.tensor([place[parent] for parent in tree.parents], device=device)
    wanted = torch.tensor(tree.tokens, device=device)
    scores = torch.stack([torch.log_softmax(row.float(), -1)[rows_of, wanted] for row in logits]).cpu()
    return torch.stack([scores[:, list(path)].sum(1) for path in tree.paths], 1)
