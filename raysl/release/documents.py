"""Prepared documents as a release needs them: the first ones to search in, and a fair draw of those held out. Torch-free."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysl import schema
from raysl.errors import DataError

COLUMNS = (schema.ID, schema.TEXT, schema.LABEL)


def first_documents(folder: Path, count: int) -> pa.Table:
    """The first `count` prepared documents: id, text, label. Reads no further than it has to."""
    tables: list[pa.Table] = []
    for path in _parts(folder):
        if sum(table.num_rows for table in tables) >= count:
            break
        tables.append(pq.read_table(path, columns=list(COLUMNS)))
    return pa.concat_tables(tables).slice(0, count)


def draw_split(folder: Path, split: str, count: int, seed: int) -> pa.Table:
    """At most `count` documents of a split, drawn with `seed`, in corpus order; memory holds one part and the draw."""
    parts = _parts(folder)
    sizes = [_of_split(path, split, []).num_rows for path in parts]
    total = sum(sizes)
    if not total:
        raise DataError(f"No document in {folder} is held out. Give prepare.split.{split} a share above 0.")
    chosen = np.sort(np.random.default_rng(seed).permutation(total)[:count])
    tables, start = [], 0
    for path, size in zip(parts, sizes, strict=True):
        local = np.isin(np.arange(start, start + size), chosen)
        start += size
        if local.any():  # filtered: a `take` joins texts into one array, which 2 GiB bound
            tables.append(_of_split(path, split, list(COLUMNS)).filter(pa.array(local)))
    return pa.concat_tables(tables).select(list(COLUMNS))


def _of_split(path: Path, split: str, columns: list[str]) -> pa.Table:
    table = pq.read_table(path, columns=[*columns, schema.SPLIT])
    return table.filter(pc.equal(table[schema.SPLIT], split))


def _parts(folder: Path) -> list[Path]:
    parts = sorted(folder.glob("part-*.parquet"))
    if not parts:
        raise DataError(f"No documents in {folder}. Run `raysl prepare` first.")
    return parts
