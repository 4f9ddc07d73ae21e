"""What an encoder's lower layers compute, kept for training the upper ones: these layers need not run again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fingerpost.students.encoder.network import EMBED_BATCH, Encoder, Network


class CachedLayers:
    """Stands in for an encoder's lower layers: gives back what they computed for each text.

    Args:
        layers: the encoder's list of layers, whose first ones are replaced from `replay` to `restore`.
        lower: those first ones.
        states: their output for each text, shape (tokens, width).
    """

    def __init__(self, layers: torch.nn.ModuleList, lower: list[torch.nn.Module], states: list[torch.Tensor]) -> None:
        self._layers, self._lower, self._states = layers, lower, states

    @classmethod
    def of(cls, encoder: Encoder, network: Network, texts: Sequence[str], upper: int) -> CachedLayers | None:
        """Freeze all but the upper layers and compute the others' output; None if the encoder has no such list of layers."""
        layers = layers_of(network)
        if layers is None or not 0 < upper < len(layers) or min(layer for layer, _ in network.parts) < -upper:
            return None
        network.encoder.requires_grad_(False)
        layers[-upper:].requires_grad_(True)
        device = next(network.parameters()).device
        states: list[torch.Tensor] = [torch.empty(0)] * len(texts)
        found: list[torch.Tensor] = []
        handle = layers[-upper - 1].register_forward_hook(
            lambda _, __, output: found.append(output[0] if isinstance(output, tuple) else output)
        )
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        with torch.inference_mode():
            for start in range(0, len(order), EMBED_BATCH):
                chosen = order[start : start + EMBED_BATCH]
                tokens = {key: value.to(device) for key, value in encoder.tokens([texts[i] for i in chosen]).items()}
                network.embed(**tokens)
                counts = tokens["attention_mask"].sum(1).tolist()
                for i, row, count in zip(chosen, found.pop(), counts, strict=True):
                    states[i] = row[:count].to(torch.bfloat16).clone()
        handle.remove()
        return cls(layers, list(layers[:-upper]), states)

    def replay(self, batch: NDArray[np.int64]) -> None:
        """From now on, the lower layers give the output for these texts."""
        output = torch.nn.utils.rnn.pad_sequence([self._states[i] for i in batch], batch_first=True).float()
        for number in range(len(self._lower)):
            self._layers[number] = _Fixed(output)

    def restore(self) -> None:
        """The lower layers compute again."""
        for number, layer in enumerate(self._lower):
            self._layers[number] = layer


class _Fixed(torch.nn.Module):
    """Gives the same output for any input."""

    def __init__(self, output: torch.Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, *_: Any, **__: Any) -> torch.Tensor:
        return self.output


def layers_of(network: Network) -> torch.nn.ModuleList | None:
    """The encoder's list of transformer layers, or None."""
    count = getattr(getattr(network.encoder, "config", None), "num_hidden_layers", None)
    lists = (module for module in network.encoder.modules() if isinstance(module, torch.nn.ModuleList))
    return next((module for module in lists if len(module) == count), None)
