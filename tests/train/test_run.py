"""Pretraining on Ray Train: workers that die, mistakes that must not be tried again, resources that are not there."""

import os
import signal
import time
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from raysl import stage
from raysl.errors import ConfigError, TrainingError
from raysl.run_config import RunConfig
from raysl.train import run
from raysl.train.pretrain import pretrain
from tests.tiny_run import make_run
from tests.token_shards import random_documents, write_shards

pytestmark = pytest.mark.ray


def config_of(folder: Path, **pretraining: object) -> RunConfig:
    config = make_run(folder, pretrain={
        "objective": {"type": "contrastive_text", "span_length": 4}, "model": {"type": "bert", "num_layers": 1, "width": 16},
        "global_batch_size": 16, "max_steps": 30, "num_workers": 2, "precision": "fp32",
        "checkpoint": {"every_steps": 5}, "log_every_steps": 5, **pretraining,
    })  # fmt: skip
    for split in ("train", "validation"):
        write_shards(folder / "prepare" / "tokens" / split, [random_documents(80), random_documents(40, seed=1)])
    for path in (folder / "pretrain").iterdir():
        path.unlink()
    return config


def weights(config: RunConfig) -> dict[str, torch.Tensor]:
    return load_file(config.folder / "pretrain" / "model.safetensors")


def kill_a_worker(folder: Path, killed: list[int]) -> None:
    """SIGKILL of one training process of this cluster, once the second checkpoint is there."""
    while not (folder / "pretrain" / "checkpoints" / "step-000000010").exists():
        time.sleep(0.01)
    for process in Path("/proc").iterdir():
        command = process / "cmdline"
        if (
            process.name.isdigit()
            and command.read_bytes().startswith(b"ray::RayTrainWorker")
            and _is_ours(int(process.name))
        ):
            os.kill(int(process.name), signal.SIGKILL)
            killed.append(int(process.name))
            return


def _is_ours(pid: int) -> bool:
    """Whether a process descends from this test."""
    while pid > 1:
        if pid == os.getpid():
            return True
        pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    return False


def test_a_killed_worker_is_restarted_and_the_weights_are_those_of_a_run_in_one_go(ray_cluster: Path) -> None:
    whole = config_of(ray_cluster / "whole")
    pretrain(whole)
    cut, killed = config_of(ray_cluster / "cut", max_steps=30), []  # type: ignore[var-annotated]
    thread = Thread(target=kill_a_worker, args=(cut.folder, killed), daemon=True)
    thread.start()
    messages: list[dict[str, Any]] = []
    result = run.train(cut, messages.append)
    assert killed, "no worker was killed"
    assert result["train_rows"] > 0
    starts = [message["start"] for message in messages if "start" in message]
    assert starts[0] == 0
    assert starts[-1] >= 10, "the second start did not go on from the checkpoint"
    first, second = weights(whole), weights(cut)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_mistake_is_told_once_and_not_tried_again(ray_cluster: Path) -> None:
    config = config_of(ray_cluster / "nan", optimizer={"learning_rate": 1e30})
    with pytest.raises(TrainingError, match=r"pretrain\.optimizer\.learning_rate"):
        pretrain(config)
    assert stage.read_manifest(config.folder, "pretrain") is None


def test_workers_that_the_cluster_cannot_hold_are_refused(ray_cluster: Path) -> None:
    with pytest.raises(ConfigError, match=r"num_workers=9 needs 9 CPUs and the cluster has 2"):
        pretrain(config_of(ray_cluster / "nine", num_workers=9))
