"""Ranks of one group, as processes of this machine."""

import multiprocessing
from collections.abc import Callable

import torch.multiprocessing as mp


def in_ranks(function: Callable[..., None], size: int, *arguments: object) -> None:
    """Calls `function(rank, *arguments)` in `size` processes; raises what one of them raises.

    They are forked from a process that has imported torch and the training loop, and done nothing else: processes that
    start from nothing take three seconds of a core each for these imports.
    """
    multiprocessing.set_forkserver_preload(["raysl.train.loop"])
    mp.start_processes(function, args=arguments, nprocs=size, start_method="forkserver")
