"""Which pictures stay, under which label, in which split: one decision over the hashes of all of them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from raysl import storage
from raysl.data.clean import PRINTS, STATS, read_stats
from raysl.data.config import ImagesConfig, SplitConfig
from raysl.data.dedup import EXACT, NEAR, PLAN, ROW, split_of, unique_ids, united_labels
from raysl.data.hamming import Twins, find_twins
from raysl.data.image_clean import HASH, ROWS, least_side, removed_images
from raysl.data.image_examples import ImageExamples
from raysl.data.images import Pixels, decode, fitted, to_pixels
from raysl.data.prints import DIGEST, mapped
from raysl.schema import ID, LABEL


@dataclass(frozen=True)
class ImagePlanner:
    """Everything the plan task needs besides the clean units; it is pickled to a worker."""

    settings: ImagesConfig
    split: SplitConfig
    seed: int

    def __call__(self, units: Sequence[Path], folder: Path) -> dict[str, Any]:
        """Writes to `folder` (whole or absent) what stays of each unit, the duplicates and the label conflicts."""
        prints = pa.concat_tables([mapped(unit / PRINTS) for unit in units]).combine_chunks()
        ids = unique_ids(prints[ID].to_pylist())
        twins = find_twins(*_compared(prints), self.settings.max_distance)
        labels, conflicts = united_labels(ids, prints[LABEL].to_pylist(), twins)
        splits = [split_of(ids[cluster], self.seed, self.split) for cluster in twins.cluster.tolist()]
        plan = pa.Table.from_arrays(
            [pa.array(np.arange(len(ids))), pa.array(ids, pa.string()), pa.array(labels, pa.string()),
             pa.array(twins.cluster), pa.array(splits, pa.string())], schema=PLAN,
        )  # fmt: skip
        kept, duplicates = twins.kept < 0, duplicate_rows(ids, prints[DIGEST].to_pylist(), twins)
        stats = {
            "kept": int(kept.sum()), "dropped": dict(Counter(duplicates["reason"].to_pylist())),
            "label_conflicts": len(conflicts), "clusters": len(np.unique(twins.cluster)),
            "without_hash": prints[HASH].null_count, "examples": self._examples(duplicates, twins, units),
        }  # fmt: skip
        with storage.atomic_path(folder) as temporary:
            temporary.mkdir()
            _write_parts(plan, kept, units, temporary)
            pq.write_table(duplicates, temporary / "duplicates.parquet")
            pq.write_table(conflicts, temporary / "conflicts.parquet")
            storage.write_json(temporary / STATS, stats)
        return stats

    def _examples(self, duplicates: pa.Table, twins: Twins, units: Sequence[Path]) -> dict[str, Any]:
        examples = ImageExamples(self.seed)
        rows = PreparedRows(units, self.settings)
        for removed, row in zip(duplicates.to_pylist(), twins.removed.tolist(), strict=True):
            examples.add(removed["reason"], removed[ID], "", partial(rows.beside, row, int(twins.kept[row])))
        return examples.found


def _compared(prints: pa.Table) -> tuple[Any, Any, list[bytes]]:
    hashes = prints[HASH]
    return hashes.fill_null(0).to_numpy(), hashes.is_valid().to_numpy(), prints[DIGEST].to_pylist()


def duplicate_rows(ids: Sequence[str], digests: Sequence[bytes], twins: Twins) -> pa.Table:
    """Rows of schema.REMOVED_IMAGE: whose duplicate each removed picture is, and how near."""
    pairs = [(row, int(twins.kept[row])) for row in twins.removed.tolist()]
    reasons = [EXACT if digests[row] == digests[kept] else NEAR for row, kept in pairs]
    distances = twins.distance[twins.removed].tolist()
    return removed_images([ids[row] for row, _ in pairs], reasons, [ids[kept] for _, kept in pairs], distances)


def _write_parts(plan: pa.Table, kept: Any, units: Sequence[Path], folder: Path) -> None:
    """One table a unit: rows of its file that stay."""
    first = 0
    for number, unit in enumerate(units):
        size = read_stats(unit)["clean"]
        part = plan.slice(first, size).set_column(0, ROW, pa.array(np.arange(size)))
        pq.write_table(part.filter(pa.array(kept[first : first + size])), folder / f"part-{number:05d}.parquet")
        first += size


class PreparedRows:
    """Prepared pictures of all units, by their row number over all of them; on disk until they are asked for."""

    def __init__(self, units: Sequence[Path], settings: ImagesConfig) -> None:
        self._units, self._settings = units, settings
        self._firsts = np.cumsum([0, *(read_stats(unit)["clean"] for unit in units)])

    def pixels(self, row: int) -> Pixels:
        """(size, size, channels)"""
        unit = int(np.searchsorted(self._firsts, row, side="right")) - 1
        stored = mapped(self._units[unit] / ROWS)[0][row - int(self._firsts[unit])]
        shape = (self._settings.size, self._settings.size, self._settings.channels)
        if self._settings.store == "encoded":
            return self._decoded(stored.as_py())
        return np.asarray(stored.values.to_numpy().reshape(shape))

    def _decoded(self, data: bytes) -> Pixels:
        picture = decode(data, self._settings.channels, least_side(self._settings), self._settings.max_pixels)
        return to_pixels(fitted(picture.image, self._settings.size, self._settings.resize))

    def beside(self, *rows: int) -> Image.Image:
        """Pictures side by side."""
        joined = np.concatenate([self.pixels(row) for row in rows], axis=1)
        return Image.fromarray(joined[..., 0] if joined.shape[2] == 1 else joined)
