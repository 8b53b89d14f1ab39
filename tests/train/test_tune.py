"""`raysl tune` on a tiny prepared run: trials share what `prepare` made, and the best YAML can be run."""

import json
from pathlib import Path

import pytest

from raysl import run_config
from raysl.train.tune import tune
from tests.tiny_run import make_run
from tests.token_shards import random_documents, write_shards

pytestmark = pytest.mark.ray


def test_a_search_finds_the_rate_that_learns_and_leaves_a_yaml_of_it(ray_cluster: Path) -> None:
    folder = ray_cluster / "search"
    config = make_run(
        folder,
        pretrain={
            "objective": "bert",
            "model": {"type": "bert", "num_layers": 1, "width": 16, "num_heads": 2, "context_length": 16},
            "global_batch_size": 16, "max_steps": 40, "precision": "fp32", "evaluate_every_steps": 20, "tensorboard": False,
        },
        tune={"search": {"pretrain.optimizer.learning_rate": {"grid": [1e-9, 0.01, 1e30]}}},
    )  # fmt: skip
    for split in ("train", "validation"):
        write_shards(folder / "prepare" / "tokens" / split, [random_documents(120), random_documents(40, seed=1)])
    before = sorted((folder / "prepare").rglob("*"))
    result = tune(config)
    assert [row[1]["pretrain.optimizer.learning_rate"] for row in result.rows] == [0.01, 1e-9, 1e30]
    assert result.rows[0][2] < result.rows[1][2]
    assert result.rows[2][2] is None
    assert "pretrain.optimizer.learning_rate" in result.rows[2][3]
    best = run_config.load(result.best)
    assert best.training.optimizer.learning_rate == 0.01
    assert best.folder == folder
    lines = [json.loads(line) for line in (folder / "tune" / "trials.jsonl").read_text().splitlines()]
    assert [line["trial"] for line in lines] == [row[0] for row in result.rows]
    assert sorted((folder / "prepare").rglob("*")) == before
    again = tune(config)
    assert [row[2] for row in again.rows] == [row[2] for row in result.rows]
    assert again.rows[0][3] == "done before"
