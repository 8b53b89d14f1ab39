"""Decoding on the CPUs that the training leaves: each shard by one Ray task, once for all nodes that train.

Ray Data would decode as well, but it keeps no position. A task for each shard leaves order, position and the bound on work
done ahead with the reader (cached_shards.py): a decoded shard is asked for as a fetched one is.
"""

from typing import Any

import ray

from raysl import cluster
from raysl.data.decode import decode_file
from raysl.data.prepared import Decoder
from raysl.errors import ConfigError, RayslError

MAX_RETRIES = 3
"""Starts of a task whose process dies."""
AHEAD = 2
"""Tasks asked for, over those that the free CPUs run at a time."""


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class Decodings:
    """Hands every training node the same decoded shard: the first to ask starts the task, the last takes it away.

    Started again after its node died, it knows no nodes, and each has its shards decoded for itself.
    """

    def __init__(self, num_cpus: float) -> None:
        self._task = ray.remote(decode_file).options(num_cpus=num_cpus, max_retries=MAX_RETRIES)
        self._start: str | None = None
        self._nodes: set[str] = set()
        self._running: dict[str, tuple[list[Any], set[str]]] = {}

    def join(self, node: str, start: str | None) -> None:
        """`start` names the worker group: nodes of an earlier one are not waited for, nor what they asked for kept."""
        if start != self._start:
            self._start = start
            self._nodes.clear()
            self._running.clear()
        self._nodes.add(node)

    def shard(self, where: str, node: str) -> list[Any]:
        """A list with the reference: a bare one would be waited for here."""
        reference, taken = self._running.setdefault(where, ([], set()))
        if not reference:
            reference.append(self._task.remote(where))
        taken.add(node)
        if taken >= self._nodes:  # nobody else will ask; a node that comes again has it decoded again
            del self._running[where]
        return reference


def free_cpus(num_workers: int, use_gpu: bool) -> float:
    """CPUs that training processes leave: Ray Train books one for each without a GPU, none for those with one."""
    return float(ray.cluster_resources().get("CPU", 0)) - (0 if use_gpu else num_workers)


def check_cpus(num_workers: int, use_gpu: bool, decode_cpus: float) -> None:
    """Raises ConfigError where decoding tasks would wait without end; a cluster that grows may get CPUs for them."""
    left = free_cpus(num_workers, use_gpu)
    if left < decode_cpus and not cluster.autoscales():
        raise ConfigError(
            f"Stored pictures are decoded on CPUs that the training leaves: {num_workers} workers leave {max(left, 0):g} of "
            f"{ray.cluster_resources().get('CPU', 0):g}, and a task needs pretrain.feed.decode_cpus={decode_cpus:g}. "
            f"Lower pretrain.num_workers, add CPU nodes, or set pretrain.feed.decode=trainer."
        )


def start(num_workers: int, use_gpu: bool, decode_cpus: float) -> tuple[Any, int]:
    """The actor that hands out decoded shards, and how many each process asks for at a time."""
    check_cpus(num_workers, use_gpu, decode_cpus)
    tasks = AHEAD * free_cpus(num_workers, use_gpu) / decode_cpus
    return Decodings.remote(decode_cpus), max(round(tasks / num_workers), 1)  # type: ignore[attr-defined]


def decoder(decodings: Any, at_a_time: int) -> Decoder:
    """What a training process decodes with."""
    context = ray.get_runtime_context()
    node = context.get_node_id()
    ray.get(decodings.join.remote(node, context.get_placement_group_id()))  # Ray Train makes a group for each start

    def decode(where: str) -> bytes:
        try:
            found: bytes = ray.get(ray.get(decodings.shard.remote(where, node))[0])
        except RayslError as error:
            raise getattr(error, "cause", error) from None  # Ray adds the trace of the task to its message
        return found

    return Decoder(decode, at_a_time)
