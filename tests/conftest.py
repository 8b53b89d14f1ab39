"""Shared fixtures: one Ray cluster per module, without a dashboard."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import settings

from raysl import cluster

settings.register_profile("raysl", deadline=None)  # a busy machine is no mistake
settings.load_profile("raysl")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny tensors: threads that wait for each other cost six times more


@pytest.fixture(scope="module")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A local cluster of two CPUs; yields a folder for the module's files."""
    cluster.connect(num_cpus=2)
    yield tmp_path_factory.mktemp("ray_module")
    cluster.disconnect()


@pytest.fixture
def smallest_yaml(tmp_path: Path) -> Path:
    """A YAML with all sections and the fewest keys, over a folder of two documents; its run folder is tmp_path/run."""
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "one.txt").write_text("the first document")
    (tmp_path / "text" / "two.txt").write_text("the second document")
    data = {
        "name": "smallest",
        "run_dir": str(tmp_path / "run"),
        "prepare": {"source": {"type": "files", "path": str(tmp_path / "text")}},
        "pretrain": {"objective": "bert", "model": {"type": "bert", "width": 16}},
        "finetune": {},
        "evaluate": {},
        "release": {},
        "serve": {"tasks": ["classify"]},
    }
    path = tmp_path / "smallest.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path
