"""`prepare` on two hosts of which one is gone from one moment to the next: nothing is lost, and the bytes are the same."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from raysl import storage
from raysl.stage import read_manifest
from tests.data.corpus import make_config
from tests.two_hosts import Host, join, kill, missing, start_ray, two_hosts

pytestmark = pytest.mark.ray
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A short path: the name of a Unix socket has 107 characters at most."""
    path = Path(tempfile.mkdtemp(prefix="raysl3_"))
    yield path
    storage.remove(path)


@pytest.fixture(scope="module")
def hosts(folder: Path) -> Iterator[tuple[Host, Host]]:
    reason = missing()
    if reason:
        pytest.skip(reason)
    with two_hosts(folder) as pair:
        start_ray(pair, folder)
        yield pair


def prepare(head: Host, config: Path) -> subprocess.Popen[bytes]:
    environment = {**head.environment, "RAY_ADDRESS": f"{head.address}:6379", "PYTHONPATH": str(ROOT)}
    command = ["ip", "netns", "exec", head.name, sys.executable, "-m", "raysl.cli", "prepare", str(config)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finished(process: subprocess.Popen[bytes], folder: Path) -> dict[str, str]:
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said.decode()[-3000:]
    manifest = read_manifest(folder / "run", "prepare")
    assert manifest is not None
    return manifest.files


def test_a_node_that_goes_costs_its_units_only(hosts: tuple[Host, Host], folder: Path) -> None:
    head, second = hosts
    make_config(folder)
    expected = finished(prepare(head, folder / "config.yaml"), folder)
    for number, (section, moment) in enumerate(
        [({}, "clean-00000"), ({"deduplicate": {"max_task_mb": 0.03}}, "keyed/part-00001")]
    ):
        storage.remove(folder / "run")
        make_config(folder, **section)
        process = prepare(head, folder / "config.yaml")
        work = folder / "run" / "prepare" / "work"
        while not (work / moment).exists() and process.poll() is None:
            time.sleep(0.002)
        units = {path: path.stat().st_ino for path in work.glob("clean-*")}
        kill(second)
        assert process.poll() is None, "over before the node was gone"
        while not (work / "tokens-00000.stats.json").exists() and process.poll() is None:
            kept = {path: path.stat().st_ino for path in units if path.exists()}
            assert kept.items() <= units.items()  # a folder that is made again has another number
            time.sleep(0.002)
        assert finished(process, folder) == expected
        join(second, head, folder / f"ray-{number}")
