"""What a process draws by itself, from the run's seed, the step and its rank alone, and what ranks agree on first."""

import itertools
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from raysl.train import world
from raysl.train.world import World, resolve_precision


def drawn(rank: int, seed: int, step: int) -> int:
    World(rank, 64, torch.device("cpu")).seed(seed, step)
    return torch.initial_seed()


def test_no_two_ranks_and_steps_share_their_dropout() -> None:
    seeds = [drawn(rank, seed, step) for rank, seed, step in itertools.product(range(40), range(2), range(4))]
    assert len(set(seeds)) == 40 * 2 * 4


def test_the_largest_seed_and_step_are_taken_and_give_the_same_again() -> None:
    assert drawn(63, 2**32 - 1, 2**32 - 1) == drawn(63, 2**32 - 1, 2**32 - 1)


@dataclass(frozen=True)
class Among(World):
    """A rank of two, told what the other one says."""

    other: ClassVar[float]

    def total(self, values: Tensor) -> Tensor:
        return values + self.other


@pytest.mark.parametrize(
    ("here", "there", "expected"),
    [(True, 1.0, torch.bfloat16), (True, 0.0, torch.float32), (False, 1.0, torch.float32)],
)
def test_bf16_is_chosen_by_itself_where_the_devices_of_all_ranks_have_it(
    here: bool, there: float, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world, "_has_bf16", lambda _: here)
    monkeypatch.setattr(Among, "other", there, raising=False)
    among = Among(0, 2, torch.device("cpu"))
    assert resolve_precision("auto", among) == expected
    assert resolve_precision("bf16", among) == torch.bfloat16
