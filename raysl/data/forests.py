"""Which documents may be duplicates of each other: connected components of all that share a band key.

Components are found part by part, as forests of depth one, and joined: a forest holds at most one entry a document, however
large a bucket is (local forests and a tree merge; Kiveris et al., 2014, join components the same way). Forests of any cut of
the keys, merged in any order, end as the same components.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

I64 = NDArray[np.int64]


@dataclass(frozen=True)
class Forest:
    """`roots[i]` is the first document of the component of `documents[i]`; documents are sorted, roots among them."""

    documents: I64
    roots: I64


def forest_of_keys(keys: NDArray[np.uint64], documents: I64) -> Forest:
    """Joins the documents with equal keys; a document may stand there many times."""
    order = np.argsort(keys)
    keys, documents = keys[order], documents[order]
    equal = keys[1:] == keys[:-1]
    return _components(documents[:-1][equal], documents[1:][equal])


def merged(forests: Sequence[Forest]) -> Forest:
    """The components of all forests together."""
    nothing = np.zeros(0, np.int64)
    return _components(
        np.concatenate([nothing, *(one.documents for one in forests)]),
        np.concatenate([nothing, *(one.roots for one in forests)]),
    )


def _components(a: I64, b: I64) -> Forest:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    documents = np.unique(np.concatenate([a, b]))
    edges = (np.searchsorted(documents, a), np.searchsorted(documents, b))
    graph = coo_matrix((np.ones(len(a), np.int8), edges), shape=(len(documents), len(documents)))
    count, labels = connected_components(graph, directed=False)
    first = np.empty(count, np.int64)
    first[labels[::-1]] = np.arange(len(documents))[::-1]  # of several values for one place the last one stays
    return Forest(documents, documents[first[labels]])


def groups(forest: Forest, num_bytes: I64, limit: float) -> Iterator[I64]:
    """Cuts the documents into groups of whole components of about `limit` bytes; sorted within a group.

    A component that is larger than the limit is a group with what fits before it: it has to be decided in one place.
    """
    order = np.lexsort((forest.documents, forest.roots))
    begins = np.flatnonzero(np.r_[True, np.diff(forest.roots[order]) != 0]) if len(order) else order
    sizes = np.add.reduceat(num_bytes[order], begins) if len(order) else num_bytes
    number = (np.cumsum(sizes) - sizes) // max(int(limit), 1)  # of each component
    number_of_document = np.repeat(number, np.diff(np.r_[begins, len(order)]))
    for group in np.unique(number).tolist():
        yield np.sort(forest.documents[order[number_of_document == group]])
