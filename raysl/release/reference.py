"""The window that `monitor` compares traffic with: held-out rows, answered as the service will answer them. Torch-free."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from raysl import schema, storage
from raysl.metrics import classification
from raysl.metrics.latency import latency
from raysl.release.bundle import CLASSIFIER, ENCODER, REFERENCE
from raysl.release.documents import described
from raysl.release.runtime import Floats, Runner, softmax

SCHEMA = pa.schema(
    [
        (schema.ID, pa.string()),
        (schema.TEXT, pa.string()),
        (schema.LABEL, pa.string()),
        ("prediction", pa.string()),
        ("confidence", pa.float64()),
        ("latency_ms", pa.float64()),
        ("embedding", pa.list_(pa.float32())),
    ]
)
TIMED_ROWS = 200
"""Rows answered one by one for their latency; the others have none."""
FEWEST_ROWS = 30
"""Labelled rows below which no temperature is fitted."""


@dataclass(frozen=True)
class Answers:
    """What a bundle says to rows; without a classifier only embeddings. Predictions are places in its classes."""

    embeddings: Floats
    logits: Floats | None = None

    def followed_by(self, other: "Answers") -> "Answers":
        """Answers of a classifier to these rows and then to others."""
        assert self.logits is not None
        assert other.logits is not None
        return Answers(np.concatenate([self.embeddings, other.embeddings]), np.concatenate([self.logits, other.logits]))

    def predictions(self, classes: Sequence[str]) -> list[str | None]:
        if self.logits is None:
            return [None] * len(self.embeddings)
        return [classes[place] for place in self.logits.argmax(1)]

    def confidences(self, temperature: float) -> list[float | None]:
        """Probability of the predicted class."""
        if self.logits is None:
            return [None] * len(self.embeddings)
        return [float(p) for p in softmax(self.logits, temperature).max(1)]


def answer(runner: Runner, contents: Sequence[Any], classifies: bool) -> Answers:
    """Answers of the classifier where there is one, else of the encoder, to texts or pictures."""
    if not classifies:
        return Answers(runner.embed(contents))
    logits, embeddings = runner.classify(contents)
    return Answers(embeddings, logits)


def write_reference(
    folder: Path, runner: Runner, rows: pa.Table, labelled: pa.Table, classes: Sequence[str]
) -> dict[str, Any]:
    """Writes reference.parquet of `rows` and returns what bundle.json says: metrics, latency, temperature.

    Embeddings are those of the classifier where there is one, else of the encoder: what a recorded request carries. Metrics
    and temperature are of `rows` and of the `labelled` rows besides.
    """
    contents, labels = runner.contents(rows), rows[schema.LABEL].to_pylist()
    answers = scored = answer(runner, contents, bool(classes))
    if classes and len(labelled):
        scored = answers.followed_by(answer(runner, runner.contents(labelled), True))
        labels = [*labels, *labelled[schema.LABEL].to_pylist()]
    predictions = answers.predictions(classes)
    temperature = fit_temperature(scored.logits, labels, classes)
    latencies = _latencies(runner, contents[:TIMED_ROWS], CLASSIFIER if classes else ENCODER)
    table = pa.table(
        [
            *(column.combine_chunks() for column in described(rows).columns),
            pa.array(predictions, pa.string()),
            pa.array(answers.confidences(temperature), pa.float64()),
            pa.array([*latencies, *[None] * (len(contents) - len(latencies))], pa.float64()),
            pa.array(list(answers.embeddings), pa.list_(pa.float32())),
        ],
        schema=SCHEMA,
    )
    with storage.atomic_path(folder / REFERENCE) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    found = figures(labels, scored.predictions(classes), classes)
    return {"metrics": found, "latency": asdict(latency(latencies)), "temperature": temperature}


def fit_temperature(logits: Floats | None, labels: Sequence[str | None], classes: Sequence[str]) -> float:
    """The divisor of the logits that makes confidence match accuracy on held-out rows (Guo et al., 2017), or 1.

    As if one row more had the class that comes second (Platt, 1999): of rows that are all right none would be too sure.
    """
    place = {name: number for number, name in enumerate(classes)}
    rows = [number for number, label in enumerate(labels) if label in place]
    if logits is None or len(rows) < FEWEST_ROWS:
        return 1.0
    truth = np.array([place[str(labels[row])] for row in rows])
    known, wrong = logits[rows].astype(np.float64), 1 / (len(rows) + 2)
    right, others = known[np.arange(len(truth)), truth], known.copy()
    others[np.arange(len(truth)), truth] = -np.inf
    aimed_at = (1 - wrong) * right + wrong * others.max(1)

    def loss(log_temperature: float) -> float:
        temperature = np.exp(log_temperature)
        return float(np.mean(logsumexp(known / temperature, axis=1) - aimed_at / temperature))

    found = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded")
    return round(float(np.exp(found.x)), 4)


def figures(labels: Sequence[str | None], predictions: Sequence[str | None], classes: Sequence[str]) -> dict[str, Any]:
    """Accuracy and macro-F1 over the rows whose label is one of `classes`; empty where there are none."""
    known = [(truth, found) for truth, found in zip(labels, predictions, strict=True) if truth in set(classes)]
    if not known:
        return {}
    names = sorted({name for pair in known for name in pair if name is not None})
    place = {name: number for number, name in enumerate(names)}
    truth, found = np.array([[place[str(name)] for name in pair] for pair in known]).T
    return {
        "macro_f1": classification.macro_f1(truth, found, len(names)),
        "accuracy": classification.accuracy(truth, found),
        "rows": len(known),
    }


def _latencies(runner: Runner, contents: Sequence[Any], name: str) -> list[float]:
    runner.answer_one(name, contents[0])  # the first call also plans its memory
    found = []
    for content in contents:
        started = time.perf_counter()
        runner.answer_one(name, content)
        found.append((time.perf_counter() - started) * 1000)
    return found
