"""The Ray cluster a command works on: the job's own, the one RAY_ADDRESS names, or a local one of its own.

Everything that tames Ray's defaults stands here.
"""

import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from threading import Thread, current_thread, main_thread
from typing import Any, TextIO, TypeVar
from unittest.mock import patch

from raysl import progress
from raysl.errors import ConfigError

logger = logging.getLogger(__name__)
T = TypeVar("T")

ENVIRONMENT = {
    "RAY_DATA_PARQUET_FOOTER_NUM_ACTORS": "1",  # default 32 actors for each read_parquet
    "RAY_DATA_PARQUET_BIN_PACKING_BYTES": str(16 << 20),  # default 128 MiB: one block, one core
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",  # each poll takes time of a core that trains
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}

FOR_WORKERS = {"MALLOC_ARENA_MAX": "1"}
"""Read by glibc at the start of a process. Ray trains in a thread, and a heap that belongs to a thread ends at 64 MB: larger
tensors come from the system page by page, zeroed, in each step: the smoke GPT trained at 58 % of its speed."""


ESCAPED = "backslashreplace"
"""How the name of a file that is no UTF-8 is written."""

OWN = "raysl_own"
"""A resource that only clusters have which a command started for itself."""

_while_connected = ExitStack()
"""What ends when this process leaves its cluster."""


def prepare_environment() -> None:
    """Sets Ray's switches for this process and its workers; a value the user set wins. Call before `import ray`."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def connect(num_cpus: int | None = None, temp_dir: str | None = None, importing: str = "ray") -> None:
    """Joins the job's cluster or the one RAY_ADDRESS names; else starts a local one that nobody else joins.

    A bare `ray.init()` would join any cluster found on the machine. Costs 3 to 5 s locally, most of it for processes that
    start one after the other; the module `importing`, which the caller needs next, is imported meanwhile.
    """
    prepare_environment()
    import ray

    if ray.is_initialized():
        return
    with _own_sigterm():
        if joins():
            context = _join(ray)
        else:
            context = _start_local(ray, {"num_cpus": num_cpus, "_temp_dir": temp_dir}, importing)
    logger.info("Ray's own logs: %s/logs", context.address_info["session_dir"])
    _tame_ray_data()
    if own():
        from raysl import own_data

        _while_connected.enter_context(own_data.without_actors())


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Leaves SIGTERM to who listens to it. Ray takes it when it starts, and its core ends the process without a word."""
    from ray._private import utils

    listener = signal.getsignal(signal.SIGTERM)
    if not callable(listener) or current_thread() is not main_thread():
        yield
        return
    with patch.object(utils, "set_sigterm_handler"):
        yield
    signal.signal(signal.SIGTERM, listener)  # the core's is below Python's, which does not know it


@contextmanager
def same_interrupt_handler() -> Iterator[None]:
    """Ray Tune, and Ray Train on a joined cluster, leave a handler behind, which would take the next Ctrl-C too."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is not before:
            signal.signal(signal.SIGINT, before)


def own() -> bool:
    """Whether this cluster is one node that a command started for itself and that ends with it."""
    import ray

    return OWN in ray.cluster_resources()


def takes_gpus(device: str) -> bool:
    """Whether `device` (auto, cpu or cuda) asks this cluster for GPUs; auto does where it has some at this moment."""
    import ray

    have = float(ray.cluster_resources().get("GPU", 0))
    if device == "cuda" and not have and not autoscales():
        raise ConfigError(
            "device=cuda needs a GPU and the cluster has none. Use device=auto, device=cpu or another cluster. Where GPU "
            "nodes come when they are asked for, set RAYSL_AUTOSCALING=1 in the environment of this command."
        )
    return device == "cuda" or (device == "auto" and have > 0)


def tasks(function: Callable[..., T], calls: Sequence[tuple[tuple[Any, ...], float]]) -> Iterator[T]:
    """What `function` returns for each (arguments, GPUs), in processes with one core each, in the order in which they end.

    Raises what it raises. A call whose process or node is lost is made again.
    """
    import ray

    started = [ray.remote(num_cpus=1, num_gpus=gpus, max_calls=0)(function).remote(*given) for given, gpus in calls]
    while started:
        (ended,), started = ray.wait(started)
        try:
            result: T = ray.get(ended)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        yield result


def joins() -> bool:
    """Whether this process works on a cluster that others may use too; Ray sets the address for its jobs."""
    return bool(os.environ.get("RAY_ADDRESS"))


def autoscales() -> bool:
    """Whether nodes come when they are asked for."""
    return bool(os.environ.get("RAYSL_AUTOSCALING"))


def in_job() -> bool:
    """Whether this process was started by `ray job submit`: its current folder is then a copy that goes with the job."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def _join(ray: Any) -> Any:
    """A job's workers find the code in the uploaded folder; those of a script need its PYTHONPATH."""
    environment = None if in_job() else {"env_vars": unset(FOR_WORKERS) | {"PYTHONPATH": _python_path()}}
    try:
        return ray.init(address="auto", log_to_driver=False, logging_level="ERROR", runtime_env=environment)
    except (ConnectionError, ValueError) as error:
        raise ConfigError(
            f"No Ray cluster lets us in at RAY_ADDRESS={os.environ['RAY_ADDRESS']} ({' '.join(str(error).split())}). Give "
            f"`auto` or <head>:6379 and `export RAY_AUTH_MODE=token` (docs/cluster.md), or `unset RAY_ADDRESS` for a local "
            f"cluster; the address for `ray job` belongs into RAY_API_SERVER_ADDRESS."
        ) from error


