"""Yardsticks that need no network: TF-IDF, LSA (Deerwester et al., 1990) or plain pixels, and logistic regression."""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from raysl.data.minhash_words import SCRIPTS_WITHOUT_SPACES
from raysl.errors import DataError

Predict = Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], npt.NDArray[np.int64]]
"""predict(places of labelled rows, their targets) -> predicted class of every test row."""

_SCRIPTS = "".join(f"{chr(first)}-{chr(last)}" for first, last in SCRIPTS_WITHOUT_SPACES)
UNSPACED, WORD = re.compile(f"[{_SCRIPTS}]"), re.compile(r"\b\w\w+\b")
RUN = re.compile(rf"[{_SCRIPTS}]+|[^\W{_SCRIPTS}]{{2,}}")

STRENGTH = 10.0
"""Inverse regularization of every logistic regression on features without a network."""


def words(text: str) -> list[str]:
    """Words of two letters or more; of scripts that put no spaces between words, characters and pairs of neighbours."""
    if not UNSPACED.search(text):
        return WORD.findall(text)
    found = []
    for run in RUN.findall(text):
        found += [*run, *map("".join, pairwise(run))] if UNSPACED.match(run) else [run]
    return found


def fit_vectorizer(unlabelled: Sequence[str]) -> Any:
    """TF-IDF of the words that two texts or more have; where there is no such word, of all words, or of characters."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    common: dict[str, Any] = {"min_df": 2} if len(unlabelled) > 100 else {}
    for options in (common, {}, {"analyzer": "char"}):
        given = options if "analyzer" in options else {**options, "tokenizer": words, "token_pattern": None}
        with suppress(ValueError):  # no word is left
            return TfidfVectorizer(sublinear_tf=True, **given).fit(unlabelled)
    raise DataError(
        "The texts of the train split hold no character to compare. Leave tfidf and lsa out of evaluate.baselines."
    )


def tfidf(unlabelled: Sequence[str], labelled: Sequence[str], test: Sequence[str]) -> tuple[Any, Any]:
    """Sparse TF-IDF rows of labelled and test texts; vocabulary and weights come from the unlabelled text."""
    vectorizer = fit_vectorizer(unlabelled)
    return vectorizer.transform(labelled), vectorizer.transform(test)


def lsa(unlabelled: Sequence[str], labelled: Sequence[str], test: Sequence[str], width: int, seed: int) -> tuple[Any, Any]:
    """Normalised LSA rows (texts, width) of labelled and test texts, fitted on the unlabelled text."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.preprocessing import normalize

    vectorizer = fit_vectorizer(unlabelled)
    matrix = vectorizer.transform(unlabelled)
    svd = TruncatedSVD(max(1, min(width, min(matrix.shape) - 1)), random_state=seed).fit(matrix)
    first, second = (normalize(svd.transform(vectorizer.transform(texts))) for texts in (labelled, test))
    return first, second


def pixels(rows: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
    """Pixels of each row (rows, row bytes) around 0. Costs four bytes a pixel, and no other copy of all rows."""
    around_0 = np.asarray(np.arange(256) / 255 - 0.5, np.float32)
    out = np.empty((len(rows), len(rows[0])), np.float32)
    for place, row in enumerate(rows):
        out[place] = around_0[row]
    return out


def regression_predict(labelled: Any, test: Any, strength: float = STRENGTH) -> Predict:
    """Logistic regression on the given rows, fitted anew for each draw of labels."""
    from scipy.sparse import issparse
    from sklearn.linear_model import LogisticRegression

    def predict(places: npt.NDArray[np.int64], targets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        rows = labelled[places]
        # A word of no labelled row has weight 0 in the optimum, so leaving it out changes nothing but the time.
        columns = np.unique(rows.indices) if issparse(rows) and rows.nnz else slice(None)
        model = LogisticRegression(C=strength, max_iter=1000).fit(rows[:, columns], targets)
        return np.asarray(model.predict(test[:, columns]), np.int64)

    return predict
