"""A released bundle, opened for inference: ONNX sessions and what brings a text or a picture to them, no torch.

Costs one core per call and never spins when idle. The batch is the caller's: texts are padded to the longest of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from raysl.data.pixels import Pixels
from raysl.data.tokenizer_file import load_tokenizer
from raysl.release.bundle import CLASSIFIER, ENCODER, GENERATOR, TOKENIZER, Bundle, open_bundle
from raysl.release.runtime import SEP, most_pictures, open_session, padded

CHARS_PER_TOKEN = 24
"""Head of a long text that is tokenized first, in characters per token wanted."""

Tokens = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Classified:
    """Answer of the classifier for one batch."""

    logits: Floats
    """(batch, classes)"""
    embeddings: Floats
    """(batch, width), length one."""


class BundleSession:
    """Answers with the networks of one bundle; each is loaded when it is first asked for."""

    reads: ClassVar[Literal["text", "image"]]
    """What requests are about."""
    max_batch_size: int | None = None
    """Requests that one call of the networks answers at most, where they bound it."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.classes = bundle.classes
        self.temperature = float(bundle.manifest.get("temperature", 1.0))

    @staticmethod
    def open(folder: str | Path) -> "TextSession | PictureSession":
        """Opens a bundle folder; BundleError where it is cut off or altered."""
        bundle = open_bundle(folder)
        return TextSession(bundle) if bundle.decoding is None else PictureSession(bundle)

    @cached_property
    def encoder(self) -> Any:
        return open_session(self.bundle.path(ENCODER))

    @cached_property
    def classifier(self) -> Any:
        return open_session(self.bundle.path(CLASSIFIER))

    @cached_property
    def generator(self) -> Any:
        return open_session(self.bundle.path(GENERATOR))

    def embed(self, contents: Sequence[Any]) -> Floats:
        """Embeddings of length one, one row a text or picture."""
        (embeddings,) = self.encoder.run(["embedding"], self.feed(contents))
        return np.asarray(embeddings, np.float32)  # (batch, width)

    def classify(self, contents: Sequence[Any]) -> Classified:
        """Logits and embeddings of the same pass."""
        logits, embeddings = self.classifier.run(["logits", "embedding"], self.feed(contents))
        return Classified(np.asarray(logits, np.float32), np.asarray(embeddings, np.float32))

    def feed(self, contents: Sequence[Any]) -> dict[str, NDArray[Any]]:
        """One batch, by the name of the networks' input."""
        raise NotImplementedError


class PictureSession(BundleSession):
    """Answers pictures (channel, height, width), decoded as those were that the model was trained on."""

    reads = "image"

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        assert bundle.decoding is not None
        self.max_batch_size = most_pictures(bundle.decoding.form.row_bytes)

    def feed(self, contents: Sequence[Pixels]) -> dict[str, NDArray[Any]]:
        return {"pixels": np.stack(contents)}  # (batch, channel, height, width)


class TextSession(BundleSession):
    """Answers texts."""

    reads = "text"

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        self.max_tokens, self.context_length = bundle.max_tokens, bundle.context_length
        self.tokenizer = load_tokenizer(bundle.path(TOKENIZER))

    def feed(self, contents: Sequence[str]) -> dict[str, NDArray[Any]]:
        return {"tokens": self.tokenize(contents)}

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Ids of each text and [SEP], cut to `max_tokens` and padded to the longest of the batch."""
        rows = [[*self.token_ids(text)[: self.max_tokens - 1], SEP] for text in texts]
        return padded([np.array(row, np.int64) for row in rows])  # (batch, length)

    def token_ids(self, text: str) -> list[int]:
        """The text's first ids, at least `max_tokens` of them where it has that many.

        A long text is cut before it is tokenized. The cut may split a word, so the head's last word does not count.
        """
        head = text[: CHARS_PER_TOKEN * self.max_tokens]
        encoding = self.tokenizer.encode(head, add_special_tokens=False)
        if len(head) == len(text):
            return list(encoding.ids)
        whole = sum(word != encoding.word_ids[-1] for word in encoding.word_ids)
        if whole >= self.max_tokens:
            return list(encoding.ids[:whole])
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def last_ids(self, text: str, limit: int) -> list[int]:
        """The text's last `limit` ids, at least one: what a continuation starts from."""
        ids = list(self.tokenizer.encode(text[-CHARS_PER_TOKEN * limit :], add_special_tokens=False).ids)
        return ids[-limit:] or [SEP]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids)))
