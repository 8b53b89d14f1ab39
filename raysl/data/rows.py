"""What a training run reads: numbered rows of one split, whatever they hold."""

from typing import Any, Protocol

import numpy.typing as npt

Row = npt.NDArray[Any]
"""Tokens (int32) or pixels (uint8) of one row, one-dimensional."""


class Rows(Protocol):
    """`TokenRows` and `PixelRows`: rows 0..len-1 over all shards of a split."""

    def __len__(self) -> int: ...

    def row(self, index: int) -> Row:
        """A view into the mapped file."""
        ...
