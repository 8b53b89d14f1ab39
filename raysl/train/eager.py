"""Optimizers without torch.compile's compiler, whose import takes a process that trains 1 to 2.5 seconds.

torch 2.11 to 2.13 imports `torch._dynamo` when an optimizer is made, and again in Adam's step, only to tell it not to
compile them. Nothing here compiles an optimizer: `pretrain.compile` compiles the model, whose calls these are not in.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer

for _method in (Optimizer.add_param_group, Optimizer.zero_grad, Optimizer.state_dict, Optimizer.load_state_dict):
    _plain = inspect.unwrap(_method)
    setattr(_plain, "__dynamo_disable", _plain)  # what torch._compile calls instead, kept as it keeps its own
_step: Callable[[Any], Any] = inspect.unwrap(torch.optim.Adam.step)


class AdamW(torch.optim.AdamW):
    """torch's own (Loshchilov & Hutter, 2019), whose step is never differentiated."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None, "the loop computes the gradient once"
        _step(self)
