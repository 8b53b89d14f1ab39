"""Views of a document: two spans that do not overlap (DeCLUTR, Giorgi et al., 2021), or its title and a span of the rest."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from raysl.data.shards import Tokens
from raysl.schema import SEPARATOR


def two_spans(
    documents: Sequence[Tokens], span_length: int, uniform: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Two disjoint spans of each document, each (documents, span_length), filled up with 0.

    A span has `span_length` tokens or half the document, whichever is less. `uniform` is (documents, 3): the two places
    and which span comes first.
    """
    first = np.zeros((len(documents), span_length), np.int64)
    second = np.zeros_like(first)
    for row, document in enumerate(documents):
        size = min(span_length, len(document) // 2)
        slack = len(document) - 2 * size
        a, b = sorted((int(uniform[row, 0] * (slack + 1)), int(uniform[row, 1] * (slack + 1))))
        left, right = document[a : a + size], document[b + size : b + 2 * size]
        if uniform[row, 2] < 0.5:
            left, right = right, left
        first[row, :size], second[row, :size] = left, right
    return first, second


def title_and_span(
    documents: Sequence[Tokens], span_length: int, uniform: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The title of each document and a span of its body, in either order, each (documents, span_length), filled up with 0.

    The first [SEP] ends the title; where it closes the document there is none, and the views are two spans. `uniform` as
    for `two_spans`.
    """
    first, second = two_spans(documents, span_length, uniform)
    for row, document in enumerate(documents):
        end = int(np.argmax(document == SEPARATOR))
        title, body = document[:end][:span_length], document[end + 1 :]
        if not len(title) or not len(body):
            continue
        start = int(uniform[row, 0] * (max(len(body) - span_length, 0) + 1))
        views = [title, body[start : start + span_length]]
        for out, view in zip((first, second), views if uniform[row, 2] >= 0.5 else reversed(views), strict=True):
            out[row] = np.pad(view, (0, span_length - len(view)))
    return first, second
