"""What `prepare` says of pictures: report.json, removed.parquet, label_conflicts.parquet."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from raysl import storage
from raysl.data.clean import STATS, read_stats
from raysl.data.image_examples import ImageExamples
from raysl.data.prepare_report import REPORT, summed, write_removed
from raysl.schema import REMOVED_IMAGE, SPLITS


def written(unit: Path) -> Path:
    """Marks that the shards of a unit are all there, and holds their counts."""
    return unit.with_name(unit.name.replace("clean-", "pixels-") + f".{STATS}")


def write(folder: Path, units: Sequence[Path], plan: Path, seed: int,
          usage: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:  # fmt: skip
    """Joins what the units and the plan left behind; returns the counts of the manifest."""
    clean, planned = [read_stats(unit) for unit in units], read_stats(plan)
    shards = [storage.read_json(written(unit)) for unit in units]
    write_removed(folder / "removed.parquet", units, plan, REMOVED_IMAGE)
    with storage.atomic_path(folder / "label_conflicts.parquet") as temporary:
        pq.write_table(pq.read_table(plan / "conflicts.parquet"), temporary)
    dropped = summed([*(one["dropped"] for one in clean), planned["dropped"]])
    counts: dict[str, Any] = {
        "documents_in": sum(one["documents_in"] for one in clean), "kept": planned["kept"],
        "dropped": dict(sorted(dropped.items())),
        "images": {split: sum(one[split] for one in shards) for split in SPLITS},
        "label_conflicts": planned["label_conflicts"],
    }  # fmt: skip
    examples = ImageExamples(seed)
    for one in [*clean, planned]:
        examples.merge(one["examples"])
    labels = summed(one["labels"] for one in shards)
    storage.write_json(folder / REPORT, {
        "rows_name": "images", **counts,
        "drop_rates": {reason: n / max(counts["documents_in"], 1) for reason, n in counts["dropped"].items()},
        "examples": {reason: [_example(row) for row in rows] for reason, rows in examples.found.items()},
        "labels": dict(sorted(labels.items(), key=lambda item: (-item[1], item[0]))),
        "clusters": planned["clusters"], "without_hash": planned["without_hash"], "usage": dict(usage),
    })  # fmt: skip
    return counts


def _example(row: Sequence[str]) -> dict[str, str]:
    _, name, text, image = row
    return {"id": name, "text": text, "image": image}
