"""Ray Data on a cluster that this command started for itself (`cluster.own`): without two actors that others need.

Ray Data 2.60 asks one which share of the cluster it may use, and counts for the dashboard in another. Both are processes
that have to start, one after the other, before the first task does. A cluster of one node that ends with the command has
one user and no dashboard. docs/decisions/0009.
"""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import ray
from ray.data._internal import stats
from ray.data._internal.cluster_autoscaler import AutoscalingCoordinator, rate_based_cluster_autoscaler


@contextmanager
def without_actors() -> Iterator[None]:
    """For the data sets of this process in the block."""
    with ExitStack() as changes:
        changes.enter_context(patch.object(rate_based_cluster_autoscaler, "DefaultAutoscalingCoordinator", _WholeNode))
        for name, replacement in vars(_Uncounted).items():
            if isinstance(replacement, staticmethod):
                changes.enter_context(patch.object(stats._StatsManager, name, replacement))
        yield


class _WholeNode(AutoscalingCoordinator):  # type: ignore[misc]
    """Hands out all that the node has, and asks nobody for more."""

    def __init__(self, **_: Any) -> None:
        self.resources = {node["NodeID"]: node["Resources"] for node in ray.nodes()}

    def request_resources(self, *_: Any, **__: Any) -> None: ...

    def cancel_request(self) -> None: ...

    def get_reserved_resources(self) -> dict[str, dict[str, float]]:
        return self.resources


class _Uncounted(stats._StatsManager):  # type: ignore[misc]
    """Numbers its data sets itself and keeps no statistics beyond them."""

    @staticmethod
    def gen_dataset_id_from_stats_actor() -> str:
        return uuid.uuid4().hex

    @staticmethod
    def register_dataset_to_stats_actor(*_: Any, **__: Any) -> None: ...

    @staticmethod
    def update_execution_metrics(*_: Any, **__: Any) -> None: ...

    @staticmethod
    def update_iteration_metrics(*_: Any, **__: Any) -> None: ...
