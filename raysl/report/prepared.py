"""What the report says of `prepare`: drops with examples and twins, token statistics, time and memory of each step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysl import storage
from raysl.schema import ID

EXAMPLES = 10
LABELS = 30
TWINS = ("jaccard", "distance")
"""Columns of removed.parquet that say how near the kept twin is."""


@dataclass(frozen=True)
class Drop:
    """Rows that one reason removed; `examples` are ids, beginnings of texts and, for duplicates, the kept twin."""

    reason: str
    count: int
    share: float
    examples: Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Prepared:
    """report.json of a prepared folder, as a page shows it."""

    rows_name: str
    """What was counted: documents, images, events."""
    documents_in: int
    kept: int
    drops: Sequence[Drop]
    labels: Sequence[tuple[str, int]]
    """The largest labels of what was kept, largest first."""
    tokens: Sequence[tuple[str, str]]
    """Name and value of each token statistic."""
    steps: Mapping[str, Mapping[str, float]]
    """Step -> seconds, cpu_seconds, peak_mb of the start that finished it."""


def read(folder: Path) -> Prepared | None:
    """What `prepare` left in a run folder; None where it has not run."""
    path = folder / "prepare" / "report.json"
    if not path.is_file():
        return None
    said = storage.read_json(path)
    twins = _twins(folder / "prepare" / "removed.parquet", said["examples"])
    total = int(said["documents_in"])
    ordered = sorted(said["dropped"].items(), key=lambda item: -item[1])
    drops = [Drop(reason, n, n / max(total, 1), _examples(said["examples"].get(reason, []), twins)) for reason, n in ordered]
    labels = list(said.get("labels", {}).items())[:LABELS]
    name = said.get("rows_name", "documents")
    return Prepared(name, total, int(said["kept"]), drops, labels, _tokens(said), said.get("usage", {}))


def _examples(found: Sequence[Mapping[str, str]], twins: Mapping[str, str]) -> list[dict[str, str]]:
    return [{**one, "twin": twins.get(one["id"], "")} for one in found[:EXAMPLES]]


def _twins(path: Path, examples: Mapping[str, Sequence[Mapping[str, str]]]) -> dict[str, str]:
    """Id of each example -> the kept row that stands for it, and how near it is."""
    wanted = [one["id"] for found in examples.values() for one in found]
    if not path.is_file() or not wanted:
        return {}
    table = pq.read_table(path)
    rows = table.filter(pc.is_in(table[ID], pa.array(wanted, pa.string()))).to_pylist()
    return {row[ID]: f"{row['kept_id']}  {_nearness(row)}" for row in rows if row["kept_id"]}


def _nearness(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {row[name]:.3g}" for name in TWINS if row.get(name) is not None)


def _tokens(said: Mapping[str, Any]) -> list[tuple[str, str]]:
    statistics = said.get("token_statistics", {})
    rows = [
        (name.replace("_", " "), f"{value:,.4g}") for name, value in statistics.items() if isinstance(value, int | float)
    ]
    for split, counts in statistics.get("splits", {}).items():
        rows += [(f"{split}: {name}", f"{value:,}") for name, value in counts.items() if name in ("documents", "tokens")]
    return [*rows, *([("vocabulary", f"{said['vocab_size']:,}")] if "vocab_size" in said else [])]
