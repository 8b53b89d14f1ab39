"""Shared fixtures: one Ray cluster per module, without a dashboard."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from raysl import cluster


@pytest.fixture(scope="module")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A local cluster of two CPUs; yields a folder for the module's files."""
    cluster.connect(num_cpus=2)
    yield tmp_path_factory.mktemp("ray_module")
    cluster.disconnect()
