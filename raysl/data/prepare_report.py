"""What `prepare` says of itself: report.json, removed.parquet, the drop table."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raysl import storage
from raysl.data.clean import DROPPED, STATS, read_counts, read_stats
from raysl.data.config import PrepareConfig
from raysl.data.filters.base import Examples
from raysl.errors import DataError
from raysl.schema import LABEL, REMOVED, SPLITS, VALIDATION

REPORT = "report.json"


@dataclass(frozen=True)
class PrepareReport:
    """What goes into the manifest."""

    counts: dict[str, Any]
    metrics: dict[str, float]


def check(config: PrepareConfig, stats: Sequence[Mapping[str, Any]], rows_name: str = "documents",
          filters: str = "prepare.filters") -> None:  # fmt: skip
    """Stops a run whose source is empty or mostly broken, or of which the filters leave nothing."""
    where = str(getattr(config.source, "path", config.source.type))
    total = sum(one["documents_in"] for one in stats)
    bad = summed(one["bad"] for one in stats)
    dropped = summed(one["dropped"] for one in stats)
    if not total:
        raise DataError(f"{where} holds no {rows_name}. Give prepare.source another path.")
    if bad and sum(bad.values()) > config.max_bad_share * total:
        raise DataError(
            f"{where}: {sum(bad.values()):,} of {total:,} rows cannot be used ({_listed(bad)}), more than "
            f"prepare.max_bad_share={config.max_bad_share}. Check the format and the column names of the source; "
            "a larger share goes on from there without those rows."
        )
    if not any(one["clean"] for one in stats):
        reason = dropped.most_common(1)[0][0]
        raise DataError(
            f"{where}: nothing is left of {total:,} {rows_name}; most were dropped as '{reason}' ({_listed(dropped)}). "
            f"Loosen that filter under {filters}."
        )


def write(folder: Path, config: PrepareConfig, units: Sequence[Path], plan: Path, seed: int,
          usage: Mapping[str, Mapping[str, float]]) -> PrepareReport:  # fmt: skip
    """Writes removed.parquet, label_conflicts.parquet and report.json from what the units left behind."""
    clean = [read_counts(unit) for unit in units]
    planned = read_stats(plan)
    written = [storage.read_json(unit.with_name(unit.name.replace("clean-", "tokens-") + f".{STATS}")) for unit in units]
    write_removed(folder / "removed.parquet", units, plan)
    with storage.atomic_path(folder / "label_conflicts.parquet") as temporary:
        pq.write_table(pa.concat_tables(pq.read_table(part) for part in sorted(plan.glob("conflicts-*.parquet"))), temporary)
    splits = {split: summed(one[split] for one in written) for split in SPLITS}
    dropped = summed([*(one["dropped"] for one in clean), planned["dropped"]])
    counts: dict[str, Any] = {
        "documents_in": sum(one["documents_in"] for one in clean), "kept": planned["kept"],
        "dropped": dict(sorted(dropped.items())),
        "tokens": {split: splits[split]["tokens"] for split in SPLITS},
        "documents": {split: splits[split]["documents"] for split in SPLITS},
        "label_conflicts": planned["label_conflicts"], "vocab_size": _vocab_size(folder / "tokenizer.json"),
    }  # fmt: skip
    if config.redact is not None:
        counts["redacted"] = dict(summed(one["redacted"] for one in clean).most_common())
    metrics = token_metrics(splits)
    examples = Examples(seed)
    for one in [*units, plan]:
        examples.merge(read_stats(one)["examples"])
    storage.write_json(folder / REPORT, {
        **counts, "drop_rates": {reason: n / max(counts["documents_in"], 1) for reason, n in counts["dropped"].items()},
        "examples": {reason: [as_example(row) for row in rows] for reason, rows in examples.found.items()},
        "labels": _label_counts(folder / "documents"), "token_statistics": {**metrics, "splits": splits},
        "edits": dict(summed(one["edits"] for one in clean)),
        "clusters": planned["clusters"], "comparisons_capped": planned["num_capped"], "usage": dict(usage),
    })  # fmt: skip
    return PrepareReport(counts, metrics)


def as_example(row: Sequence[str]) -> dict[str, str]:
    _, name, text = row
    return {"id": name, "text": text}


def write_removed(path: Path, units: Sequence[Path], plan: Path, columns: pa.Schema = REMOVED) -> None:
    """Joins what each unit dropped and the duplicates of the plan."""
    with storage.atomic_path(path) as temporary, pq.ParquetWriter(temporary, columns) as writer:
        for part in [*(unit / DROPPED for unit in units), *sorted(plan.glob("duplicates*.parquet"))]:
            table = pq.read_table(part)
            if len(table):
                writer.write_table(table)


def summed(counts: Any) -> Counter[str]:
    """Adds counts by their names."""
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return total


def _vocab_size(path: Path) -> int:
    from tokenizers import Tokenizer

    return int(Tokenizer.from_file(str(path)).get_vocab_size())


def token_metrics(splits: Mapping[str, Mapping[str, int]]) -> dict[str, float]:
    """Measured on validation text, which the vocabulary was not trained on."""
    held_out = splits[VALIDATION]
    words = held_out["tokens"] - held_out["documents"]  # each document ends with [SEP]
    if words <= 0:
        return {}
    return {"bytes_per_token": round(held_out["bytes"] / words, 4), "unknown_rate": round(held_out["unknown"] / words, 6)}


def _label_counts(folder: Path) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for part in sorted(folder.glob("part-*.parquet")):
        values = pq.read_table(part, columns=[LABEL])[LABEL].drop_null().value_counts()
        counts.update({row["values"]: row["counts"] for row in values.to_pylist()})
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in sorted(counts.items(), key=lambda item: -item[1])[:5])


def table(counts: Mapping[str, Any], metrics: Mapping[str, float], rows_name: str = "documents") -> str:
    """The drop table as text, and what was measured on held-out rows."""
    total = max(counts["documents_in"], 1)
    dropped = sorted(counts["dropped"].items(), key=lambda item: -item[1])
    rows = [
        (f"{rows_name} in", counts["documents_in"]),
        *((f"- {reason}", count) for reason, count in dropped),
        ("kept", counts["kept"]),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"  {name:<{width}}  {count:>10,}  {count / total:>6.1%}" for name, count in rows]
    if "tokens" in counts:
        lines.append(f"  tokens: {_pairs(counts['tokens'])}; vocabulary {counts['vocab_size']:,}")
    else:
        lines.append(f"  {rows_name}: {_pairs(counts[rows_name])}")
    if "bytes_per_token" in metrics:
        lines.append(f"  held out: {metrics['bytes_per_token']:.2f} bytes a token, {metrics['unknown_rate']:.3%} unknown")
    if "popularity_loss" in metrics:
        lines.append(
            f"  held out: {metrics['unknown_rate']:.1%} unknown items; loss by popularity {metrics['popularity_loss']:.3f}"
        )
    if "cuts" in counts:
        lines.append(f"  {', '.join(f'{name} {time}'.replace('_', ' ') for name, time in counts['cuts'].items())}")
    if "redacted" in counts:
        lines.append(f"  redacted: {_pairs(counts['redacted']) or 'nothing found'}")
    return "\n".join(lines)


def _pairs(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())
