"""A cluster whose GPU torch cannot see: what is asked of Ray, without a GPU."""

import importlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray

from raysl import cluster
from raysl.data.labelled import Documents
from raysl.errors import ConfigError, DataError
from raysl.evaluation import few_label, suite
from raysl.run_config import RunConfig
from raysl.train import run
from raysl.train.finetune import finetune_rows
from tests.tiny_run import make_documents, make_run
from tests.train.test_run import config_of

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]  # a GPU that is not given back is waited for


@pytest.fixture(scope="module")
def gpu_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two CPUs, and a GPU by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray, "init", partial(ray.init, num_gpus=1))
        cluster.connect(num_cpus=2)
    yield tmp_path_factory.mktemp("gpu")
    cluster.disconnect()


def test_a_torch_that_cannot_use_the_gpus_is_told_apart_from_other_faults(gpu_cluster: Path) -> None:
    with pytest.raises(ConfigError, match=r"the torch on it cannot use them.*or use pretrain\.device=cpu"):
        run.train(config_of(gpu_cluster / "cuda", num_workers=1), lambda message: None)


class Watched(suite._Worker):
    """Says in each row of scores whether its task was given a GPU."""

    @staticmethod
    def run(job: dict[str, Any], config: RunConfig, device: str) -> list[dict[str, Any]]:
        return [{**row, "given": bool(ray.get_gpu_ids())} for row in suite._Worker.run(job, config, device)]


def scored(folder: Path, device: str) -> RunConfig:
    settings = {"labels_per_class": [4], "num_draws": 1, "lsa_width": 6, "max_test_rows": 40, "scratch_epochs": 2}
    return make_run(folder, evaluate=settings, finetune={"num_classes": 3, "epochs": 2, "device": device})


def test_networks_get_a_gpu_and_baselines_none(gpu_cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = scored(gpu_cluster / "scored-auto", "auto")
    monkeypatch.setattr(
        suite, "_Worker", importlib.import_module("tests.train.test_gpu_given").Watched
    )  # as workers find it
    rows = suite._run_jobs(config)
    assert len(rows) == few_label.num_scores(config)
    assert [row["given"] for row in rows] == [few_label.runs_network(row) for row in rows]


def test_on_the_cpu_no_task_asks_for_a_gpu(gpu_cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, asked = scored(gpu_cluster / "scored-cpu", "cpu"), list[Any]()
    monkeypatch.setattr(cluster, "tasks", lambda function, calls: asked.extend(calls) or [])
    suite._run_jobs(config)
    assert [(job, device, gpus) for (job, _, device), gpus in asked] == [(job, "cpu", 0) for job in few_label.jobs(config)]


def test_on_a_shared_cluster_fine_tuning_asks_for_a_gpu(
    gpu_cluster: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_run(gpu_cluster / "tuned", finetune={"num_classes": 3, "epochs": 2})
    texts, labels = zip(*make_documents(30, seed=3), strict=True)
    rows = Documents([str(number) for number in range(30)], list(labels), list(texts))
    here = finetune_rows(config, config.folder / "pretrain", rows, config.folder / "here")
    monkeypatch.setattr(cluster, "joins", lambda: True)
    assert finetune_rows(config, config.folder / "pretrain", rows, config.folder / "there") == here
    assert "finetune: on a GPU of the cluster" in capsys.readouterr().err
    first, second = (sorted(path.name for path in (config.folder / name).iterdir()) for name in ("here", "there"))
    assert first == second
    with pytest.raises(DataError, match=r"No labelled rows to fine-tune on"):
        finetune_rows(config, config.folder / "pretrain", rows.take([]), config.folder / "none")