def _start_local(ray: Any, options: dict[str, Any], importing: str) -> Any:
    quiet_options = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    start = partial(
        ray.init, address="local", object_store_memory=400 * 2**20, resources={OWN: 1}, **quiet_options, **options
    )
    beside = Thread(target=importlib.import_module, args=(importing,), daemon=True)  # an interrupt does not wait for it
    with environment(PYTHONPATH=_python_path(), **unset(FOR_WORKERS)), _few_processes():
        beside.start()
        context = _patiently(start, ray.shutdown)
    beside.join()
    return context


@contextmanager
def _few_processes() -> Iterator[None]:
    """One node that ends with the command needs no API server (Ray waits 1.5 s for its start), no autoscaler, and nobody
    who reads what the workers print: it stays in their files. Its agent listens on any free port: for the usual one, which
    another cluster of the machine has, it would try for 3 s before the node is up. They are no part of the command's process
    group: a SIGTERM to all of it (`timeout`, Slurm) would end them first, and the command would miss them for a minute.
    """
    from ray._private import node, parameter, services

    apart = partial(services.ConsolePopen, process_group=0)
    few = partial(parameter.RayParams, no_monitor=True, include_log_monitor=False, dashboard_agent_listen_port=0)
    with (
        patch.object(parameter, "RayParams", few), patch.object(services, "ConsolePopen", apart),
        patch.object(node.Node, "start_api_server"),
    ):  # fmt: skip
        yield


def _patiently(start: Callable[[], Any], stop: Callable[[], None]) -> Any:
    """A busy machine may miss Ray's fixed 30 s for its raylet: it gets three of them."""
    for _ in range(2):
        try:
            return start()
        except Exception as error:
            stop()
            if "timed out" not in str(error):
                raise
    return start()


def unset(environment: dict[str, str]) -> dict[str, str]:
    """Without what the user has set. A job's workers have what `ray start` was given (docs/cluster.md)."""
    return {name: value for name, value in environment.items() if name not in os.environ}


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Of this process and those it starts in the block. A runtime_env would cost every worker of the node a second start."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _python_path() -> str:
    """Workers import what the driver imports, user code named by `module:Class` in the current folder included."""
    return os.pathsep.join(dict.fromkeys([os.getcwd(), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]))


def _tame_ray_data() -> None:
    import ray.data

    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True  # the same rows in the same order, whatever the timing
    context.enable_progress_bars = False
    context.raise_original_map_exception = True
    for name in ("ray.data", "ray.train", "ray.serve", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)


def disconnect() -> None:
    """Leaves the cluster; a local one that this process started ends."""
    import ray

    _while_connected.close()
    if ray.is_initialized():
        ray.shutdown()


@contextmanager
def quiet(log_path: Path) -> Iterator[None]:
    """Sends what libraries write to `log_path`; only `progress.say` and progress bars stay visible.

    Works on file descriptors, because Ray's C++ core does not go through Python, and on `sys.stdout` and `sys.stderr`,
    where Ray's messages from other processes, loggers and warnings go.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    python_streams = (sys.stdout, sys.stderr)
    with open(log_path, "a", buffering=1, encoding="utf-8", errors=ESCAPED) as log:
        kept = [os.dup(1), os.dup(2)]
        progress.set_user_stream(_writer(kept[1]))
        sys.stdout = sys.stderr = log
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        level, handler = logging.root.level, logging.StreamHandler(log)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.root.addHandler(handler)
        logging.root.setLevel(logging.INFO)
        try:
            yield
        finally:
            logging.root.removeHandler(handler)
            logging.root.setLevel(level)
            sys.stdout.flush()
            progress.set_user_stream(None)
            os.dup2(kept[0], 1)
            os.dup2(kept[1], 2)
            sys.stdout, sys.stderr = python_streams
            for descriptor in kept:
                os.close(descriptor)


def _writer(descriptor: int) -> TextIO:
    return open(descriptor, "w", buffering=1, encoding="utf-8", errors=ESCAPED, closefd=False)
