"""Exchanges with the other processes that train the same model."""

from collections.abc import Callable
from typing import Any, ClassVar, Generic, ParamSpec, TypeVar

import torch
import torch.distributed as dist

P = ParamSpec("P")
R = TypeVar("R")


def several() -> bool:
    """Whether this process is one of at least two that share a batch."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rows_of_each(num_rows: int) -> list[int]:
    """Rows that each process holds of a global batch, of which process r takes row r and then every `world size`-th."""
    size = dist.get_world_size() if several() else 1
    return [len(range(rank, num_rows, size)) for rank in range(size)]


class Exchange(Generic[P, R]):
    """A function that all ranks call together, and that torch.compile calls as it is instead of looking into it.

    Where torch 2.11 looks in, it exchanges tensors without memory, of which gloo dies when they belong to a GPU.
    """

    all: ClassVar[list["Exchange[Any, Any]"]] = []

    def __init__(self, function: Callable[P, R]) -> None:
        self.function = function
        self.all.append(self)

    def __call__(self, *given: P.args, **named: P.kwargs) -> R:
        return self.function(*given, **named)


def keep_out_of_graphs() -> None:
    """For all exchanges; to be called before anything is compiled. Imports the compiler."""
    for one in Exchange.all:
        one.function = torch.compiler.disable(one.function)  # type: ignore[no-untyped-call]
    Exchange.all.clear()
