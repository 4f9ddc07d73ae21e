"""Inference of the sentence-encoder student: tokenizer, ONNX graph, n-grams, softmax. Does not need torch."""

from __future__ import annotations

import shutil
import tempfile
import time
import weakref
from collections.abc import Sequence
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from fingerpost.core.errors import InputError, ModelError
from fingerpost.core.label_sets import join_labels
from fingerpost.core.predictor import BasePredictor
from fingerpost.core.text import encoder_input
from fingerpost.core.types import FAST, WHOLE, Conversation, Prediction, Usage
from fingerpost.students.folder import LEXICAL_FILE, MODEL_FILE, TOKENIZER_FILE, Manifest, copy_model, read_manifest
from fingerpost.students.lexical import LexicalView, margins

BATCH = 16

Tiers: TypeAlias = Literal["auto", "all", "fast"]
"""`auto`: the lexical view answers alone where it is sure. `all`: all views answer every text. `fast`: the lexical view
answers every text."""


LOGITS, VECTOR = "logits", "sentence_vector"
"""The outputs of the encoder's graph."""


class EncoderStudent(BasePredictor):
    """The sentence-encoder student as a predictor; create it with `fingerpost.load`.

    Raises:
        ModelError: on construction, if a view cannot be loaded or does not fit the labels.
        InputError: on construction, if `tiers` is unknown, or is `fast` and the model has no fast tier.
    """

    def __init__(self, folder: Path, manifest: Manifest, threads: int, tiers: Tiers = "auto") -> None:
        if tiers not in get_args(Tiers):
            raise InputError(f"there are no tiers '{tiers}'; write one of {', '.join(get_args(Tiers))}")
        if tiers == "fast" and manifest.fast is None and manifest.stack.encoder:
            more = "" if manifest.multi else ", or train it on more rows"
            raise InputError(f"{folder} has no fast tier; use --tiers auto{more}")
        self.name = folder.name
        self.folder = folder
        self.manifest = manifest
        self.labels = [label.name for label in manifest.labels]
        self._tiers: Tiers = tiers
        self._threads = threads
        self._lexical = LexicalView.load(folder / LEXICAL_FILE) if manifest.stack.lexical or manifest.fast else None
        self._encoder = EncoderView(folder, manifest.max_tokens, threads) if manifest.stack.encoder else None
        widths = {
            view: len(found)
            for view, found in (
                ("lexical view", self._lexical.model.bias if self._lexical else None),
                ("graph", range(self._encoder.width) if self._encoder else None),
            )
            if found is not None
        }
        for view, width in widths.items():
            if width != len(self.labels):
                raise ModelError(
                    f"{folder}: the {view} has {width} outputs for {len(self.labels)} labels; train it again"
                )

    def _predict(self, conversations: Sequence[Conversation]) -> list[Prediction]:
        """One prediction for each conversation, in order.

        `usage.latency_s` is the time of the batch in seconds, divided by its size. `tier` says whether the fast tier or
        the whole student answered. `usage.prompt` counts tokens, or words where the encoder read nothing.
        """
        texts = [encoder_input(messages, self.manifest.history) for messages in conversations]
        predictions: list[Prediction | None] = [None] * len(texts)
        began = time.perf_counter()
        lexical = np.zeros((len(texts), len(self.labels)), dtype=np.float32)
        if self._lexical is not None and texts:
            lexical, familiarity = self._lexical.scores_and_familiarity(texts)
            if self._encoder is not None and self._tiers != "fast":
                lexical[familiarity < self.manifest.stack.familiarity] = 0
        rest = list(range(len(texts)))
        fast = self.manifest.fast
        if fast is not None and texts and self._tiers != "all":
            sure = np.ones(len(texts), dtype=bool) if self._tiers == "fast" else margins(lexical) >= fast.margin
            rows = np.flatnonzero(sure)
            if len(rows):
                probabilities = softmax(lexical[rows] / fast.temperature)
                seconds = (time.perf_counter() - began) / len(texts)
                for i, row in zip(rows.tolist(), probabilities, strict=True):
                    usage = Usage(prompt=len(texts[i].split()), cost_usd=0.0, latency_s=seconds)
                    predictions[i] = self._prediction(row, FAST, usage)
                rest = np.flatnonzero(~sure).tolist()
        lexical_seconds = (time.perf_counter() - began) / max(1, len(texts))
        if self._encoder is None:
            for i, row in zip(rest, self._probabilities(lexical[rest]), strict=True):
                usage = Usage(prompt=len(texts[i].split()), cost_usd=0.0, latency_s=lexical_seconds)
                predictions[i] = self._prediction(row, WHOLE, usage)
            rest = []
        order = sorted(rest, key=lambda i: len(texts[i]))  # similar lengths need little padding
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            began = time.perf_counter()
            assert self._encoder is not None
            scores, tokens = self._encoder.scores([texts[i] for i in chosen])
            probabilities = self._probabilities(lexical[chosen], scores)
            seconds = lexical_seconds + (time.perf_counter() - began) / len(chosen)
            for i, row, count in zip(chosen, probabilities, tokens, strict=True):
                usage = Usage(prompt=count, cost_usd=0.0, latency_s=seconds)
                predictions[i] = self._prediction(row, WHOLE, usage)
        return [prediction for prediction in predictions if prediction is not None]

    @cached_property
    def all_views(self) -> EncoderStudent:
        """The same student without its fast tier."""
        student = copy(self)
        student._tiers = "all"
        return student

    def __copy__(self) -> EncoderStudent:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as the content of its model folder, so that it can be sent to another process or machine."""
        files = {file.name: file.read_bytes() for file in sorted(self.folder.iterdir()) if file.is_file()}
        return _unpickled, (self.name, files, self._threads, self._tiers)

    def save(self, folder: str | Path) -> None:
        """Copy the model folder.

        Raises:
            InputError: the target exists and is not a model folder.
        """
        copy_model(self.folder, Path(folder))

    def delete_folder_at_end(self) -> None:
        """Delete the temporary model folder once this object is garbage-collected."""
        weakref.finalize(self, shutil.rmtree, self.folder.parent, ignore_errors=True)

    def encoder_scores(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Scores of the encoder view, shape (texts, labels), of texts rendered by `encoder_input`.

        Raises:
            ModelError: the model has no encoder view.
        """
        if self._encoder is None:
            raise ModelError(f"{self.folder} has no encoder view")
        return self._encoder.scores(texts)[0]

    def embed(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], list[int]]:
        """Unit vectors of texts by the student's encoder, shape (texts, width), and their numbers of tokens.

        Raises:
            ModelError: the model has no encoder view, or an earlier version wrote it.
        """
        if self._encoder is None:
            raise ModelError(f"{self.folder} has no encoder view, so it has no embeddings")
        parts = [self._encoder.vectors(texts[i : i + BATCH]) for i in range(0, len(texts), BATCH)]
        return np.concatenate([rows for rows, _ in parts]), [count for _, counts in parts for count in counts]

    def count_tokens(self, text: str) -> int:
        """Number of tokens of a text, without special tokens; of words, if the model has no encoder view."""
        return len(text.split()) if self._encoder is None else self._encoder.count_tokens(text)

    def _logits(self, lexical: NDArray[np.float32], encoder: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        scores = np.zeros_like(lexical) if encoder is None else encoder
        logits: NDArray[np.float32] = self.manifest.stack.combine(scores, lexical) / np.float32(
            self.manifest.temperature
        )
        return logits

    def _probabilities(
        self, lexical: NDArray[np.float32], encoder: NDArray[np.float32] | None = None
    ) -> NDArray[np.float64]:
        logits = self._logits(lexical, encoder)
        return softmax(logits) if self.manifest.multi is None else sigmoid(logits)

    def _prediction(self, probabilities: NDArray[np.float64], tier: str, usage: Usage) -> Prediction:
        row = probabilities.tolist()
        if (multi := self.manifest.multi) is not None:
            chosen = multi.decide(probabilities[None])
            label = join_labels(name for name, given in zip(self.labels, chosen[0], strict=True) if given)
            confidence = float(multi.confidence(probabilities[None], chosen)[0])
            return Prediction(label, confidence, dict(zip(self.labels, row, strict=True)), self.name, usage, tier, True)
        confidence = max(row)
        label = self.labels[row.index(confidence)]
        return Prediction(label, confidence, dict(zip(self.labels, row, strict=True)), self.name, usage, tier)


def _unpickled(name: str, files: dict[str, bytes], threads: int, tiers: Tiers) -> EncoderStudent:
    """A student from the content of its model folder, which is written to a temporary one.

    Raises:
        ModelError: a file was altered.
    """
    folder = Path(tempfile.mkdtemp()) / name
    folder.mkdir()
    for file, content in files.items():
        (folder / Path(file).name).write_bytes(content)
    student = EncoderStudent(folder, read_manifest(folder), threads, tiers)
    student.delete_folder_at_end()
    return student


class EncoderView:
    """Tokenizer and ONNX graph of the encoder, with its linear head.

    Attributes:
        width: number of labels.

    Raises:
        ModelError: on construction, if the graph cannot be loaded.
    """

    def __init__(self, folder: Path, max_tokens: int, threads: int) -> None:
        self._tokenizer = limited(Tokenizer.from_file(str(folder / TOKENIZER_FILE)), max_tokens)
        self._session = open_session(folder / MODEL_FILE, threads)
        self.width = int(self._session.get_outputs()[0].shape[-1])

    def scores(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], list[int]]:
        """Scores, shape (texts, labels), and the number of tokens of each text.

        A text longer than the window is read in several: its scores are the mean of theirs, weighted by tokens.
        """
        if not texts:
            return np.zeros((0, self.width), dtype=np.float32), []
        return self._read(texts, LOGITS)

    def vectors(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], list[int]]:
        """Unit vectors, shape (texts, width of the encoder), and the number of tokens of each text.

        Raises:
            ModelError: the model was written by a version whose graphs have no vectors.
        """
        if VECTOR not in {output.name for output in self._session.get_outputs()}:
            raise ModelError("this model has no embeddings, because an earlier version wrote it; train it again")
        rows, counts = self._read(texts, VECTOR)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12), counts

    def _read(self, texts: Sequence[str], output: str) -> tuple[NDArray[np.float32], list[int]]:
        """An output of the graph, shape (texts, columns), and the number of tokens of each text."""
        encoded = self._tokenizer.encode_batch(list(texts))
        if not any(encoding.overflowing for encoding in encoded):
            return self._run(encoded, output), [sum(encoding.attention_mask) for encoding in encoded]
        windows, owners = windows_of(encoded)
        counts = np.array([sum(window.attention_mask) for window in windows], dtype=np.float32)
        rows = np.concatenate([self._run(windows[i : i + BATCH], output) for i in range(0, len(windows), BATCH)])
        return pooled(rows, owners, counts), [int(counts[owners == i].sum()) for i in range(len(texts))]

    def count_tokens(self, text: str) -> int:
        """Number of tokens of a text, without special tokens."""
        (encoded,) = self._tokenizer.encode_batch([text], add_special_tokens=False)
        return sum(len(part.ids) for part in [encoded, *encoded.overflowing])

    def _run(self, encoded: Sequence[Encoding], output: str) -> NDArray[np.float32]:
        longest = max(sum(encoding.attention_mask) for encoding in encoded)
        feed = {
            "input_ids": np.array([encoding.ids[:longest] for encoding in encoded], dtype=np.int64),
            "attention_mask": np.array([encoding.attention_mask[:longest] for encoding in encoded], dtype=np.int64),
        }
        scores: NDArray[np.float32] = self._session.run([output], feed)[0]
        return scores


