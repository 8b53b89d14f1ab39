"""A released bundle, opened for inference: tokenizer and ONNX sessions, no torch.

Costs one core per call and never spins when idle. The batch is the caller's: rows are padded to the longest of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raysl.data.tokenizer_file import load_tokenizer
from raysl.release.bundle import CLASSIFIER, ENCODER, GENERATOR, TOKENIZER, Bundle, open_bundle
from raysl.release.runtime import SEP, open_session, padded

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
    """Answers texts with the networks of one bundle; each is loaded when it is first asked for."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.classes = bundle.classes
        self.max_tokens, self.context_length = bundle.max_tokens, bundle.context_length
        self.temperature = float(bundle.manifest.get("temperature", 1.0))
        self.tokenizer = load_tokenizer(bundle.path(TOKENIZER))

    @classmethod
    def open(cls, folder: str | Path) -> "BundleSession":
        """Opens a bundle folder; BundleError where it is cut off or altered."""
        return cls(open_bundle(folder))

    @cached_property
    def encoder(self) -> Any:
        return open_session(self.bundle.path(ENCODER))

    @cached_property
    def classifier(self) -> Any:
        return open_session(self.bundle.path(CLASSIFIER))

    @cached_property
    def generator(self) -> Any:
        return open_session(self.bundle.path(GENERATOR))

    def embed(self, texts: Sequence[str]) -> Floats:
        """Embeddings of length one, one row a text."""
        (embeddings,) = self.encoder.run(["embedding"], {"tokens": self.tokenize(texts)})
        return np.asarray(embeddings, np.float32)  # (batch, width)

    def classify(self, texts: Sequence[str]) -> Classified:
        """Logits and embeddings of the same pass."""
        logits, embeddings = self.classifier.run(["logits", "embedding"], {"tokens": self.tokenize(texts)})
        return Classified(np.asarray(logits, np.float32), np.asarray(embeddings, np.float32))

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
