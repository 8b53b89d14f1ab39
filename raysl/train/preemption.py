"""Notice that a worker will be taken away: SIGTERM to its process, or Ray draining its node (spot machines, scale-down)."""

from ray.train.v2._internal.execution.callback import WorkerCallback
from ray.train.v2._internal.execution.context import get_train_context

from raysl.train import signals
from raysl.train.world import NODE_LEAVES, STAYS


class SaveFirst(WorkerCallback):  # type: ignore[misc]
    """Listens to SIGTERM in each worker's main thread; the training function runs in another one, where it cannot."""

    def after_init_train_context(self) -> None:
        signals.listen()


def leaving() -> int:
    """What this worker knows of its end. Reads a note that Ray's watcher left in the process: no message, no barrier."""
    told = signals.asked_to_end()
    if told == STAYS and get_train_context().preemption_context.preemption_info is not None:
        return NODE_LEAVES
    return told
