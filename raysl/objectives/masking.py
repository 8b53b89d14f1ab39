"""Hidden words: which tokens are to be predicted and what stands in their place (Devlin et al., 2019, section 3.1)."""

import numpy as np
import numpy.typing as npt

from raysl.models.text import MASK

NUM_SPECIAL = 5
IGNORED = -100


def mask_tokens(
    tokens: npt.NDArray[np.int64], share: float, vocab_size: int, uniform: npt.NDArray[np.float64],
    word_starts: npt.NDArray[np.bool_] | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:  # fmt: skip
    """Inputs and labels (both of tokens' shape); labels are -100 where nothing is to be predicted.

    Of the ordinary tokens `share` are chosen; 80 % of them become [MASK], 10 % a random ordinary token, 10 % stay.
    Special tokens are never chosen and never put in. `uniform` has the shape (rows, 3 x length). With `word_starts` (vocab,)
    all pieces of a word are chosen or none; a word that a row's end cuts counts as two.
    """
    length = tokens.shape[1]
    choose, act, swap = (uniform[:, i * length : (i + 1) * length] for i in range(3))
    if word_starts is not None:
        starts = word_starts[tokens] | (tokens < NUM_SPECIAL)
        first = np.maximum.accumulate(np.where(starts, np.arange(length), 0), axis=1)  # where each word starts
        choose = np.take_along_axis(choose, first, axis=1)
    chosen = (tokens >= NUM_SPECIAL) & (choose < share)
    labels = np.where(chosen, tokens, IGNORED)
    inputs = np.where(chosen & (act < 0.8), MASK, tokens)
    random_tokens = NUM_SPECIAL + (swap * (vocab_size - NUM_SPECIAL)).astype(np.int64)
    return np.where(chosen & (act >= 0.8) & (act < 0.9), random_tokens, inputs), labels


def hidden_places(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Places to be predicted, counted through row after row: a GPU need not look for them and wait for their number."""
    return np.flatnonzero(labels != IGNORED)
