"""Carries out the decisions about duplicates, unit by unit: what stays, under which id and label, in which split.

A unit asks for what it needs of the others (the id of a kept twin, the labels of removed ones) by row number, from mapped
files.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raysl import storage
from raysl.data import minhash
from raysl.data.clean import STATS, read_stats, read_texts, removed_rows
from raysl.data.config import SplitConfig
from raysl.data.decisions import BY_KEPT, CLUSTER, DECISIONS, JACCARD, KEPT, NEW_IDS, Corpus, between
from raysl.data.dedup import EXACT, NEAR, PLAN, split_of, united_labels
from raysl.data.filters.base import Examples
from raysl.data.ids import DOCUMENT_ROW
from raysl.data.prints import DIGEST, NUM_BYTES, Prints, mapped
from raysl.schema import ID, LABEL, TEXT, TRAIN

I64 = NDArray[np.int64]


class Decided:
    """The decisions about all documents, and what the documents are called now."""

    def __init__(self, folder: Path, prints: Prints) -> None:
        self.prints = prints
        self._by_document, self._by_kept = mapped(folder / DECISIONS), mapped(folder / BY_KEPT)
        new_ids = mapped(folder / NEW_IDS)
        self._new_ids = dict(zip(new_ids[DOCUMENT_ROW].to_pylist(), new_ids[ID].to_pylist(), strict=True))

    def of_rows(self, rows: I64) -> minhash.Duplicates:
        """The decisions about neighbouring documents; `kept` and `cluster` are numbered over all units."""
        found = between(self._by_document, DOCUMENT_ROW, int(rows[0]), int(rows[-1]) + 1)
        places = found[DOCUMENT_ROW].to_numpy() - rows[0]
        kept, jaccard, cluster = np.full(len(rows), -1, np.int64), np.zeros(len(rows)), rows.copy()
        kept[places], jaccard[places], cluster[places] = (found[name].to_numpy() for name in (KEPT, JACCARD, CLUSTER))
        return minhash.Duplicates(kept, jaccard, cluster, 0)

    def twins_of(self, rows: I64) -> tuple[I64, I64]:
        """Documents for which one of these neighbouring ones stands, in order, and which one."""
        found = between(self._by_kept, KEPT, int(rows[0]), int(rows[-1]) + 1)
        return found[DOCUMENT_ROW].to_numpy(), found[KEPT].to_numpy()

    def ids(self, rows: I64) -> list[str]:
        names = self.prints.column(ID, rows).to_pylist()
        return [self._new_ids.get(row, name) for row, name in zip(rows.tolist(), names, strict=True)]


@dataclass(frozen=True)
class Planner:
    """Everything the plan tasks need besides their units; it is pickled to the workers."""

    corpus: Corpus
    decided: Path
    folder: Path
    split: SplitConfig
    seed: int

    def stats_path(self, unit: int) -> Path:
        """Written last, so that it marks a planned unit."""
        return self.folder / f"stats-{unit:05d}.json"

    def __call__(self, first: int, stop: int) -> dict[str, Any]:
        """Writes what stays of some units, their duplicates and their label conflicts."""
        decided = Decided(self.decided, self.corpus.prints())
        stats = [self._plan(unit, decided) for unit in range(first, stop) if not self.stats_path(unit).is_file()]
        return {"documents": sum(one["kept"] for one in stats)}

    def _plan(self, unit: int, decided: Decided) -> dict[str, Any]:
        rows = np.arange(decided.prints.firsts[unit], decided.prints.firsts[unit + 1])
        if len(rows):
            plan, duplicates, conflicts, stats = self._decided(unit, rows, decided)
        else:
            labels = united_labels([], [], minhash.Duplicates(rows, np.zeros(0), rows, 0))
            plan, duplicates, conflicts, stats = PLAN.empty_table(), removed_rows([], []), labels[1], {"kept": 0}
        for name, table in (("part", plan), ("duplicates", duplicates), ("conflicts", conflicts)):
            with storage.atomic_path(self.folder / f"{name}-{unit:05d}.parquet") as temporary:
                pq.write_table(table, temporary)
        storage.write_json(self.stats_path(unit), stats)
        return stats

    def _decided(self, unit: int, rows: I64, decided: Decided) -> tuple[pa.Table, pa.Table, pa.Table, dict[str, Any]]:
        found, ids = decided.of_rows(rows), decided.ids(rows)
        labels, conflicts = _labels(rows, ids, decided)
        stays = np.flatnonzero(found.kept < 0)
        splits = [split_of(name, self.seed, self.split) for name in decided.ids(found.cluster[stays])]
        columns = (stays, [ids[s] for s in stays], [labels[s] for s in stays], found.cluster[stays], splits)
        plan = pa.Table.from_arrays([pa.array(c, f.type) for c, f in zip(columns, PLAN, strict=True)], schema=PLAN)
        duplicates = _duplicates(rows, ids, found, decided)
        num_bytes = decided.prints.column(NUM_BYTES, rows[stays]).to_numpy()
        train = np.array([split == TRAIN for split in splits], np.bool_)
        stats = {
            "kept": len(stays), "train_bytes": int(num_bytes[train].sum()),
            "dropped": dict(Counter(duplicates["reason"].to_pylist())), "label_conflicts": len(conflicts),
            "clusters": int((found.cluster == rows).sum()),
            "examples": self._examples(unit, duplicates, found.removed),
        }  # fmt: skip
        return plan, duplicates, conflicts, stats

    def _examples(self, unit: int, duplicates: pa.Table, removed: I64) -> dict[str, Any]:
        """Seeded examples with their text, which the prints do not hold."""
        examples = Examples(self.seed)
        if len(removed):
            texts = read_texts(self.corpus.units[unit], removed)
            table = pa.table({ID: duplicates[ID], TEXT: texts, "reason": duplicates["reason"]})
            for reason in (EXACT, NEAR):
                examples.add(reason, table.filter(pc.equal(table["reason"], reason)))
        return examples.found

    def summary(self) -> dict[str, Any]:
        """Adds up what the units said; written once, when all of them are planned."""
        total, examples = Counter[str](), Examples(self.seed)
        dropped = Counter[str]()
        for unit in range(len(self.corpus.units)):
            stats = storage.read_json(self.stats_path(unit))
            dropped.update(stats.pop("dropped", {}))
            examples.merge(stats.pop("examples", {}))
            total.update(stats)
        num_capped = read_stats(self.decided)["num_capped"]
        stats = {**total, "dropped": dropped, "examples": examples.found, "num_capped": num_capped}
        storage.write_json(self.folder / STATS, stats)
        return stats


def _labels(rows: I64, ids: list[str], decided: Decided) -> tuple[list[str | None], pa.Table]:
    """Labels of neighbouring documents united with those of the twins they stand for, and who disagrees."""
    twins, stands_for_them = decided.twins_of(rows)
    labels = decided.prints.column(LABEL, np.r_[rows, twins]).to_pylist()
    kept = np.r_[np.full(len(rows), -1), stands_for_them - rows[0]]
    return united_labels(ids, labels, minhash.Duplicates(kept, np.zeros(len(kept)), kept, 0))


def _duplicates(rows: I64, ids: list[str], found: minhash.Duplicates, decided: Decided) -> pa.Table:
    """Rows of schema.REMOVED: whose duplicate each removed document is, and how near."""
    removed = found.removed
    kept = found.kept[removed]
    digests = [decided.prints.column(DIGEST, chosen).to_pylist() for chosen in (rows[removed], kept)]
    reasons = [EXACT if own == other else NEAR for own, other in zip(*digests, strict=True)]
    return removed_rows([ids[row] for row in removed], reasons, decided.ids(kept), found.jaccard[removed].tolist())
