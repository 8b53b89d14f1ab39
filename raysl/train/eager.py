"""Optimizers and DDP without torch.compile's compiler, whose import takes a process that trains 1 to 2.5 seconds.

torch 2.11 to 2.13 imports `torch._dynamo` when an optimizer or DDP is made, and again in Adam's step and DDP's forward, only
to tell it not to compile them. Nothing here compiles an optimizer or DDP: `pretrain.compile` compiles the model inside.
"""

import inspect
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

for _method in (
    Optimizer.add_param_group, Optimizer.zero_grad, Optimizer.state_dict, Optimizer.load_state_dict,
    DistributedDataParallel._inside_ddp_forward,
):  # fmt: skip
    _plain = inspect.unwrap(_method)
    setattr(_plain, "__dynamo_disable", _plain)  # what torch._compile calls instead, kept as it keeps its own
_step: Callable[[Any], Any] = inspect.unwrap(torch.optim.Adam.step)


class AdamW(torch.optim.AdamW):
    """torch's own (Loshchilov & Hutter, 2019), whose step is never differentiated."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None, "the loop computes the gradient once"
        _step(self)


def data_parallel(model: nn.Module) -> DistributedDataParallel:
    """DDP (Li et al., 2020), whose buckets are the gradients' own memory.

    Where the model is compiled, DDP is asked to cut its graph at the buckets, as torch does it.
    """
    if "torch._dynamo" in sys.modules:
        return DistributedDataParallel(model, gradient_as_bucket_view=True)
    plain = SimpleNamespace(utils=SimpleNamespace(get_optimize_ddp_mode=lambda: "ddp_optimizer"))  # the default
    vars(torch)["_dynamo"] = plain  # asked for by name, torch would import it
    try:
        return DistributedDataParallel(model, gradient_as_bucket_view=True)
    finally:
        del vars(torch)["_dynamo"]
