"""Which documents stay, under which label, in which split: one decision over the prints of all of them."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raysl import storage
from raysl.data import minhash
from raysl.data.clean import PRINTS, ROWS, STATS, removed_rows
from raysl.data.config import SplitConfig
from raysl.data.filters.base import EXAMPLE_CHARS, Examples
from raysl.data.prints import Prints, PrintSettings, make_prints, mapped, open_prints, write_prints
from raysl.errors import DataError
from raysl.schema import CLUSTER, ID, LABEL, SPLIT, TEST, TEXT, TRAIN, VALIDATION

EXACT, NEAR = "exact_duplicate", "near_duplicate"
ROW = "row"
PLAN = pa.schema([(ROW, pa.int64()), (ID, pa.string()), (LABEL, pa.string()), (CLUSTER, pa.int64()), (SPLIT, pa.string())])
"""What stays of one unit: rows of its clean file and what is known of them now."""
CONFLICT = pa.schema([(ID, pa.string()), (LABEL, pa.string()), ("labels", pa.list_(pa.string()))])
"""A kept document whose removed twins carry other labels; `labels` holds all of them."""
INDEX = "index.json"


@dataclass(frozen=True)
class Planner:
    """Everything the plan task needs besides the clean units; it is pickled to a worker."""

    prints: PrintSettings
    split: SplitConfig
    seed: int

    def __call__(self, units: Sequence[Path], folder: Path) -> dict[str, Any]:
        """Writes to `folder` (whole or absent) what stays of each unit, the duplicates and the label conflicts."""
        prints = open_prints([unit / PRINTS for unit in units], self.prints.num_bands)
        ids = unique_ids(prints.ids)
        found = minhash.find_duplicates(prints.keys, prints.shingles_of, self.prints.threshold)
        labels, conflicts = united_labels(ids, prints.labels, found)
        splits = [split_of(ids[cluster], self.seed, self.split) for cluster in found.cluster.tolist()]
        plan = pa.Table.from_arrays(
            [pa.array(np.arange(len(ids))), pa.array(ids, pa.string()), pa.array(labels, pa.string()),
             pa.array(found.cluster), pa.array(splits, pa.string())], schema=PLAN,
        )  # fmt: skip
        duplicates = duplicate_rows(ids, prints, found)
        kept = found.kept < 0
        train = kept & np.array([split == TRAIN for split in splits], np.bool_)
        stats = {
            "kept": int(kept.sum()), "train_bytes": int(prints.num_bytes[train].sum()), "num_capped": found.num_capped,
            "dropped": dict(Counter(duplicates["reason"].to_pylist())), "label_conflicts": len(conflicts),
            "clusters": len(np.unique(found.cluster)),
            "examples": duplicate_examples(duplicates, found.removed, units, self.seed),
        }  # fmt: skip
        with storage.atomic_path(folder) as temporary:
            temporary.mkdir()
            self._write_parts(plan, kept, units, temporary)
            pq.write_table(duplicates, temporary / "duplicates.parquet")
            pq.write_table(conflicts, temporary / "conflicts.parquet")
            storage.write_json(temporary / STATS, stats)
        return stats

    def _write_parts(self, plan: pa.Table, kept: Any, units: Sequence[Path], folder: Path) -> None:
        first = 0
        for number, unit in enumerate(units):
            size = pq.read_metadata(unit / ROWS).num_rows
            part = plan.slice(first, size)
            part = part.set_column(0, ROW, pa.array(np.arange(size)))
            pq.write_table(part.filter(pa.array(kept[first : first + size])), folder / f"part-{number:05d}.parquet")
            first += size


def unique_ids(ids: Sequence[str]) -> list[str]:
    """The ids, the second of equal ones with #2 behind it, so that each names one document."""
    taken, found = set(ids), []
    counts: Counter[str] = Counter()
    for name in ids:
        counts[name] += 1
        unique = name
        while counts[name] > 1 and unique in taken:
            unique = f"{name}#{counts[name]}"
            counts[name] += unique in taken
        taken.add(unique)
        found.append(unique)
    return found


class Decided(Protocol):
    """Which rows go, and which kept row stands for each of them (-1: it is kept)."""

    @property
    def kept(self) -> NDArray[np.int64]: ...
    @property
    def removed(self) -> NDArray[np.int64]: ...


