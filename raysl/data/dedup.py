"""What follows from duplicates (ids, labels, splits), and new rows against a kept corpus."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raysl import storage
from raysl.data import minhash
from raysl.data.clean import removed_rows
from raysl.data.config import SplitConfig
from raysl.data.prints import DIGEST, Prints, PrintSettings, make_prints, mapped, write_prints
from raysl.errors import DataError
from raysl.schema import CLUSTER, ID, LABEL, SPLIT, TEST, TRAIN, VALIDATION

EXACT, NEAR = "exact_duplicate", "near_duplicate"
ROW = "row"
PLAN = pa.schema([(ROW, pa.int64()), (ID, pa.string()), (LABEL, pa.string()), (CLUSTER, pa.int64()), (SPLIT, pa.string())])
"""What stays of one unit: rows of its clean file and what is known of them now."""
CONFLICT = pa.schema([(ID, pa.string()), (LABEL, pa.string()), ("labels", pa.list_(pa.string()))])
"""A kept document whose removed twins carry other labels; `labels` holds all of them."""
INDEX = "index.json"


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


def _duplicate_rows(prints: Prints, found: minhash.Duplicates) -> pa.Table:
    """Rows of schema.REMOVED: whose duplicate each removed document is, and how near."""
    removed, kept = found.removed, found.kept[found.removed]
    digests = [prints.column(DIGEST, rows).to_pylist() for rows in (removed, kept)]
    reasons = [EXACT if own == other else NEAR for own, other in zip(*digests, strict=True)]
    names, kept_names = (prints.column(ID, rows).to_pylist() for rows in (removed, kept))
    return removed_rows(names, reasons, kept_names, found.jaccard[removed].tolist())


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
    found = minhash.find_duplicates(prints.keys(), prints.shingles_of, settings.threshold, fixed=num_old)
    return IncrementalResult(new.filter(pa.array(found.kept[num_old:] < 0)), _duplicate_rows(prints, found))


def add_to_index(index_folder: str | Path, kept: pa.Table) -> None:
    """Adds the prints of kept rows (id, text, label), so that the next round knows them too."""
    folder = Path(index_folder)
    settings, _ = _read_index(folder)
    number = 1 + max((int(path.stem.removeprefix("part-")) for path in folder.glob("part-*.arrow")), default=-1)
    write_prints(make_prints(kept, settings, compiled=len(kept) > 10_000), folder / f"part-{number:05d}.arrow")


def _read_index(folder: Path) -> tuple[PrintSettings, list[pa.Table]]:
    if not (folder / INDEX).is_file():
        raise DataError(f"{folder} holds no index of kept documents. Run `raysl prepare` first.")
    settings = PrintSettings(**{"scheme": 1, **storage.read_json(folder / INDEX)})
    if settings.scheme != PrintSettings.scheme:
        raise DataError(f"{folder} was written by another version of raysl. Run `raysl prepare` with --redo.")
    return settings, [mapped(path) for path in sorted(folder.glob("part-*.arrow"))]
