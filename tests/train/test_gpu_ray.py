"""One GPU on Ray: what trains is given it, over NCCL, and goes on from a checkpoint; fine-tuning and trials take it too."""

import importlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
import torch.distributed as dist
from torch import Tensor

from raysl import cluster
from raysl.errors import ConfigError
from raysl.evaluation import few_label, suite
from raysl.evaluation.config import EvaluateConfig
from raysl.models import load
from raysl.objectives.base import Batch, StepOutput
from raysl.objectives.contrastive_text import ContrastiveText
from raysl.run_config import RunConfig
from raysl.train import run
from raysl.train.config import FinetuneConfig
from raysl.train.finetune import finetune
from raysl.train.pretrain import pretrain
from raysl.train.tune import tune
from tests.train.test_run import config_of, starts_of

pytestmark = [pytest.mark.ray, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")]


@pytest.fixture(scope="module")
def gpu_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A local cluster of four CPUs and the GPUs that Ray finds."""
    cluster.connect(num_cpus=4)
    yield tmp_path_factory.mktemp("gpu")
    cluster.disconnect()


class OverNccl(ContrastiveText):
    """Refuses to train anywhere else."""

    def forward(self, batch: Batch, totals: Tensor) -> StepOutput:
        assert all(tensor.is_cuda for tensor in batch.values())
        assert dist.get_backend() == "nccl"
        dist.all_reduce(totals.clone())
        return super().forward(batch, totals)


def run_of(folder: Path, **pretraining: object) -> RunConfig:
    settings: dict[str, Any] = {"num_workers": 1, "precision": "auto", **pretraining}
    return config_of(folder, **settings)


def test_a_worker_trains_on_the_gpu_over_nccl_and_leaves_a_model(gpu_cluster: Path) -> None:
    objective = {"type": "tests.train.test_gpu_ray:OverNccl", "span_length": 4}
    config = run_of(gpu_cluster / "run", objective=objective)
    manifest = pretrain(config)
    lines = [json.loads(line) for line in (config.folder / "metrics.jsonl").read_text().splitlines()]
    assert [(line["device"], line["precision"]) for line in lines if "start" in line] == [("cuda", "bfloat16")]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0]
    assert manifest.metrics["held_out_loss"] > 0
    encoder, _ = load.load_encoder(config.folder / "pretrain")
    assert {parameter.device.type for parameter in encoder.parameters()} == {"cpu"}
    assert (config.folder / "pretrain" / "export" / "model.safetensors").is_file()


def test_a_killed_worker_goes_on_from_its_checkpoint_on_the_gpu(gpu_cluster: Path) -> None:
    config = run_of(gpu_cluster / "killed", max_steps=200)
    starts = starts_of(config, {config.folder / "pretrain" / "checkpoints" / "step-000000010": signal.SIGKILL})
    assert starts[0] == 0
    assert starts[-1] >= 10


def test_more_workers_than_gpus_are_refused(gpu_cluster: Path) -> None:
    have = int(ray.cluster_resources()["GPU"])
    config = run_of(gpu_cluster / "many", num_workers=have + 1)
    with pytest.raises(ConfigError, match=rf"needs {have + 1} GPUs and the cluster has {have}"):
        run.train(config, lambda message: None)


class Watched(suite._Worker):
    """Says in each row of scores which GPU its task was given and whether it was used."""

    @staticmethod
    def run(job: dict[str, Any], config: RunConfig, device: str) -> list[dict[str, Any]]:
        torch.cuda.reset_peak_memory_stats()
        rows = suite._Worker.run(job, config, device)
        facts = {"given": len(ray.get_gpu_ids()), "used": torch.cuda.max_memory_allocated() > 0}
        return [{**row, **facts} for row in rows]


def test_networks_are_fine_tuned_and_scored_on_the_gpu(gpu_cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = {"labels_per_class": [4], "num_draws": 2, "lsa_width": 6, "max_test_rows": 40, "scratch_epochs": 2}
    config = run_of(gpu_cluster / "scored", max_steps=5)
    pretrain(config)
    config = config.model_copy(update={
        "evaluate": EvaluateConfig.model_validate(evaluation),
        "finetune": FinetuneConfig(num_classes=3, epochs=2, labels_per_class=4),
    })  # fmt: skip
    torch.cuda.reset_peak_memory_stats()
    assert finetune(config, redo=True).metrics["train_accuracy"] > 0.4
    assert torch.cuda.max_memory_allocated() > 0
    monkeypatch.setattr(suite, "_Worker", importlib.import_module("tests.train.test_gpu_ray").Watched)  # as workers find it
    rows = suite._run_jobs(config)
    assert len(rows) == few_label.num_scores(config)
    for row in rows:
        network = few_label.runs_network(row)
        assert (row["given"], row["used"]) == (int(network), network), row
    on_cpu = config.model_copy(update={"finetune": config.finetune.model_copy(update={"device": "cpu"})})
    for own, other in zip(rows, suite._run_jobs(on_cpu), strict=True):
        assert not other["used"]
        assert own["accuracy"] == pytest.approx(other["accuracy"], abs=0.1)


def test_trials_of_a_search_train_on_the_gpu(gpu_cluster: Path) -> None:
    config = run_of(gpu_cluster / "search", max_steps=10)
    search = {"search": {"pretrain.optimizer.learning_rate": {"grid": [1e-3, 1e-2]}}}
    result = tune(RunConfig.model_validate({**config.model_dump(), "tune": search}))
    assert all(value is not None for _, _, value, _ in result.rows)
    for path in (config.folder / "tune").rglob("metrics.jsonl"):
        starts = [line for line in map(json.loads, path.read_text().splitlines()) if "start" in line]
        assert starts[0]["device"] == "cuda"
