"""Rows of traffic, or of the reference, as the arrays that are compared."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysl import schema
from raysl.monitor.recorder import read_records
from raysl.release.bundle import CLASSIFIER, REFERENCE, Bundle
from raysl.release.reference import answer
from raysl.release.runtime import Runner

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Window:
    """Columns of the same rows; those that can be null are lists."""

    embeddings: Numbers
    text_lengths: Numbers | None
    """Of pictures there are none."""
    predictions: list[str | None]
    confidences: list[float | None]
    latencies_ms: list[float | None]
    labels: list[str | None]

    def __len__(self) -> int:
        return len(self.embeddings)


def monitored_task(bundle: Bundle) -> str:
    """The task whose requests are compared: their texts are of the kind the reference holds."""
    return "classify" if bundle.has(CLASSIFIER) else "embed"


def reference_window(bundle: Bundle, max_text_chars: int) -> Window:
    """The held-out rows that were kept at release, as the service would record them: with the beginning of long texts.

    `classify` records the embedding of the whole text; those of `embed` are made again, of what was recorded of it.
    """
    rows = pq.read_table(bundle.path(REFERENCE))
    if not bundle.has(CLASSIFIER) and bundle.decoding is None:
        cut = pc.greater(pc.utf8_length(rows[schema.TEXT]), max_text_chars)
        embeddings = pc.if_else(cut, pa.scalar(None, rows["embedding"].type), rows["embedding"])
        rows = rows.set_column(rows.schema.get_field_index("embedding"), "embedding", embeddings)
    return _window(rows, bundle, max_text_chars)


def newest_window(run_folder: Path, bundle: Bundle, version: int, count: int, max_text_chars: int) -> Window:
    """The newest `count` recorded requests to the monitored task that `version` answered.

    `max_text_chars` are recorded of a text; records from before it was lowered are cut to it.
    """
    chosen = (pc.field("task") == monitored_task(bundle)) & (pc.field("version") == version)
    if bundle.decoding is None:
        chosen &= pc.field(schema.TEXT).is_valid()
    records = read_records(run_folder, where=chosen)
    return _window(records.slice(max(0, records.num_rows - count)), bundle, max_text_chars)


def _window(rows: pa.Table, bundle: Bundle, max_text_chars: int) -> Window:
    pictures = bundle.decoding is not None
    if pictures:  # they are not recorded, so what has no embedding cannot be compared
        rows = rows.filter(pc.equal(pc.list_value_length(rows["embedding"]), bundle.width))
    texts = pc.utf8_slice_codeunits(rows[schema.TEXT], 0, max_text_chars)
    rows = rows.set_column(rows.schema.get_field_index(schema.TEXT), schema.TEXT, texts)
    columns: dict[str, list[Any]] = {
        name: rows[name].to_pylist() for name in ("text", "prediction", "confidence", "latency_ms", "label")
    }
    return Window(
        embeddings=_embeddings(rows, bundle),
        text_lengths=None if pictures else np.array([len(text) for text in columns["text"]], np.float64),
        predictions=columns["prediction"],
        confidences=columns["confidence"],
        latencies_ms=columns["latency_ms"],
        labels=columns["label"],
    )


def _embeddings(rows: pa.Table, bundle: Bundle) -> Numbers:
    """Recorded embeddings; where one is absent the bundle embeds the text again."""
    recorded = rows["embedding"].to_pylist()
    found = np.zeros((len(recorded), bundle.width))
    absent = [place for place, embedding in enumerate(recorded) if embedding is None or len(embedding) != bundle.width]
    for place in set(range(len(recorded))) - set(absent):
        found[place] = recorded[place]
    if absent:
        runner = Runner.of(bundle)
        found[absent] = answer(runner, runner.contents(rows.take(absent)), bundle.has(CLASSIFIER)).embeddings
    return found
