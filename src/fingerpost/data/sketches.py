"""Sketches of conversations for near-duplicate search: hashes of bands of MinHash values (Broder 1997).

Two conversations are candidates for near-duplicates if their sketches share a band (locality-sensitive hashing). A
sketch is small enough to be stored with its question.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from fingerpost.core.text import SHINGLE, shingle_text, shingles
from fingerpost.core.types import Conversation, Message
from fingerpost.core.utils import chunks

Sketches = NDArray[np.uint32]
"""Shape (conversations, 1 + BANDS): a check value, then one hash per band."""
Shingles = NDArray[np.uint32]
"""Shape (distinct shingles,): hashes of the shingles of a conversation, sorted."""
PERMUTATIONS, BANDS = 128, 32
"""Four MinHash values per band find 98 % of the pairs with a Jaccard similarity of 0.7, and more above it."""
BATCH = 5_000
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # 2**64 divided by the golden ratio (Fibonacci hashing)


def shingles_of(conversation: Conversation) -> Shingles:
    """The hashes of a conversation's shingles, as `core.text.shingles` defines them."""
    codes = np.frombuffer(shingle_text(conversation).encode("utf-32-le", "surrogatepass"), dtype="<u4")
    hashes = np.zeros(len(codes) - SHINGLE + 1, dtype=np.uint64)
    for position in range(SHINGLE):
        hashes = (hashes ^ codes[position : position + len(hashes)]) * _FACTOR
        hashes ^= hashes >> np.uint64(32)
    return np.unique(hashes.astype(np.uint32))


def minhash(conversation: Conversation) -> RMinHash:
    """The MinHash values of a conversation's shingles."""
    values = RMinHash(num_perm=PERMUTATIONS, seed=1)
    values.update(list(shingles(conversation)))
    return values


def sketches_of(conversations: Iterable[Conversation]) -> Sketches:
    """The sketches of conversations, in order."""
    parts = [np.empty((0, 1 + BANDS), dtype="<u4")]
    for batch in chunks(conversations, BATCH):
        part = np.full((len(batch), 1 + BANDS), check_value(), dtype="<u4")
        part[:, 1:] = _band_hashes(batch)
        parts.append(part)
    return np.concatenate(parts)


@cache
def check_value() -> int:
    """The first value of every sketch. It changes with the algorithm: sketches with another one cannot be compared."""
    probe = (Message("user", "the quick brown fox jumps over the lazy dog"),)
    return int(np.bitwise_xor.reduce(_band_hashes([probe])[0]))


def _band_hashes(conversations: list[Conversation]) -> Sketches:
    """Shape (conversations, BANDS)."""
    values = np.array([minhash(conversation).digest() for conversation in conversations], dtype=np.uint64)
    bands = values.reshape(len(values), BANDS, PERMUTATIONS // BANDS)
    hashes = np.zeros(bands.shape[:2], dtype=np.uint64)
    for position in range(bands.shape[2]):
        hashes = (hashes ^ bands[:, :, position]) * _FACTOR
        hashes ^= hashes >> np.uint64(32)
    return hashes.astype("<u4")