def windows_of(encoded: Sequence[Encoding]) -> tuple[list[Encoding], NDArray[np.int64]]:
    """All windows of tokenised texts, and the number of the text that each belongs to, shape (windows,)."""
    windows, owners = [], []
    for number, encoding in enumerate(encoded):
        parts = [encoding, *encoding.overflowing]
        windows += parts
        owners += [number] * len(parts)
    return windows, np.array(owners)


def pooled(rows: NDArray[np.float32], owners: NDArray[np.int64], counts: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of each text's windows, weighted by their numbers of tokens; shape (texts, columns).

    Args:
        rows: shape (windows, columns).
        owners: the text of each window, ascending, shape (windows,).
        counts: number of tokens of each window, shape (windows,).
    """
    starts = np.flatnonzero(np.diff(owners, prepend=-1))
    sums = np.add.reduceat(rows * counts[:, None], starts)
    means: NDArray[np.float32] = (sums / np.add.reduceat(counts, starts)[:, None]).astype(np.float32)
    return means


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Softmax over the labels, shape (rows, labels)."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True, initial=-np.inf))
    result: NDArray[np.float64] = shifted / shifted.sum(axis=1, keepdims=True)
    return result


def sigmoid(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """The logistic function, in the same shape."""
    result: NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -60, 60)))
    return result


def limited(tokenizer: Tokenizer, max_tokens: int) -> Tokenizer:
    """Set a tokenizer to windows of `max_tokens` and padding to the longest of a batch; returns the same tokenizer."""
    tokenizer.enable_truncation(max_length=max_tokens)
    pad = tokenizer.token_to_id("[PAD]") or tokenizer.token_to_id("<pad>") or 0
    tokenizer.enable_padding(pad_id=pad, pad_token=tokenizer.id_to_token(pad))
    return tokenizer


def open_session(file: Path, threads: int) -> onnxruntime.InferenceSession:
    """An onnxruntime session on the CPU with `threads` threads that do not spin while idle.

    Raises:
        ModelError: the file is not a valid graph.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if threads > 1:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"{file} cannot be loaded ({str(error)[:120]}); train the model again") from None
