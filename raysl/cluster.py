"""The Ray cluster a command works on: the job's own, the one RAY_ADDRESS names, or a local one of its own.

Everything that tames Ray's defaults stands here.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ENVIRONMENT = {
    "RAY_DATA_PARQUET_FOOTER_NUM_ACTORS": "1",  # default 32 actors for each read_parquet
    "RAY_DATA_PARQUET_BIN_PACKING_BYTES": str(16 << 20),  # default 128 MiB: one block, one core
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # a report costs one poll of the controller
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def prepare_environment() -> None:
    """Sets Ray's switches for this process and its workers; a value the user set wins. Call before `import ray`."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def connect(num_cpus: int | None = None, temp_dir: str | None = None) -> None:
    """Joins the job's cluster or the one RAY_ADDRESS names; else starts a local one that nobody else joins.

    A bare `ray.init()` would join any cluster found on the machine. Costs about 4 s locally.
    """
    prepare_environment()
    import ray

    if ray.is_initialized():
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
    else:
        _start_local(ray, {"num_cpus": num_cpus, "_temp_dir": temp_dir})
    _tame_ray_data()


def _start_local(ray: Any, options: dict[str, Any]) -> None:
    for attempt in range(3):  # a busy machine may miss Ray's fixed 30 s for its raylet
        try:
            ray.init(
                address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR",
                object_store_memory=400 * 2**20, runtime_env={"env_vars": dict(PYTHONPATH=_python_path())}, **options,
            )  # fmt: skip
            return
        except Exception as error:
            ray.shutdown()
            if attempt == 2 or "timed out" not in str(error):
                raise


def _python_path() -> str:
    """Workers import what the driver imports, user code named by `module:Class` in the current folder included."""
    return os.pathsep.join(dict.fromkeys([os.getcwd(), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]))


def _tame_ray_data() -> None:
    import logging

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

    if ray.is_initialized():
        ray.shutdown()


@contextmanager
def quiet(log_path: Path) -> Iterator[None]:
    """Sends what libraries write to the terminal (Ray's C++ lines too) to `log_path`; our own prints stay visible.

    Works on file descriptors, because Ray's core does not go through Python's logging.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    kept = [os.dup(1), os.dup(2)]
    python_streams = (sys.stdout, sys.stderr)
    sys.stdout = open(kept[0], "w", buffering=1, encoding="utf-8", closefd=False)
    sys.stderr = open(kept[1], "w", buffering=1, encoding="utf-8", closefd=False)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)
        sys.stdout, sys.stderr = python_streams
        for descriptor in (*kept, log):
            os.close(descriptor)
