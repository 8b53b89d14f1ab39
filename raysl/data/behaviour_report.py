"""What `prepare` says of behaviour: the drop table, the cuts, and the losses a model has to beat."""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raysl import storage
from raysl.data.clean import STATS, read_counts, read_stats
from raysl.data.filters.base import Examples
from raysl.data.items import ITEMS
from raysl.data.prepare_report import REPORT, as_example, summed
from raysl.data.shards import open_shard
from raysl.data.times import iso_of
from raysl.errors import DataError
from raysl.schema import SPECIAL_TOKENS, SPLITS, TRAIN, UNKNOWN, VALIDATION


def write(folder: Path, units: Sequence[Path], ordered: Sequence[Path], cuts: tuple[int, int], seed: int,
          usage: Mapping[str, Mapping[str, float]]) -> tuple[dict[str, Any], dict[str, float]]:  # fmt: skip
    """Writes report.json; returns the counts and metrics of the manifest. DataError where nothing is left to train on."""
    read, sorted_ = [read_counts(unit) for unit in units], [read_counts(unit) for unit in ordered]
    made = [storage.read_json(unit.with_name(f"{unit.name}.{STATS}")) for unit in ordered]
    splits = {split: summed(one["splits"][split] for one in made) for split in SPLITS}
    if not splits[TRAIN]["documents"]:
        raise DataError(
            f"No user has enough events before {iso_of(cuts[0])} to train on. Lower prepare.behaviour.min_user_events, "
            f"or move the cuts in prepare.behaviour.split."
        )
    items = pq.read_table(folder / ITEMS, columns=["token"])["token"]
    known = int(pc.sum(pc.greater_equal(items, len(SPECIAL_TOKENS))).as_py())
    counts: dict[str, Any] = {
        "documents_in": sum(one["documents_in"] for one in read), "kept": sum(splits[s]["events"] for s in SPLITS),
        "dropped": dict(sorted(summed(one["dropped"] for one in [*read, *sorted_, *made]).items())),
        "tokens": {split: splits[split]["tokens"] for split in SPLITS},
        "documents": {split: splits[split]["documents"] for split in SPLITS},
        "items": len(items), "vocab_size": known + len(SPECIAL_TOKENS),
        "cuts": {"validation_from": iso_of(cuts[0]), "test_from": iso_of(cuts[1])},
    }  # fmt: skip
    metrics = _metrics(folder, splits, counts["vocab_size"])
    examples = Examples(seed)
    for one in chain(map(read_stats, [*units, *ordered]), made):
        examples.merge(one["examples"])
    storage.write_json(folder / REPORT, {
        "rows_name": "events", **counts,
        "drop_rates": {reason: n / max(counts["documents_in"], 1) for reason, n in counts["dropped"].items()},
        "examples": {reason: [as_example(row) for row in rows] for reason, rows in examples.found.items()},
        "token_statistics": {**metrics, "splits": splits}, "usage": dict(usage),
    })  # fmt: skip
    return counts, metrics


def _metrics(folder: Path, splits: Mapping[str, Mapping[str, int]], vocab_size: int) -> dict[str, float]:
    held_out = splits[VALIDATION]
    found = {"uniform_loss": round(float(np.log(vocab_size)), 4)}
    if held_out["events"]:
        found["unknown_rate"] = round(held_out["unknown"] / held_out["events"], 6)
        found |= popularity_losses(folder / "tokens" / TRAIN, folder / "tokens" / VALIDATION, vocab_size)
    return found


def popularity_losses(train: Path, held_out: Path, vocab_size: int) -> dict[str, float]:
    """Nats per target of a model that knows nothing but how often each token comes in training (plus one for each).

    `popularity_loss` is over what `gpt` predicts, every token of a sequence but its first; `popularity_loss_of_items` over
    what `bert` may hide, every known item.
    """
    losses = {}
    for name, after, lowest in (("popularity_loss", 1, UNKNOWN), ("popularity_loss_of_items", 0, len(SPECIAL_TOKENS))):
        seen, asked = (_counts(folder, vocab_size, after, lowest) for folder in (train, held_out))
        log_share = np.log(seen[lowest:] + 1) - np.log((seen[lowest:] + 1).sum())
        losses[name] = round(float(-(asked[lowest:] @ log_share) / max(asked[lowest:].sum(), 1)), 4)
    return losses


def _counts(folder: Path, vocab_size: int, after: int, lowest: int) -> NDArray[np.int64]:
    """How often each token is a target in the shards of a folder."""
    counts = np.zeros(vocab_size, np.int64)
    for path in sorted(folder.glob("shard-*.arrow")):
        shard = open_shard(path)
        counts += np.bincount(shard.values, minlength=vocab_size)
        if after:
            counts -= np.bincount(shard.values[shard.offsets[:-1]], minlength=vocab_size)
    counts[:lowest] = 0
    return counts
