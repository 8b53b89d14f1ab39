"""Bundles at work outside a server: many texts or pictures in, arrays out, on all cores. Torch-free."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pyarrow as pa

from raysl import schema
from raysl.data.pixels import Pixels
from raysl.data.tokenizer_file import load_tokenizer
from raysl.errors import DataError
from raysl.release.bundle import CLASSIFIER, ENCODER, TOKENIZER, Bundle
from raysl.release.pictures import StoredPictures

Floats = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int64]
PAD, SEP = 0, 3
"""Ids of the special tokens in every tokenizer that `prepare` trains."""
BATCH_TOKENS = 2048
"""Tokens, padding included, that one call of the model reads: what stays in a core's cache."""
CHUNK = 4096
"""Texts whose tokens are in memory at once."""
BATCH_PICTURES = 16
"""Pictures that one call of the model reads at most."""
BATCH_NUMBERS = BATCH_PICTURES * 224**2 * 3
"""Their numbers at most: of larger pictures fewer are a batch, as their maps inside the network are larger too."""


def most_pictures(numbers: int) -> int:
    """How many pictures of so many numbers each are BATCH_NUMBERS, at least one."""
    return max(1, BATCH_NUMBERS // numbers)


def open_session(path: Path) -> Any:
    """A session of one thread that sleeps while it waits: many sessions share a machine."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def padded(rows: Sequence[npt.NDArray[Any]]) -> Tokens:
    """Rows of token ids as one batch (batch, longest), filled up with PAD."""
    batch = np.full((len(rows), max(len(row) for row in rows)), PAD, np.int64)
    for place, row in zip(batch, rows, strict=True):
        place[: len(row)] = row
    return batch


def run_by_length(
    call: Callable[[Tokens], Sequence[Floats]],
    rows: Sequence[Tokens],
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


def _batches(order: Tokens, rows: Sequence[Tokens]) -> list[Tokens]:
    """Cuts rows sorted by length into batches of at most BATCH_TOKENS tokens, at least one row each."""
    batches, start = [], 0
    for stop in range(1, len(order) + 1):
        if stop == len(order) or (stop + 1 - start) * len(rows[order[stop]]) > BATCH_TOKENS:
            batches.append(order[start:stop])
            start = stop
    return batches


def no_report(_: int) -> None:
    """Tells nobody how many are done."""


class Runner:
    """The models in a folder of ONNX files (a bundle, sealed or in the making), for many texts or pictures at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sessions: dict[str, Any] = {}

    @staticmethod
    def of(bundle: Bundle) -> "Runner":
        """For what the bundle reads."""
        if bundle.decoding is not None:
            return PictureRunner(bundle.folder)
        return TextRunner(bundle.folder, bundle.max_tokens)

    def contents(self, rows: pa.Table) -> Sequence[Any]:
        """What the models read of prepared rows: texts, or pictures (channel, height, width)."""
        raise NotImplementedError

    def embed(self, contents: Sequence[Any], on_done: Callable[[int], None] = no_report) -> Floats:
        """Embeddings (rows, width) of the encoder."""
        return self._run_all(ENCODER, contents, on_done)[0]

    def classify(self, contents: Sequence[Any]) -> tuple[Floats, Floats]:
        """Logits (rows, classes) and the classifier's embeddings (rows, width)."""
        logits, embeddings = self._run_all(CLASSIFIER, contents, no_report)
        return logits, embeddings

    def answer_one(self, name: str, content: Any) -> Floats:
        """First output of one model for one text or picture, alone in its batch, as a single request is answered."""
        return np.asarray(self.session(name).run(None, self._feed([content]))[0])

    def session(self, name: str) -> Any:
        if name not in self._sessions:
            self._sessions[name] = open_session(self.folder / name)
        return self._sessions[name]

    def _run_all(self, name: str, contents: Sequence[Any], on_done: Callable[[int], None]) -> list[Floats]:
        if not len(contents):
            raise DataError("There are no rows to run the model on.")
        return self._run(self.session(name), contents, on_done)

    def _feed(self, contents: Sequence[Any]) -> dict[str, npt.NDArray[Any]]:
        """One batch, by the name of the model's input."""
        raise NotImplementedError

    def _run(self, session: Any, contents: Sequence[Any], on_done: Callable[[int], None]) -> list[Floats]:
        raise NotImplementedError


class PictureRunner(Runner):
    """Pictures of one size, read and decoded where they lie when their batch comes."""

    def contents(self, rows: pa.Table) -> Sequence[Pixels]:
        return StoredPictures(rows)

    def _feed(self, contents: Sequence[Pixels]) -> dict[str, npt.NDArray[Any]]:
        return {"pixels": np.stack(contents)}

    def _run(self, session: Any, contents: Sequence[Pixels], on_done: Callable[[int], None]) -> list[Floats]:
        size = min(BATCH_PICTURES, most_pictures(contents[0].size))
        starts = range(0, len(contents), size)
        parts = []
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for outputs in pool.map(lambda start: session.run(None, self._feed(contents[start : start + size])), starts):
                parts.append(outputs)
                on_done(len(outputs[0]))
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]


class TextRunner(Runner):
    """Texts, by the tokenizer beside the models."""

    def __init__(self, folder: Path, max_tokens: int) -> None:
        super().__init__(folder)
        self.max_tokens = max_tokens
        self.tokenizer = load_tokenizer(folder / TOKENIZER)

    def contents(self, rows: pa.Table) -> Sequence[str]:
        texts: list[str] = rows[schema.TEXT].to_pylist()
        return texts

    def _feed(self, contents: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
        return {"tokens": padded(self.to_rows(contents))}

    def to_rows(self, texts: Sequence[str]) -> list[Tokens]:
        """Token ids of each text with the closing [SEP] that training saw, cut at `max_tokens`; none is empty."""
        encodings = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [np.array([*encoding.ids[: self.max_tokens - 1], SEP], np.int64) for encoding in encodings]

    def _run(self, session: Any, contents: Sequence[str], on_done: Callable[[int], None]) -> list[Floats]:
        parts = [
            run_by_length(
                lambda batch: session.run(None, {"tokens": batch}), self.to_rows(contents[start : start + CHUNK]), on_done
            )
            for start in range(0, len(contents), CHUNK)
        ]
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]


def softmax(logits: Floats, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Probabilities over the last axis; `temperature` is the one fitted on held-out rows at release (Guo et al., 2017).

    Of doubles: of floats all above 1 - 3e-8 would be 1, in the window kept at release and not in what is recorded.
    """
    scaled = np.asarray(logits, np.float64) / temperature
    scaled -= scaled.max(axis=-1, keepdims=True)
    weights = np.exp(scaled)
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))
