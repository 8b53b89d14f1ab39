"""Ray Train on a cluster that this command started for itself (`cluster.own`): fewer processes, a third less time to start.

Ray Train 2.60 surrounds the workers with actors that a shared cluster needs: one removes the workers' reservation should the
controller die without the job, one asks for more nodes, one splits data sets over the workers (there are none: raysl reads
shards), and one looks for nodes that are taken away (`cluster.FOR_OWN`). A cluster of one node that ends with the command
has none of these cases, and each actor wakes 100 times a second. The controller gets no environment of its own either,
because its node has it already: with one, no process that stands ready can be used. docs/decisions/0009.
"""

import threading
from typing import Any

import ray
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy.fixed import FixedScalingPolicy


class OwnClusterTrainer(TorchTrainer):  # type: ignore[misc]
    """A TorchTrainer without data sets, for a cluster of one node that ends with this process."""

    def _create_default_callbacks(self) -> list[Any]:
        needless = (DatasetsCallback, PlacementGroupCleanerCallback)
        return [callback for callback in super()._create_default_callbacks() if not isinstance(callback, needless)]

    def _initialize_and_run_controller(self, scaling_policy: Any, **arguments: Any) -> Any:
        """As Ray's, in the environment of the node."""
        if type(scaling_policy) is FixedScalingPolicy:
            scaling_policy = _AsItIs(self.scaling_config)
        controller = ray.remote(num_cpus=0)(TrainController).remote(scaling_policy=scaling_policy, **arguments)
        if threading.current_thread() is threading.main_thread():
            self._register_sigint_handler(controller)
        ray.get(controller.run.remote())
        return ray.get(controller.get_result.remote())


class _AsItIs(FixedScalingPolicy):  # type: ignore[misc]
    """Asks nobody for nodes."""

    def _send_resource_request(self) -> None: ...

    def _maybe_send_resource_request(self) -> None: ...

    def _cancel_resource_request(self) -> None: ...
