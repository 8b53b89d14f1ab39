"""Bundles at work outside a server: many texts in, arrays out, on all cores. Torch-free."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from tokenizers import Tokenizer

from raysl.release.bundle import CLASSIFIER, ENCODER, TOKENIZER, Bundle

Floats = npt.NDArray[np.float32]
PAD, SEP = 0, 3
"""Ids of the special tokens in every tokenizer that `prepare` trains."""
BATCH_TOKENS = 8192
"""Tokens, padding included, that one call of the model reads."""


def open_session(path: Path) -> Any:
    """A session of one thread that sleeps while it waits: many sessions share a machine."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def padded(rows: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.int64]:
    """Rows of token ids as one batch (batch, longest), filled up with PAD."""
    batch = np.full((len(rows), max(len(row) for row in rows)), PAD, np.int64)
    for place, row in zip(batch, rows, strict=True):
        place[: len(row)] = row
    return batch


def load_tokenizer(path: Path) -> Tokenizer:
    return Tokenizer.from_file(str(path))


def to_rows(tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int) -> list[npt.NDArray[np.int64]]:
    """Token ids of each text with the closing [SEP] that training saw, cut at `max_tokens`."""
    encodings = tokenizer.encode_batch(list(texts), add_special_tokens=False)
    return [np.array([*encoding.ids[:max_tokens], SEP][:max_tokens], np.int64) for encoding in encodings]


def run_by_length(
    call: Callable[[npt.NDArray[np.int64]], Sequence[Floats]],
    rows: Sequence[npt.NDArray[np.int64]],
    on_done: Callable[[int], None] = lambda _: None,
) -> list[Floats]:
    """Outputs of `call` for all rows, in their order; batches hold rows of similar length, so little is padding.

    Batches run on all cores: ONNX Runtime lets go of Python's lock while it computes.
    """
    order = np.argsort([len(row) for row in rows], kind="stable")
    batches = _batches(order, rows)
    outputs: list[Floats] | None = None
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for places, results in zip(batches, pool.map(lambda p: call(padded([rows[i] for i in p])), batches), strict=True):
            outputs = outputs or [np.empty((len(rows), *result.shape[1:]), np.float32) for result in results]
            for output, result in zip(outputs, results, strict=True):
                output[places] = result
            on_done(len(places))
    return outputs or []


def _batches(order: npt.NDArray[np.int64], rows: Sequence[npt.NDArray[np.int64]]) -> list[npt.NDArray[np.int64]]:
    """Cuts rows sorted by length into batches of at most BATCH_TOKENS tokens, at least one row each."""
    batches, start = [], 0
    for stop in range(1, len(order) + 1):
        if stop == len(order) or (stop + 1 - start) * len(rows[order[stop]]) > BATCH_TOKENS:
            batches.append(order[start:stop])
            start = stop
    return batches


class BundleRunner:
    """The models of a bundle, for many texts at once."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.tokenizer = load_tokenizer(bundle.path(TOKENIZER))
        self._sessions: dict[str, Any] = {}

    def embed(self, texts: Sequence[str], on_done: Callable[[int], None] = lambda _: None) -> Floats:
        """Embeddings (texts, width)."""
        outputs = self._run(ENCODER, texts, on_done)
        return outputs[0] if outputs else np.empty((0, self.bundle.width), np.float32)

    def classify(self, texts: Sequence[str]) -> tuple[Floats, Floats]:
        """Probabilities (texts, classes) and embeddings (texts, width)."""
        outputs = self._run(CLASSIFIER, texts)
        if not outputs:
            return np.empty((0, len(self.bundle.classes)), np.float32), np.empty((0, self.bundle.width), np.float32)
        return softmax(outputs[0]), outputs[1]

    def _run(self, name: str, texts: Sequence[str], on_done: Callable[[int], None] = lambda _: None) -> list[Floats]:
        rows = to_rows(self.tokenizer, texts, self.bundle.max_tokens)
        return run_by_length(lambda batch: self.session(name).run(None, {"tokens": batch}), rows, on_done) if rows else []

    def session(self, name: str) -> Any:
        if name not in self._sessions:
            self._sessions[name] = open_session(self.bundle.path(name))
        return self._sessions[name]


def softmax(logits: Floats) -> Floats:
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=-1, keepdims=True), np.float32)
