"""Shared fixtures: one Ray cluster per module, without a dashboard."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import settings

from raysl import cluster, storage
from tests.two_hosts import Host, missing, start_ray, two_hosts

settings.register_profile("raysl", deadline=None)  # a busy machine is no mistake
settings.load_profile("raysl")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny tensors: threads that wait for each other cost six times more

LONGEST_FIRST = (
    "data/test_pipeline.py", "test_whole_run.py", "serve/test_app.py", "test_smoke_configs.py", "test_jobs.py",
    "train/test_run.py", "release/test_release.py", "train/test_tune.py", "test_update.py",
    "train/test_feed.py", "train/test_gpu_given.py", "data/test_image_pipeline.py", "release/test_onnx.py",
)  # fmt: skip
"""Files of a minute or more: begun last, one of them would keep one core waiting."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(scope="module")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A local cluster of two CPUs; yields a folder for the module's files."""
    cluster.connect(num_cpus=2)
    yield tmp_path_factory.mktemp("ray_module")
    cluster.disconnect()


@pytest.fixture(scope="module")
def shared_disk() -> Iterator[Path]:
    """A folder that both hosts see, with a short path: the name of a Unix socket has 107 characters at most."""
    path = Path(tempfile.mkdtemp(prefix="raysl_"))
    yield path
    storage.remove(path)


@pytest.fixture(scope="module")
def hosts(shared_disk: Path) -> Iterator[tuple[Host, Host]]:
    """Two hosts (network namespaces) with a Ray node each; skips where they cannot be made."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    with two_hosts(shared_disk, RAY_health_check_period_ms="500") as pair:  # one that is gone is missed after 5 of them
        start_ray(pair, shared_disk)
        yield pair


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
