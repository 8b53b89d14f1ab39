"""Prepared documents as a release needs them: the first ones to search in, and a fair draw of those held out. Torch-free."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
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


def draw_split(folder: Path, split: str, count: int, seed: int, labelled: bool = False) -> pa.Table:
    """At most `count` documents of a split, drawn with `seed`, in corpus order; memory holds one part and the draw.

    Only those that have a label where they have to be `labelled`: none, where none has.
    """
    parts = _parts(folder)
    sizes = [_of_split(path, split, [], labelled).num_rows for path in parts]
    total = sum(sizes)
    if not total and not (labelled and any(_of_split(path, split, [], False).num_rows for path in parts)):
        raise DataError(f"No document in {folder} is held out. Give prepare.split.{split} a share above 0.")
    chosen = np.sort(np.random.default_rng(seed).permutation(total)[:count])
    tables, start = [schema.RAW_DOCUMENT.empty_table()], 0
    for path, size in zip(parts, sizes, strict=True):
        local = np.isin(np.arange(start, start + size), chosen)
        start += size
        if local.any():  # filtered: a `take` joins texts into one array, which 2 GiB bound
            tables.append(_of_split(path, split, list(COLUMNS), labelled).filter(pa.array(local)).select(list(COLUMNS)))
    return pa.concat_tables(tables)


def lacking(known: pa.Table, rows: pa.Table) -> pa.Table:
    """The rows whose text `known` lacks; of pictures, whose id."""
    name = schema.TEXT if schema.TEXT in rows.column_names else schema.ID
    return kept(rows, pc.invert(pc.is_in(rows[name], known[name])).to_numpy())


def kept(rows: pa.Table, chosen: npt.NDArray[np.bool_]) -> pa.Table:
    """The rows that are `chosen`. Pictures stay where they lie, in mapped shards: a filter would copy them into memory."""
    if schema.TEXT in rows.column_names:
        return rows.filter(pa.array(chosen))
    borders = np.flatnonzero(np.diff(chosen, prepend=False, append=False)).reshape(-1, 2).tolist()
    return pa.concat_tables([rows.slice(0, 0), *(rows.slice(start, stop - start) for start, stop in borders)])


def described(rows: pa.Table) -> pa.Table:
    """id, text and label of rows; pictures have no text."""
    if schema.TEXT not in rows.column_names:
        rows = rows.append_column(schema.TEXT, pa.nulls(len(rows), pa.string()))
    return rows.select(list(COLUMNS)).replace_schema_metadata(None)


def _of_split(path: Path, split: str, columns: list[str], labelled: bool) -> pa.Table:
    table = pq.read_table(path, columns=[*{*columns, schema.SPLIT, schema.LABEL}])
    kept = pc.equal(table[schema.SPLIT], split)
    return table.filter(pc.and_(kept, pc.is_valid(table[schema.LABEL])) if labelled else kept)


def _parts(folder: Path) -> list[Path]:
    parts = sorted(folder.glob("part-*.parquet"))
    if not parts:
        raise DataError(f"No documents in {folder}. Run `raysl prepare` first.")
    return parts
