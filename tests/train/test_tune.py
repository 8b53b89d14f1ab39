"""`raysl tune` on a tiny prepared run: trials share what `prepare` made, and the best YAML can be run."""

import json
import os
import signal
import time
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from raysl import run_config
from raysl.errors import StageError
from raysl.run_config import RunConfig
from raysl.stage import alone
from raysl.train.config import SpaceConfig
from raysl.train.tune import tune
from tests.tiny_run import make_run
from tests.token_shards import random_documents, write_shards

pytestmark = pytest.mark.ray

RATE = "pretrain.optimizer.learning_rate"


def make_search(folder: Path, max_steps: int, evaluate_every_steps: int, **tune: Any) -> RunConfig:
    """A prepared run of random documents with a search of short trials."""
    config = make_run(
        folder,
        pretrain={
            "objective": "bert",
            "model": {"type": "bert", "num_layers": 1, "width": 16, "num_heads": 2, "context_length": 16},
            "global_batch_size": 16, "max_steps": max_steps, "precision": "fp32",
            "evaluate_every_steps": evaluate_every_steps, "tensorboard": False,
        },
        tune=tune,
    )  # fmt: skip
    for split in ("train", "validation"):
        write_shards(folder / "prepare" / "tokens" / split, [random_documents(120), random_documents(40, seed=1)])
    return config


def test_a_second_search_at_the_same_time_is_refused(tmp_path: Path) -> None:
    config = make_search(tmp_path, 1, 1, search={RATE: {"grid": [0.01]}})
    with alone(tmp_path / "tune"), pytest.raises(StageError, match=r"Another command is at work in .*tune"):
        tune(config)


def test_a_search_finds_the_rate_that_learns_and_leaves_a_yaml_of_it(ray_cluster: Path) -> None:
    folder = ray_cluster / "search"
    config = make_search(folder, 40, 20, search={RATE: {"grid": [1e-9, 0.01, 1e30]}})
    before = sorted((folder / "prepare").rglob("*"))
    result = tune(config)
    assert [row[1][RATE] for row in result.rows] == [0.01, 1e-9, 1e30]
    assert result.rows[0][2] < result.rows[1][2]
    assert result.rows[2][2] is None
    assert RATE in result.rows[2][3]
    best = run_config.load(result.best)
    assert best.training.optimizer.learning_rate == 0.01
    assert best.folder == folder
    lines = [json.loads(line) for line in (folder / "tune" / "trials.jsonl").read_text().splitlines()]
    assert [line["trial"] for line in lines] == [row[0] for row in result.rows]
    assert sorted((folder / "prepare").rglob("*")) == before
    again = tune(config)
    assert [row[2] for row in again.rows] == [row[2] for row in result.rows]
    assert again.rows[0][3] == "done before"


def test_an_interrupt_ends_the_search_and_the_same_command_goes_on(ray_cluster: Path) -> None:
    folder, steps = ray_cluster / "stopped", "pretrain.max_steps"
    config = make_search(folder, 10, 5, search={steps: {"grid": [10, 1_000_000]}}, max_concurrent=1)
    began = folder / "tune" / "trial-001" / "metrics.jsonl"
    Thread(target=interrupt, args=(began,), daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        tune(config)
    assert not (folder / "tune" / "best.yaml").exists()
    assert config.tune is not None
    first = config.tune.model_copy(update={"search": {steps: SpaceConfig(grid=[10])}})
    assert tune(config.model_copy(update={"tune": first})).rows[0][3] == "done before"


def interrupt(moment: Path) -> None:
    """Ctrl-C in the main thread, once a file is there."""
    while not moment.exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)


def test_asha_lets_the_best_trial_end(ray_cluster: Path) -> None:
    config = make_search(
        ray_cluster / "asha", 25, 10, search={RATE: {"grid": [0.01, 1e-9]}}, scheduler="asha", max_concurrent=1
    )
    result = tune(config)
    assert [(row[1][RATE], row[3]) for row in result.rows] == [(0.01, "done"), (1e-9, "stopped early")]
    assert run_config.load(result.best).training.optimizer.learning_rate == 0.01
