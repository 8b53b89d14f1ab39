"""What an objective is: a pretext task with its collate, its loss and its embedding. One loop trains all of them.

Losses are sums divided by totals counted over all ranks and micro-batches of an optimizer step, so a step is exact under
gradient accumulation and uneven counts, and equals one process with the whole batch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from raysl.data.rows import Row
from raysl.data.shards import Tokens
from raysl.errors import ConfigError
from raysl.models.encoder import Encoder
from raysl.models.text import PAD

Batch = dict[str, Tensor]
RowKind = Literal["packed", "documents", "titled", "pixels"]


WORTH_A_STEP = 1000
"""Random numbers that are drawn in the time of one step over them."""


@dataclass(frozen=True)
class Uniform:
    """Random numbers of a rank's rows: uniform(k) -> (rows, k) in [0, 1), the same for a row on any number of workers."""

    generator: np.random.Generator
    """Of the bit generator PCG64, one of whose steps is one number."""
    num_rows: int
    """Of the global batch."""
    places: npt.NDArray[np.int64]
    """Of the rank's rows in it, rising."""

    def __call__(self, count: int) -> npt.NDArray[np.float64]:
        """Many numbers of rows of other ranks are stepped over: drawn by each rank, they would cost more than its work."""
        if (self.num_rows - len(self.places)) * count < WORTH_A_STEP * len(self.places):
            return self.generator.random((self.num_rows, count))[self.places]
        numbers = np.empty((len(self.places), count))
        done, at = 0, 0
        for run in np.split(self.places, np.flatnonzero(np.diff(self.places) > 1) + 1):
            if len(run):
                self._pass_over((int(run[0]) - at) * count)
                self.generator.random(out=numbers[done : done + len(run)])
                done, at = done + len(run), int(run[-1]) + 1
        self._pass_over((self.num_rows - at) * count)
        return numbers

    def _pass_over(self, count: int) -> None:
        assert isinstance(self.generator.bit_generator, np.random.PCG64)
        self.generator.bit_generator.advance(count)

    def together(self) -> Batch:
        """A tensor without memory, as long as the global batch: a number that a GPU need not be asked for."""
        return {"together": torch.empty(self.num_rows, 0)}


@dataclass(frozen=True)
class StepOutput:
    """Loss of one micro-batch: summed over its targets, divided by the totals of the whole step."""

    loss: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
    """Detached parts of the loss under their names; they add up over micro-batches and ranks like the loss."""


class Objective(nn.Module):
    """Base of all pretext tasks.

    A subclass says which rows it reads, turns them into tensors, and computes its loss. `embed` is what remains after
    pretraining.
    """

    unit: ClassVar[str] = "tokens"
    """What the speed of a run is counted in: tokens or images."""
    row_kind: RowKind = "packed"
    encoder_class: ClassVar[type[nn.Module]] = nn.Module
    """What the encoder has to be, also where its class lies outside the catalog."""

    def __init__(self, config: Any, encoder: Encoder) -> None:
        super().__init__()
        if not isinstance(encoder, self.encoder_class):
            raise ConfigError(
                f"pretrain.objective '{config.type}' trains a model of class {self.encoder_class.__name__} "
                f"({self.encoder_class.__module__}), got {type(encoder).__name__}. Choose another pretrain.model."
            )
        self.config, self.encoder = config, encoder

    def leave_out(self, *parts: nn.Module | nn.Parameter) -> None:
        """Takes parts of the encoder that this loss does not reach out of training; DDP would wait for their gradients."""
        for part in parts:
            part.requires_grad_(False)

    def look_up(self, file: Callable[[str], Path]) -> None:
        """Reads what the task has to know of the prepared data besides its rows: file(name) is its path on this node."""

    @property
    def row_length(self) -> int:
        """Tokens of one row at most (text)."""
        return int(self.encoder.config.context_length)

    @property
    def min_tokens(self) -> int:
        """Documents shorter than this are left out of `documents` rows."""
        return 1

    def collate(self, rows: Sequence[Row], uniform: Uniform) -> Batch:
        """Rows as they lie on disk -> tensors of one micro-batch, first what `embed` reads.

        All randomness comes from `uniform`.
        """
        raise NotImplementedError

    def units(self, batch: Batch) -> int:
        """Tokens or images in a micro-batch, padding left out."""
        return int((next(iter(batch.values())) != PAD).sum())

    def inputs(self, rows: Sequence[Row]) -> Tensor:
        """Whole rows as `embed` reads them, nothing hidden, cut or augmented."""
        return torch.from_numpy(pad(rows))

    def targets(self, batch: Batch) -> Tensor:
        """Number of targets of each part of the loss: a float tensor that is summed over micro-batches and ranks."""
        raise NotImplementedError

    def forward(self, batch: Batch, totals: Tensor) -> StepOutput:
        """Loss of this micro-batch; `totals` are the summed `targets` of the whole optimizer step."""
        raise NotImplementedError

    def embed(self, inputs: Tensor) -> Tensor:
        """Embedding (batch, width) of the first tensor of a batch."""
        return self.encoder.embed(inputs)


def pad(rows: Sequence[Tokens], length: int | None = None) -> npt.NDArray[np.int64]:
    """Rows side by side, filled up with PAD (0) to the longest of them or to `length`."""
    longest = length or max(len(row) for row in rows)
    out = np.zeros((len(rows), longest), np.int64)
    for place, row in enumerate(rows):
        out[place, : len(row)] = row[:longest]
    return out


def document_numbers(tokens: npt.NDArray[np.int64], separator: int) -> npt.NDArray[np.int64]:
    """Numbers the documents packed into each row: a separator is the last token of its document."""
    ends = np.cumsum(tokens == separator, axis=1)
    ends[:, 1:] = ends[:, :-1].copy()
    ends[:, 0] = 0
    return np.asarray(ends, np.int64)


def document_borders(documents: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """Where the documents of rows (rows, length) start, row after row, and where the last one ends (documents + 1,)."""
    first = np.ones(documents.shape, bool)
    first[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return np.append(np.flatnonzero(first), documents.size).astype(np.int32)


def as_tensors(**arrays: npt.NDArray[Any]) -> Batch:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}
