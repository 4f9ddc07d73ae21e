"""Several replies in one sequence: their common prompt is computed once, and no padding is needed.

A packed sequence is a common prefix followed by branches. Each branch reads the prefix and itself: the attention mask hides
the other branches, and positions count on from the prefix. So the result is the same as that of separate sequences. A
classifier's prompts differ in the last message alone, so that this saves most of the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fingerpost.students.lora.dialogues import Item, common_beginning


@dataclass(frozen=True, slots=True)
class Packed:
    """A packed sequence.

    Attributes:
        tokens: shape (tokens,).
        positions: of each token in its own conversation, shape (tokens,).
        mask: added to the attention's scores: 0 where a token (row) reads another (column), else the lowest number; shape
            (1, 1, tokens, tokens).
        predicting: the places whose output predicts a learnt token, shape (learnt,).
        targets: these tokens, shape (learnt,).
        weights: of each of them in the loss, shape (learnt,).
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    predicting: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor

    def to(self, device: torch.device) -> Packed:
        """The same sequence on a device."""
        return Packed(*(getattr(self, name).to(device) for name in self.__slots__))


def pack(items: Sequence[Item], limit: int, dtype: torch.dtype = torch.float32) -> list[Packed]:
    """All items in as few sequences as fit, in order.

    Args:
        limit: the most tokens of a sequence that has more than one item.
        dtype: of the mask, as the model computes.
    """
    found: list[Packed] = []
    chosen: list[Item] = []
    for item in items:
        if chosen and _length([*chosen, item]) > limit:
            found.append(_pack(chosen, dtype))
            chosen = []
        chosen.append(item)
    return [*found, _pack(chosen, dtype)] if chosen else found


def _shared(items: Sequence[Item]) -> int:
    """The length of the items' common prefix; each keeps at least the last token of its prompt."""
    return len(common_beginning([item.prompt[:-1] for item in items]))


def _length(items: Sequence[Item]) -> int:
    shared = _shared(items)
    return shared + sum(len(item.prompt) - shared + len(item.reply) for item in items)


def _pack(items: Sequence[Item], dtype: torch.dtype) -> Packed:
    shared = _shared(items)
    tokens = list(items[0].prompt[:shared])
    positions = list(range(shared))
    owners = [-1] * shared
    predicting: list[int] = []
    targets: list[int] = []
    weights: list[float] = []
    for number, item in enumerate(items):
        branch = [*item.prompt[shared:], *item.reply]
        first = len(tokens) + len(item.prompt) - shared
        predicting += range(first - 1, first - 1 + len(item.reply))
        targets += item.reply
        weights += [item.weight] * len(item.reply)
        tokens += branch
        positions += range(shared, shared + len(branch))
        owners += [number] * len(branch)
    return Packed(
        torch.tensor(tokens),
        torch.tensor(positions),
        branch_mask(torch.tensor(owners), dtype)[None, None],
        torch.tensor(predicting),
        torch.tensor(targets),
        torch.tensor(weights, dtype=torch.float32),
    )


def branch_mask(owners: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What each token reads, to be added to the attention's scores; shape (tokens, tokens).

    Args:
        owners: the branch of each token, -1 in the common prefix, shape (tokens,).
    """
    order = torch.arange(len(owners))
    reads = (order[:, None] >= order[None]) & ((owners[None] == -1) | (owners[:, None] == owners[None]))
    return torch.zeros(len(owners), len(owners), dtype=dtype).masked_fill(~reads, torch.finfo(dtype).min)


def losses(model: Any, packed: Packed) -> tuple[torch.Tensor, torch.Tensor]:
    """The weighted loss of each learnt token in nats, and whether it is the most probable one; both of shape (learnt,)."""
    one = packed.to(model.device)
    logits = model(
        input_ids=one.tokens[None],
        position_ids=one.positions[None],
        attention_mask=one.mask,
        use_cache=False,
        logits_to_keep=one.predicting,
    ).logits[0]
    nll = torch.nn.functional.cross_entropy(logits.float(), one.targets, reduction="none")
    return nll * one.weights, logits.argmax(-1) == one.targets


@torch.inference_mode()
def dev_losses(model: Any, items: Sequence[Item], limit: int, dtype: torch.dtype) -> tuple[float, float]:
    """The mean loss of the items' tokens in nats, and the share of them that are the most probable ones."""
    nll = weight = right = count = 0.0
    for packed in pack(items, limit, dtype):
        found, hits = losses(model, packed)
        nll += float(found.sum())
        weight += float(packed.weights.sum())
        right += float(hits.sum())
        count += len(hits)
    return nll / max(weight, 1e-9), right / max(1.0, count)
