"""Which tokens of a vocabulary begin a word: what masking of whole words has to know."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
BLANKS = ("\u0120", "\u010a", "\u0109", "\u2581")
"""How byte-level BPE writes a leading space, line end and tab, and Metaspace a space."""


def word_starts(tokenizer: Path) -> Bools:
    """True for each token (vocab,) that begins a word.

    WordPiece marks the others with ##. In a BPE a word is what stands between blanks, its punctuation included. Tokens of
    other vocabularies are words of their own.
    """
    model = json.loads(tokenizer.read_text(encoding="utf-8"))["model"]
    names = sorted(model["vocab"], key=model["vocab"].__getitem__)
    if model["type"] == "WordPiece":
        return np.array([not name.startswith("##") for name in names])
    if model["type"] == "BPE":
        return np.array([name.startswith(BLANKS) for name in names])
    return np.ones(len(names), bool)
