"""Muon (Jordan et al., 2024) for the matrices and the filters inside a network."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class Muon(torch.optim.Muon):
    """torch's Muon, which takes matrices only, over filters as well.

    A filter bank (out, in, height, width) steps as the matrix (out, in x height x width) that shares its memory. Momentum is
    kept for that matrix, its columns in the order in which the filters lie in memory; a step does not depend on that order.
    """

    def __init__(self, weights: Iterable[nn.Parameter], **settings: Any) -> None:
        self.weights = list(weights)
        self.matrices = [
            weight if weight.ndim == 2 else nn.Parameter(as_matrix(weight.data, weight)) for weight in self.weights
        ]
        for weight, matrix in zip(self.weights, self.matrices, strict=True):
            assert weight.data_ptr() == matrix.data_ptr(), "a matrix of its own would take the steps and the weight none"
        super().__init__(self.matrices, **settings)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None, "the loop computes the gradient once"
        for weight, matrix in zip(self.weights, self.matrices, strict=True):
            if matrix is not weight:
                matrix.grad = None if weight.grad is None else as_matrix(weight.grad, weight)
        super().step()  # type: ignore[no-untyped-call]

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        for weight, matrix in zip(self.weights, self.matrices, strict=True):
            if matrix is not weight:
                matrix.grad = None
                weight.grad = None if set_to_none or weight.grad is None else torch.zeros_like(weight.grad)


def as_matrix(values: Tensor, weight: Tensor) -> Tensor:
    """`values` (out, in, ...) as (out, in x ...), columns in the order in which `weight` lies in memory."""
    return values.flatten(1) if weight.is_contiguous() else values.movedim(1, -1).flatten(1)
