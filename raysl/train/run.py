"""Training on Ray Train: the same loop in every worker, restarted from the newest checkpoint when one dies.

Checkpoints lie in the run folder, written whole and renamed by rank 0; a restarted worker group finds them there, so Ray's
own reporting is left out of the step.
"""

import logging
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train.torch import TorchConfig, TorchTrainer

from raysl import checkpoint, cluster, errors, storage
from raysl.data import decode_tasks
from raysl.data.prepared import ENCODED, IN_PROCESS, Prepared
from raysl.errors import ConfigError, RankError, RayslError, StageError, StoreError, TrainingError
from raysl.run_config import RunConfig
from raysl.stage import CHECKPOINTS
from raysl.train import signals
from raysl.train.config import PretrainConfig
from raysl.train.own_cluster import OwnClusterTrainer
from raysl.train.preemption import SaveFirst, leaving
from raysl.train.reporting import Followed
from raysl.train.session import PRETRAIN, TrainJob, train_rank
from raysl.train.world import World, resolve_device

logger = logging.getLogger(__name__)

POLL_S = 0.5
NO_CUDA = "doesn't have NCCL built in", "ProcessGroupNCCL is only supported with GPUs"
"""How torch refuses to join GPUs that it cannot see."""


@dataclass(frozen=True)
class RayJob:
    """What travels to the workers."""

    job: TrainJob
    decodings: tuple[Any, int] | None
    """Where stored pictures are decoded, and how many shards are asked for at a time; None: nothing to decode there."""
    use_gpu: bool
    """Whether each worker was given a GPU."""


def _worker(config: dict[str, Any]) -> dict[str, Any]:
    import ray.train.torch

    work: RayJob = config["work"]
    context = ray.train.get_context()
    try:
        device = resolve_device("cuda" if work.use_gpu else "cpu")
        if work.use_gpu:
            device = ray.train.torch.get_device()  # the one of this node that is this worker's
        world = World(context.get_world_rank(), context.get_world_size(), device, leaving)
        decoder = IN_PROCESS if work.decodings is None else decode_tasks.decoder(*work.decodings)
        return train_rank(work.job, world, decoder=decoder)
    except (StoreError, RankError):
        raise  # another start may succeed, and ranks that wait for this one are ended
    except RayslError as error:  # every rank has it, and another start would too: hand it over instead of dying
        return {"mistake": (type(error).__name__, str(error))}
    finally:
        signals.over()


def train(config: RunConfig, on_message: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Runs the pretraining of `config` on `num_workers` Ray workers; returns rank 0's last metrics."""
    settings = config.training
    use_gpu = cluster.takes_gpus(settings.device)  # the driver may have none
    fewest, most = workers = _worker_range(settings)
    _check_resources(fewest, use_gpu)
    decodings = _decodings(config, use_gpu)
    scratch = config.folder / PRETRAIN / ".ray"

    def trainer() -> TorchTrainer:
        return (OwnClusterTrainer if cluster.own() else TorchTrainer)(
            _worker,
            train_loop_config={"work": RayJob(TrainJob(config.anchored()), decodings, use_gpu)},
            torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
            scaling_config=ray.train.ScalingConfig(num_workers=workers if fewest < most else most, use_gpu=use_gpu),
            run_config=ray.train.RunConfig(
                name=uuid.uuid4().hex,  # a name of its own: an old one would make Ray resume silently
                storage_path=str(scratch),
                failure_config=ray.train.FailureConfig(max_failures=settings.max_failures, controller_failure_limit=10),
                callbacks=[SaveFirst()],
                logging_config=ray.train.LoggingConfig(log_level="ERROR"),
            ),
        )

    try:
        with _listening(Followed(config.folder), on_message), cluster.same_interrupt_handler():
            result = fit(trainer, config.folder / PRETRAIN / CHECKPOINTS, settings.max_failures > 0)
    except ray.train.TrainingFailedError as error:
        if use_gpu and any(sign in str(error) for sign in NO_CUDA):
            raise ConfigError(
                "The cluster has GPUs, and the torch on it cannot use them: it was built for CPUs, or finds no driver. "
                "Install a torch built for CUDA on all nodes (pytorch.org), or use pretrain.device=cpu."
            ) from error
        logger.error("%s", error)  # each rank's trace, as Ray Train hands them over
        raise TrainingError(
            f"Pretraining failed on its workers: {_last_line(error)} The run's log has the trace."
        ) from error
    finally:
        storage.remove(scratch)
    if "mistake" in result.return_value:
        raise _met_by_workers(*result.return_value["mistake"])
    return dict(result.return_value)


def _met_by_workers(kind: str, message: str) -> RayslError:
    """Stages that are not there were looked for before the workers started, on the node of the command."""
    found: RayslError = getattr(errors, kind)(message)
    if isinstance(found, StageError):
        return StageError(f"{message} The command found it: nodes of the cluster do not. Put it where all of them see it.")
    return found


def fit(trainer: Callable[[], TorchTrainer], checkpoints: Path, goes_on: bool) -> Any:
    """Trains to the end; where `goes_on`, once more after each failure of an attempt that has left a newer checkpoint.

    Ray counts the restarts of an attempt from its start: on machines that come and go a long training would use them up,
    though each one brought it on.
    """
    while True:
        before = checkpoint.latest(checkpoints)
        try:
            return trainer().fit()
        except ray.train.WorkerGroupError as error:
            newest = checkpoint.latest(checkpoints)
            if not goes_on or newest is None or newest == before:
                raise
            logger.warning("Training goes on from step %d, which is new since the last start: %s", newest.step, error)


def _decodings(config: RunConfig, use_gpu: bool) -> tuple[Any, int] | None:
    settings = config.training
    if settings.feed.decode == "trainer" or not Prepared.of(config).has(ENCODED):
        return None
    return decode_tasks.start(settings.max_workers, use_gpu, settings.feed.decode_cpus)


def _worker_range(settings: PretrainConfig) -> tuple[int, int]:
    workers = settings.num_workers
    return (workers, workers) if isinstance(workers, int) else (workers.min, workers.max)


def _check_resources(num_workers: int, use_gpu: bool) -> None:
    """Ray Train waits without end for resources that never come; a cluster that grows by itself may still get them."""
    kind = "GPU" if use_gpu else "CPU"
    have = int(ray.cluster_resources().get(kind, 0))
    if have < num_workers and not cluster.autoscales():
        raise ConfigError(
            f"pretrain.num_workers={num_workers} needs {num_workers} {kind}s and the cluster has {have}. "
            f"Use pretrain.num_workers={max(have, 1)} or a larger cluster."
        )


class _listening:
    """Passes what rank 0 writes to `on_message` from a thread while the block runs."""

    def __init__(self, followed: Followed, on_message: Callable[[dict[str, Any]], None]) -> None:
        self.followed, self.on_message = followed, on_message
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._listen, daemon=True)

    def _listen(self) -> None:
        while not self.stop.wait(POLL_S):
            self._pass_on()

    def _pass_on(self) -> None:
        for line in self.followed.lines():
            self.on_message(line)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()
        self._pass_on()


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