def united_labels(ids: Sequence[str], labels: Sequence[str | None], found: Decided
                  ) -> tuple[list[str | None], pa.Table]:  # fmt: skip
    """Labels with those of removed twins where a kept document has none, and the table of twins that disagree."""
    all_labels: dict[int, list[str]] = {}
    for row in found.removed.tolist():
        kept = int(found.kept[row])
        names = all_labels.setdefault(kept, [labels[kept]] if labels[kept] is not None else [])  # type: ignore[list-item]
        if (label := labels[row]) is not None and label not in names:
            names.append(label)
    united = list(labels)
    for kept, names in all_labels.items():
        united[kept] = names[0] if names else None
    torn = sorted(kept for kept, names in all_labels.items() if len(names) > 1)
    columns = ([ids[k] for k in torn], [united[k] for k in torn], [all_labels[k] for k in torn])
    arrays = [pa.array(values, field.type) for values, field in zip(columns, CONFLICT, strict=True)]
    return united, pa.Table.from_arrays(arrays, schema=CONFLICT)


def duplicate_rows(ids: Sequence[str], prints: Prints, found: minhash.Duplicates) -> pa.Table:
    """Rows of schema.REMOVED: whose duplicate each removed document is, and how near."""
    pairs = [(row, int(found.kept[row])) for row in found.removed.tolist()]
    reasons = [EXACT if prints.digests[row] == prints.digests[kept] else NEAR for row, kept in pairs]
    jaccards = found.jaccard[found.removed].tolist()
    return removed_rows([ids[row] for row, _ in pairs], reasons, [ids[kept] for _, kept in pairs], jaccards)


def duplicate_examples(duplicates: pa.Table, rows: Any, units: Sequence[Path], seed: int) -> dict[str, Any]:
    """Seeded examples with their text, which the prints do not hold."""
    examples = Examples(seed)
    for reason in (EXACT, NEAR):
        own = duplicates.append_column(ROW, pa.array(rows)).filter(pc.equal(duplicates["reason"], reason))
        if len(own):
            examples.add(reason, pa.table({ID: own[ID], TEXT: own[ROW].cast(pa.string())}))
    firsts = np.cumsum([0, *(pq.read_metadata(unit / ROWS).num_rows for unit in units)])
    return {reason: [(rank, name, _text_at(int(row), units, firsts)) for rank, name, row in found]
            for reason, found in examples.found.items()}  # fmt: skip


def _text_at(row: int, units: Sequence[Path], firsts: Any) -> str:
    unit = int(np.searchsorted(firsts, row, side="right")) - 1
    text: str = pq.read_table(units[unit] / ROWS, columns=[TEXT])[TEXT][row - int(firsts[unit])].as_py()
    return text[:EXAMPLE_CHARS]


def split_of(first_id: str, seed: int, shares: SplitConfig) -> str:
    """The split of a whole cluster, drawn by a hash of its first document's id."""
    draw = int.from_bytes(hashlib.blake2b(f"{seed}:{first_id}".encode(), digest_size=8).digest()) / 2**64
    if draw < shares.test:
        return TEST
    return VALIDATION if draw < shares.test + shares.validation else TRAIN


@dataclass(frozen=True)
class IncrementalResult:
    """New rows against a kept corpus."""

    kept: pa.Table
    """New rows that nothing stands for, in their order, with the columns they came with."""
    removed: pa.Table
    """schema.REMOVED: `kept_id` is an old document or a new one that was kept."""


def write_index_settings(folder: Path, settings: PrintSettings) -> None:
    storage.write_json(folder / INDEX, asdict(settings))


def deduplicate_against(index_folder: str | Path, new: pa.Table) -> IncrementalResult:
    """De-duplicates new rows (id, text, label) against the kept documents of <run>/prepare/dedup_index.

    Gives what one run over both would give with the old documents first. The old text is not read: the index holds
    its prints, and only those of candidates are brought into memory.
    """
    folder = Path(index_folder)
    settings, old = _read_index(folder)
    fresh = make_prints(new, settings, compiled=len(new) > 10_000)
    prints = Prints([*old, fresh], settings.num_bands)
    num_old = len(prints) - len(new)
    found = minhash.find_duplicates(prints.keys, prints.shingles_of, settings.threshold, fixed=num_old)
    return IncrementalResult(new.filter(pa.array(found.kept[num_old:] < 0)), duplicate_rows(prints.ids, prints, found))


def add_to_index(index_folder: str | Path, kept: pa.Table) -> None:
    """Adds the prints of kept rows (id, text, label), so that the next round knows them too."""
    folder = Path(index_folder)
    settings, _ = _read_index(folder)
    number = 1 + max((int(path.stem.removeprefix("part-")) for path in folder.glob("part-*.arrow")), default=-1)
    write_prints(make_prints(kept, settings, compiled=len(kept) > 10_000), folder / f"part-{number:05d}.arrow")


def _read_index(folder: Path) -> tuple[PrintSettings, list[pa.Table]]:
    if not (folder / INDEX).is_file():
        raise DataError(f"{folder} holds no index of kept documents. Run `raysl prepare` first.")
    settings = PrintSettings(**storage.read_json(folder / INDEX))
    return settings, [mapped(path) for path in sorted(folder.glob("part-*.arrow"))]
