"""Ray Train on a cluster that this command started for itself (`cluster.own`): fewer processes, half the time to start.

Ray Train 2.60 runs its controller as an actor, and surrounds it with actors that a shared cluster needs: one removes the
workers' reservation should the controller die without the job, one asks for more nodes, one splits data sets over the
workers (there are none: raysl reads shards), one looks for nodes that are taken away (`FOR_CONTROLLER`), and at one the
ranks meet to report. A cluster of one node that ends with the command needs none of these: here the controller runs in the
driver, which has imported all it takes, and Ctrl-C reaches it. docs/decisions/0009.
"""

import asyncio
import signal
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import Mock, patch

import ray
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy.fixed import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import WorkerGroup, state, worker_group

from raysl import cluster

FOR_CONTROLLER = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # the node stays as long as the command
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",  # it would write to the terminal
    "RAY_WARN_BLOCKING_GET_INSIDE_ASYNC": "0",  # as Ray Train sets it for its controller
}


class OwnClusterTrainer(TorchTrainer):  # type: ignore[misc]
    """A TorchTrainer without data sets, for a cluster of one node that ends with this process."""

    def _create_default_callbacks(self) -> list[Any]:
        needless = (DatasetsCallback, PlacementGroupCleanerCallback)
        return [callback for callback in super()._create_default_callbacks() if not isinstance(callback, needless)]

    def _initialize_and_run_controller(self, scaling_policy: Any, **arguments: Any) -> Any:
        """As Ray's, in this process; an interrupt ends the workers and goes on to the caller."""
        if type(scaling_policy) is FixedScalingPolicy:
            scaling_policy = _AsItIs(self.scaling_config)
        with cluster.environment(**cluster.unset(FOR_CONTROLLER)), _without_reports():
            controller = _Controller(scaling_policy=scaling_policy, **arguments)
            try:
                finish(controller.run())
            except BaseException:
                group = controller.get_worker_group()
                if group and group.has_started():
                    group.abort()
                raise
        return controller.get_result()


def finish(work: Coroutine[Any, Any, None]) -> None:
    """Runs `work` to its end; KeyboardInterrupt at the first Ctrl-C, wherever the main thread is.

    asyncio.run would hold an interrupt back while `work` waits for Ray. Raised alone it can be lost, and was once in a test,
    in a place (a destructor, a callback) where Python reports errors and goes on.
    """
    loop = asyncio.new_event_loop()
    task = loop.create_task(work)

    def interrupt(*_: object) -> None:
        loop.call_soon_threadsafe(task.cancel)
        raise KeyboardInterrupt

    hears = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, interrupt) if hears else None
    try:
        loop.run_until_complete(task)
    except (KeyboardInterrupt, asyncio.CancelledError) as error:
        loop.set_exception_handler(lambda *_: None)  # it would tell on the terminal that `work` is not at its end
        raise KeyboardInterrupt from error
    finally:
        if hears:
            signal.signal(signal.SIGINT, before)
        loop.close()


@contextmanager
def _without_reports() -> Iterator[None]:
    """No actor at which the ranks meet to report: they write their own checkpoints and metrics (train/run.py)."""
    with patch.object(worker_group, "SynchronizationActor", Mock()), patch.object(state, "_shutdown_sync_actor"):
        yield


class _Workers(WorkerGroup):  # type: ignore[misc]
    """In the environment of the node, so that processes which stand ready can be used, and without a way to report."""

    @staticmethod
    def _get_worker_runtime_env(custom_runtime_env: Any) -> dict[str, Any]:
        return dict(custom_runtime_env)

    def _start(self) -> None:
        """Gives back what it holds when the ranks do not meet; Ray leaves that to an actor, and another start would wait."""
        try:
            super()._start()
        except BaseException:
            if self.has_started():
                self.abort()
            raise

    def _init_train_context_on_workers(
        self, workers: list[Any], sync_actor: Any, train_context_args: dict[str, Any]
    ) -> None:
        common = {
            "train_run_context": self._train_run_context, "synchronization_actor": None, "controller_actor": None,
            "storage_context": self._storage_context, "worker_callbacks": self._worker_callbacks_to_propagate,
        }  # fmt: skip
        ray.get([
            worker.actor.init_train_context.remote(
                distributed_context=worker.distributed_context, **common,
                **{name: values[number] for name, values in train_context_args.items()},
            )
            for number, worker in enumerate(workers)
        ])  # fmt: skip
        self._decorate_worker_log_file_paths(workers)


class _Controller(TrainController):  # type: ignore[misc]
    worker_group_cls = _Workers


class _AsItIs(FixedScalingPolicy):  # type: ignore[misc]
    """Asks nobody for nodes."""

    def _send_resource_request(self) -> None: ...

    def _maybe_send_resource_request(self) -> None: ...

    def _cancel_resource_request(self) -> None: ...
