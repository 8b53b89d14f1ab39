"""A mistake that one rank alone meets: the others must not wait for it in an exchange until that times out."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from raysl import errors
from raysl.errors import RankError, RayslError, TrainingError
from raysl.train.world import World

ROOM = 4096
"""Bytes of a message that travels between ranks; what is longer is cut."""


@contextmanager
def met_by_all(world: World) -> Iterator[None]:
    """What a rank meets inside rises on all of them, as the first of them has met it."""
    own: RayslError | None = None
    try:
        yield
    except RayslError as error:
        own = error
    if own is not None and world.size == 1:
        raise own
    told = _first(world, own) if world.size > 1 else None
    if told is not None:
        raise told from own


def _first(world: World, own: RayslError | None) -> RayslError | None:
    """The mistake of the lowest rank that has one."""
    has = torch.zeros(world.size, device=world.device)
    has[world.rank] = float(own is not None)
    ranks = world.total(has).nonzero()
    if not len(ranks):
        return None
    said = torch.zeros(ROOM, dtype=torch.int32, device=world.device)
    if world.rank == int(ranks[0]):
        text = f"{type(own).__name__}\n{own}".encode()[:ROOM]
        said[: len(text)] = torch.tensor(list(text), dtype=torch.int32, device=world.device)
    kind, message = bytes(world.total(said).tolist()).rstrip(b"\0").decode(errors="ignore").split("\n", 1)
    found: RayslError = getattr(errors, kind, RayslError)(message)
    return found


@contextmanager
def ends_the_group(world: World) -> Iterator[None]:
    """While ranks train, only what stops the training is met by all of them; anything else has to end the others too."""
    try:
        yield
    except TrainingError:
        raise
    except RayslError as error:
        if world.size == 1:
            raise
        raise RankError(str(error)) from error
