"""The lexical view: a linear classifier of word and character n-grams. It reads the whole text, in any language.

Prediction needs only numpy and takes about a tenth of a millisecond for a short text. Training uses scikit-learn's linear
support vector machine (Fan et al. 2008, LIBLINEAR) on TF-IDF features.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from fingerpost.core.errors import ModelError
from fingerpost.core.text import normalise

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Array: TypeAlias = NDArray[np.float32]

CHARACTERS = range(2, 6)
"""Lengths of the character n-grams. They do not cross word boundaries."""
MIN_TEXTS = 2
"""N-grams that occur in fewer training texts are left out. They still count in a text's norm."""
MAX_NGRAMS = 100_000
MAX_WORDS_SEEN, LONGEST_WORD_SEEN = 20_000, 32
"""Words whose n-grams are remembered, and their length in characters: at most about 30 MB."""
STRENGTHS, STRENGTH_ROWS = (0.3, 1.0), 1_000
"""C, the inverse regularisation strength of the support vector machine: STRENGTH_ROWS / rows, within these limits."""
TOLERANCE = 1e-2
ABSENT = -1.0
"""Score of a label that has no training row."""
LARGEST = 127  # of an 8-bit weight

BLOCKS = 2  # words and characters, each with unit norm

_WORD = re.compile(r"\w+")


def word_ngrams(text: str) -> list[str]:
    """The words of a normalised text, and its pairs of adjacent words."""
    words = _WORD.findall(text)
    return words + [f"{first} {second}" for first, second in pairwise(words)]


def character_ngrams(text: str) -> list[str]:
    """The substrings of 2 to 5 characters of each word of a normalised text, with a space at both ends of the word."""
    grams: list[str] = []
    for part in text.split():
        padded = f" {part} "
        length = len(padded)
        for size in CHARACTERS:
            grams += [padded[start : start + size] for start in range(length - size + 1)]
    return grams


def _known(grams: Sequence[str], index: Mapping[str, int]) -> tuple[list[int], int]:
    """The numbers of n-grams, and how many have none."""
    numbers = [number for number in map(index.get, grams) if number is not None]
    return numbers, len(grams) - len(numbers)


