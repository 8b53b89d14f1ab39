"""Behaviour on a real Ray cluster: the same bytes as without it, and pretraining with gpt and bert unchanged."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from raysl import run_config, storage
from raysl.data.pipeline import prepare
from raysl.run_config import RunConfig
from raysl.train.pretrain import pretrain
from raysl.train.session import TrainJob, train_rank
from raysl.train.world import single
from tests.data.behaviour import prepare_locally

pytestmark = pytest.mark.ray

NUM_USERS, NUM_ITEMS = 120, 30


def write_events(path: Path) -> None:
    """Each user walks round a ring of items from another place: all are as popular, and what comes next is certain."""
    random = np.random.default_rng(0)
    with open(path, "w") as file:
        for user, start in enumerate(random.integers(0, NUM_ITEMS, NUM_USERS)):
            for time in range(40):
                row = {"user": user, "item": f"item {(start + time) % NUM_ITEMS}", "time": 86_400 * 4 * time}
                file.write(json.dumps(row) + "\n")


def make_config(folder: Path, objective: str) -> RunConfig:
    events = folder / "events.jsonl"
    if not events.is_file():
        write_events(events)
    data = {
        "name": "ring", "run_dir": str(folder / "run"), "seed": 3,
        "prepare": {
            "source": {"type": "interactions", "path": str(events), "time_format": "s"},
            "behaviour": {"split": {"validation": 0.2, "test": 0.1}}, "partition_mb": 0.1,
        },
        "pretrain": {
            "objective": objective, "model": {"type": objective, "num_layers": 1, "width": 32, "context_length": 16},
            "optimizer": {"learning_rate": 5e-3}, "global_batch_size": 32, "max_steps": 150, "num_workers": 1,
            "evaluate_every_steps": 150, "log_every_steps": 50, "checkpoint": {"every_steps": 150},
        },
    }  # fmt: skip
    path = folder / f"{objective}.yaml"
    path.write_text(yaml.safe_dump(data))
    return run_config.load(path)


def test_sequences_are_the_same_on_ray_and_train_gpt_and_bert_below_popularity(ray_cluster: Path) -> None:
    config = make_config(ray_cluster, "gpt")
    made = prepare(config)
    assert made.counts["kept"] == NUM_USERS * 40
    assert made.counts["vocab_size"] == NUM_ITEMS + 5
    assert made.counts["cuts"] == {"validation_from": "1970-04-23", "test_from": "1970-05-25"}  # days 112 and 144
    next_item = pretrain(config).metrics
    assert next_item["held_out_loss"] < 0.8 * made.metrics["popularity_loss"]
    storage.remove(config.folder / "pretrain")
    hidden_item = train_rank(TrainJob(make_config(ray_cluster, "bert")), single("cpu"))
    assert hidden_item["held_out_loss"] < 0.8 * made.metrics["popularity_loss_of_items"]

    alone = config.model_copy(update={"run_dir": str(ray_cluster / "alone")})
    prepare_locally(alone)
    storage.remove(alone.folder / "prepare" / "work")
    (alone.folder / "prepare" / "report.json").unlink()
    assert storage.hash_folder(alone.folder / "prepare") == dict(made.files)
