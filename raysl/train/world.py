"""The processes of a run, with or without Ray: rank, size, device, the sums over ranks, and when one has to leave."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from raysl.errors import ConfigError

STAYS, NODE_LEAVES, MUST_END = range(3)
"""What a rank knows of its future: nothing, its node is being drained, its process was sent SIGTERM."""


@dataclass(frozen=True)
class World:
    """This process among `size` training processes."""

    rank: int
    size: int
    device: torch.device
    leaving: Callable[[], int] = lambda: STAYS
    """STAYS, NODE_LEAVES or MUST_END, asked every few seconds."""

    def total(self, values: Tensor) -> Tensor:
        """Sum over all ranks; a new tensor."""
        values = values.detach().clone()
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def sums(self, values: Mapping[str, float]) -> dict[str, float]:
        """Sum over all ranks of numbers that every rank has under the same names."""
        names = sorted(values)
        totals = self.total(torch.tensor([values[name] for name in names], device=self.device)).tolist()
        return dict(zip(names, totals, strict=True))

    def seed(self, seed: int, step: int) -> None:
        """Seeds torch on this rank's device from the run's seed, the step and the rank, each below 2**32.

        `torch.manual_seed` asks every kind of device, .5 ms on a CPU.
        """
        number = int(np.random.SeedSequence((seed, step, self.rank)).generate_state(1, np.uint64)[0])
        torch.default_generator.manual_seed(number)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(number)

    def must_end(self) -> bool:
        return self.leaving() == MUST_END


def single(device: str = "auto", leaving: Callable[[], int] = lambda: STAYS) -> World:
    """One process on its own: how the core is profiled and tested."""
    return World(0, 1, resolve_device(device), leaving)


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    return torch.autocast(device.type, precision, enabled=precision != torch.float32)


def resolve_device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device 'cuda' was asked for and torch sees no GPU here. Use device=auto or device=cpu.")
    return torch.device(name)


def resolve_precision(name: str, world: World) -> torch.dtype:
    """`auto` is bf16 where the devices of all ranks multiply it in hardware, else fp32."""
    if name == "auto":
        able = world.total(torch.tensor(float(_has_bf16(world.device)), device=world.device))
        name = "bf16" if int(able) == world.size else "fp32"
    return torch.bfloat16 if name == "bf16" else torch.float32


def _has_bf16(device: torch.device) -> bool:
    return torch.cuda.is_bf16_supported(including_emulation=False) if device.type == "cuda" else _cpu_has_bf16()


def _cpu_has_bf16() -> bool:
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe and probe())
