"""Exponential moving average of the weights (Polyak & Juditsky, 1992): smoother than the weights themselves."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Running mean of all floating weights and buffers of `model`; whole numbers are copied.

    The decay rises with the step as (1 + step) / (10 + step) up to `decay`, so that a short run forgets its random start.
    Costs one copy of the weights.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes the weights after optimizer step `step` in."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, tensor in self.model.state_dict().items():
            kept = self.weights[name]
            if kept.is_floating_point():
                kept.lerp_(tensor, 1 - decay)
            else:
                kept.copy_(tensor)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model holds the averaged weights inside the block, its own after it."""
        own = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        self.model.load_state_dict(self.weights)
        try:
            yield
        finally:
            self.model.load_state_dict(own)

    def load(self, weights: dict[str, Tensor]) -> None:
        """Takes the average of a checkpoint."""
        for name, tensor in weights.items():
            self.weights[name].copy_(tensor)
