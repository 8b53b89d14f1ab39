"""Ids that name one document each, found without holding all of them in one place.

What is compared is a hash of each id, beside it the hash of what stands before `#` and a number: whether `name#2` is taken
is then known wherever the twins of `name` meet.
"""

import hashlib
import re
from array import array
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raysl.data.dedup import unique_ids
from raysl.data.prints import Prints
from raysl.schema import ID

DOCUMENT_ROW = "document"
RENAMED = pa.schema([(DOCUMENT_ROW, pa.int64()), (ID, pa.string())])
"""Documents whose id another one had before them, and their new id."""
NUMBERED = re.compile(r"(.*)#\d+", re.DOTALL)


def hash_id(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())


def id_hashes(prints: Prints, first: int, stop: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hashes of the ids of some parts, and the document of each; `x#2` stands there as itself and as `x`."""
    hashes, documents = array("Q"), array("q")
    for part in range(first, stop):
        for document, name in enumerate(prints.ids_of_part(part), start=int(prints.firsts[part])):
            numbered = NUMBERED.fullmatch(name)
            for one in (name, numbered[1]) if numbered else (name,):
                hashes.append(hash_id(one))
                documents.append(document)
    return np.array(hashes, np.uint64), np.array(documents, np.int64)


def renamed(hashes: NDArray[np.uint64], documents: NDArray[np.int64], prints: Prints) -> pa.Table:
    """New ids for the later ones of equal ids; all entries of one hash have to be here. Equals `dedup.unique_ids` of all."""
    found = dict(_renamed(hashes, documents, prints))
    rows = sorted(found)
    return pa.table({DOCUMENT_ROW: rows, ID: [found[row] for row in rows]}, schema=RENAMED)


def _renamed(hashes: NDArray[np.uint64], documents: NDArray[np.int64], prints: Prints) -> Iterator[tuple[int, str]]:
    order = np.lexsort((documents, hashes))
    hashes, documents = hashes[order], documents[order]
    bounds = np.flatnonzero(np.r_[True, hashes[1:] != hashes[:-1], True])
    repeated = np.flatnonzero(np.diff(bounds) > 1)
    for first, stop in zip(bounds[repeated].tolist(), bounds[repeated + 1].tolist(), strict=True):
        rows = documents[first:stop]
        names = prints.column(ID, rows).to_pylist()
        for row, name, new in zip(rows.tolist(), names, unique_ids(names), strict=True):
            if new != name and hash_id(name) == int(hashes[first]):  # others are decided under their own hash
                yield row, new
