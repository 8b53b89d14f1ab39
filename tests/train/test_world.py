"""What a process draws by itself depends on the run's seed, the step and its rank, and on nothing else."""

import itertools

import torch

from raysl.train.world import World


def drawn(rank: int, seed: int, step: int) -> int:
    World(rank, 64, torch.device("cpu")).seed(seed, step)
    return torch.initial_seed()


def test_no_two_ranks_and_steps_share_their_dropout() -> None:
    seeds = [drawn(rank, seed, step) for rank, seed, step in itertools.product(range(40), range(2), range(4))]
    assert len(set(seeds)) == 40 * 2 * 4


def test_the_largest_seed_and_step_are_taken_and_give_the_same_again() -> None:
    assert drawn(63, 2**32 - 1, 2**32 - 1) == drawn(63, 2**32 - 1, 2**32 - 1)