class Ngrams:
    """Turns texts into TF-IDF features: word n-grams and character n-grams, each block with unit norm.

    Term frequencies are 1 + ln(count), inverse document frequencies are smoothed, as in scikit-learn. An n-gram that is
    not in the vocabulary has no feature, but counts in the norm. So an unfamiliar text gets small features, and scores
    near those of an empty text.

    Args:
        words, characters: the n-grams of each block, in the order of their features.
        idf: inverse document frequencies, shape (features,).
        unknown_idf: the inverse document frequency of all other n-grams.
    """

    def __init__(self, words: Sequence[str], characters: Sequence[str], idf: Array, unknown_idf: float) -> None:
        self.words, self.characters, self.idf, self.unknown_idf = list(words), list(characters), idf, unknown_idf
        self._word_index = {gram: i for i, gram in enumerate(self.words)}
        self._character_index = {gram: i for i, gram in enumerate(self.characters, len(self.words))}
        self._idf = idf.tolist()
        self._words_seen: dict[str, tuple[list[int], int]] = {}

    def __len__(self) -> int:
        return len(self.idf)

    @classmethod
    def fit(cls, texts: Iterable[str]) -> Ngrams:
        """The n-grams that occur in at least MIN_TEXTS texts; the most frequent ones where there are too many."""
        counts: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        total = 0
        for text in texts:
            normal = normalise(text)
            counts[0].update(set(word_ngrams(normal)))
            counts[1].update(set(character_ngrams(normal)))
            total += 1
        kept = [
            sorted(gram for gram, count in block.most_common(MAX_NGRAMS // 2) if count >= min(MIN_TEXTS, total))
            for block in counts
        ]
        frequencies = np.array([block[gram] for block, grams in zip(counts, kept, strict=True) for gram in grams])
        idf = np.log((1 + total) / (1 + frequencies)) + 1
        return cls(kept[0], kept[1], idf.astype(np.float32), math.log((1 + total) / 2) + 1)

    def features(self, text: str) -> tuple[list[int], list[float]]:
        """The numbers of a text's features, and their values."""
        normal = normalise(text)
        numbers: list[int] = []
        values: list[float] = []
        idf, unknown = self._idf, self.unknown_idf**2
        for found, missing in (_known(word_ngrams(normal), self._word_index), self._characters_of(normal)):
            squares = missing * unknown
            block: list[float] = []
            for number, count in Counter(found).items():
                value = idf[number] if count == 1 else (1 + math.log(count)) * idf[number]
                squares += value * value
                block.append(value)
                numbers.append(number)
            scale = 1 / math.sqrt(squares) if squares else 0.0
            values += [value * scale for value in block]
        return numbers, values

    def _characters_of(self, normal: str) -> tuple[list[int], int]:
        """The numbers of a normalised text's character n-grams, and how many have none. Frequent words are remembered."""
        numbers: list[int] = []
        missing = 0
        for word in normal.split():
            known = self._words_seen.get(word)
            if known is None:
                known = _known(character_ngrams(word), self._character_index)
                if len(word) <= LONGEST_WORD_SEEN:
                    if len(self._words_seen) >= MAX_WORDS_SEEN:
                        self._words_seen.clear()
                    self._words_seen[word] = known
            numbers += known[0]
            missing += known[1]
        return numbers, missing

    def matrix(self, texts: Iterable[str]) -> csr_matrix:
        """The features of texts as a sparse matrix, shape (texts, features)."""
        from scipy.sparse import csr_matrix

        columns: list[NDArray[np.int32]] = []
        values: list[Array] = []
        starts = [0]
        for text in texts:
            numbers, weights = self.features(text)
            columns.append(np.array(numbers, dtype=np.int32))
            values.append(np.array(weights, dtype=np.float32))
            starts.append(starts[-1] + len(numbers))
        if not columns:
            return csr_matrix((0, len(self)), dtype=np.float32)
        return csr_matrix((np.concatenate(values), np.concatenate(columns), starts), shape=(len(columns), len(self)))


@dataclass(frozen=True, slots=True)
class LinearScores:
    """One-vs-rest linear scores.

    Attributes:
        weights: shape (features, labels).
        bias: shape (labels,).
    """

    weights: Array
    bias: Array

    def scores(self, matrix: csr_matrix) -> Array:
        """Signed distances from the boundary of each label, shape (rows, labels)."""
        result: Array = np.asarray(matrix @ self.weights + self.bias, dtype=np.float32)
        return result


def fit_scores(matrix: csr_matrix, targets: Array, weights: Array, seed: int = 0) -> LinearScores:
    """Fit a linear support vector machine to the most probable label of each row.

    Args:
        matrix: features, shape (rows, features).
        targets: label probabilities, shape (rows, labels).
        weights: shape (rows,). A row weighs less where its most probable label is uncertain.
        seed: of LIBLINEAR's order of rows.
    """
    from sklearn.svm import LinearSVC

    labels = targets.argmax(1)
    found = np.unique(labels)
    count = targets.shape[1]
    result = LinearScores(
        np.zeros((matrix.shape[1], count), dtype=np.float32), np.full(count, ABSENT, dtype=np.float32)
    )
    if len(found) < 2:
        result.bias[found] = -ABSENT
        return result
    machine = LinearSVC(C=_strength(len(targets)), tol=TOLERANCE, random_state=seed)
    machine.fit(matrix, labels, sample_weight=np.asarray(weights * targets.max(1), dtype=np.float64))
    coefficients, intercepts = machine.coef_, machine.intercept_
    if len(found) == 2:
        coefficients, intercepts = np.vstack([-coefficients, coefficients]), np.append(-intercepts, intercepts)
    result.weights[:, found] = coefficients.T
    result.bias[found] = intercepts
    return result


def fit_binary_scores(matrix: csr_matrix, targets: Array, weights: Array, seed: int = 0) -> LinearScores:
    """Fit a linear support vector machine for each label, which tells its rows from all others.

    Args:
        matrix: features, shape (rows, features).
        targets: independent label probabilities, shape (rows, labels).
        weights: shape (rows, labels). A row weighs less where its label is uncertain.
        seed: of LIBLINEAR's order of rows.
    """
    from sklearn.svm import LinearSVC

    has = targets >= 0.5
    certainty = np.asarray(weights * np.maximum(targets, 1 - targets), dtype=np.float64)
    count = targets.shape[1]
    result = LinearScores(np.zeros((matrix.shape[1], count), dtype=np.float32), np.zeros(count, dtype=np.float32))
    for label in range(count):
        if has[:, label].all() or not has[:, label].any():
            result.bias[label] = -ABSENT if has[:, label].all() else ABSENT
            continue
        machine = LinearSVC(C=_strength(len(targets)), tol=TOLERANCE, random_state=seed)
        machine.fit(matrix, has[:, label], sample_weight=certainty[:, label])
        result.weights[:, label], result.bias[label] = machine.coef_[0], machine.intercept_[0]
    return result


def _strength(rows: int) -> float:
    return float(np.clip(STRENGTH_ROWS / rows, *STRENGTHS))


def scores_out_of_fold(
    matrix: csr_matrix, targets: Array, weights: Array, folds: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]
) -> Array:
    """The scores of each row by a model that was fitted without the row's fold; shape (rows, labels).

    Args:
        folds: pairs of training rows and held-out rows.
    """
    scores = np.full_like(targets, ABSENT)

    for train, held_out in folds:  # one after another: LIBLINEAR's random numbers are shared by all threads
        scores[held_out] = fit_scores(matrix[train], targets[train], weights[train]).scores(matrix[held_out])
    return scores


def familiarity_of(matrix: csr_matrix) -> Array:
    """The familiarity of texts with these features, shape (rows,); see `LexicalView.scores_and_familiarity`."""
    squares: Array = np.asarray(matrix.multiply(matrix).sum(1), dtype=np.float32).ravel()
    return squares / np.float32(BLOCKS)


def held_out_familiarity(matrix: csr_matrix) -> Array:
    """The familiarity that each training text would have for a model that was not trained on it, shape (rows,).

    Only n-grams that occur in MIN_TEXTS other texts count as known.
    """
    frequencies = np.asarray((matrix > 0).sum(0)).ravel()
    return familiarity_of(matrix[:, np.flatnonzero(frequencies > MIN_TEXTS)])


class LexicalView:
    """N-gram features with a linear model on them; stored in one file without pickle."""

    def __init__(self, ngrams: Ngrams, model: LinearScores) -> None:
        self.ngrams, self.model = ngrams, model

    def scores(self, texts: Sequence[str]) -> Array:
        """Signed distances from the boundary of each label, shape (texts, labels)."""
        return self.scores_and_familiarity(texts)[0]

    def scores_and_familiarity(self, texts: Sequence[str]) -> tuple[Array, Array]:
        """Signed distances from the boundary of each label, shape (texts, labels); and familiarity, shape (texts,).

        The familiarity of a text is the share of its known n-grams, weighted by their squared TF-IDF: 0 to 1.
        """
        rows = np.empty((len(texts), len(self.model.bias)), dtype=np.float32)
        familiarity = np.zeros(len(texts), dtype=np.float32)
        for row, text in enumerate(texts):
            numbers, values = self.ngrams.features(text)
            features = np.array(values, dtype=np.float32)
            rows[row] = features @ self.model.weights[numbers] if numbers else 0.0
            familiarity[row] = features @ features / BLOCKS
        rows += self.model.bias
        return rows, familiarity

    def save(self, file: Path) -> None:
        """Write the view as a compressed .npz file."""
        weights, scales = _quantise(self.model.weights)
        with file.open("wb") as stream:
            np.savez_compressed(
                stream,
                words=_packed(self.ngrams.words),
                characters=_packed(self.ngrams.characters),
                idf=self.ngrams.idf,
                unknown_idf=np.float64(self.ngrams.unknown_idf),
                weights=weights,
                scales=scales,
                bias=self.model.bias,
            )

    @classmethod
    def load(cls, file: Path) -> LexicalView:
        """Read a file that `save` wrote.

        Raises:
            ModelError: the file is not such a file.
        """
        try:
            with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                ngrams = Ngrams(
                    _unpacked(stored["words"]),
                    _unpacked(stored["characters"]),
                    stored["idf"],
                    float(stored["unknown_idf"]),
                )
                weights = stored["weights"] * stored["scales"][:, None]
                return cls(ngrams, LinearScores(weights.astype(np.float32), stored["bias"]))
        except (ValueError, KeyError, OSError, BadZipFile) as error:
            raise ModelError(f"{file} cannot be loaded ({str(error)[:120]}); train the model again") from None


def margins(scores: Array) -> Array:
    """The difference of the two highest scores of each row, shape (rows,)."""
    highest = np.partition(scores, -2, axis=1)
    result: Array = highest[:, -1] - highest[:, -2]
    return result


def _quantise(weights: Array) -> tuple[NDArray[np.int8], Array]:
    scales = np.maximum(np.abs(weights).max(1), 1e-12) / LARGEST
    return np.round(weights / scales[:, None]).astype(np.int8), scales.astype(np.float32)


def _packed(grams: Sequence[str]) -> NDArray[np.uint8]:
    """N-grams as one array of bytes. They hold no line breaks, because `normalise` collapses white space."""
    return np.frombuffer("\n".join(grams).encode("utf-8", "surrogatepass"), dtype=np.uint8)


def _unpacked(packed: NDArray[np.uint8]) -> list[str]:
    text = packed.tobytes().decode("utf-8", "surrogatepass")
    return text.split("\n") if text else []
