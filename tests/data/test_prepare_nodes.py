"""`prepare` on two hosts of which one is gone from one moment to the next: nothing is lost, and the bytes are the same."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from raysl import storage
from raysl.stage import read_manifest
from tests.data.corpus import make_config
from tests.two_hosts import Host, join, kill

pytestmark = pytest.mark.ray
ROOT = Path(__file__).parents[2]


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


def test_a_node_that_goes_costs_its_units_only(hosts: tuple[Host, Host], shared_disk: Path) -> None:
    head, second = hosts
    make_config(shared_disk)
    expected = finished(prepare(head, shared_disk / "config.yaml"), shared_disk)
    for number, (section, moment) in enumerate(
        [({}, "clean-00000"), ({"deduplicate": {"max_task_mb": 0.03}}, "keyed/part-00001")]
    ):
        if number:
            join(second, head, shared_disk / "ray-again")
        storage.remove(shared_disk / "run")
        make_config(shared_disk, **section)
        process = prepare(head, shared_disk / "config.yaml")
        work = shared_disk / "run" / "prepare" / "work"
        while not (work / moment).exists() and process.poll() is None:
            time.sleep(0.002)
        units = {path: path.stat().st_ino for path in work.glob("clean-*")}
        kill(second)
        assert process.poll() is None, "over before the node was gone"
        while not (work / "tokens-00000.stats.json").exists() and process.poll() is None:
            kept = {path: path.stat().st_ino for path in units if path.exists()}
            assert kept.items() <= units.items()  # a folder that is made again has another number
            time.sleep(0.002)
        assert finished(process, shared_disk) == expected
