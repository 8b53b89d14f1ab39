"""docs/cluster.md as typed: two hosts, `ray job submit`, token authentication on; both nodes work.

The last test ends one of the two hosts.
"""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from raysl import storage
from raysl.stage import read_manifest
from tests.data.corpus import make_config
from tests.two_hosts import Host, join, kill

pytestmark = pytest.mark.ray
ROOT = Path(__file__).parents[1]
WORDS = ["open", "read", "write", "close", "file", "socket", "server", "client", "matrix", "vector", "sum", "list", "tuple"]
WHO_WORKED = """
import json, sys
from ray.util.state import list_actors, list_tasks
address = sys.argv[1]
tasks = list_tasks(address=address, limit=10_000, detail=True, raise_on_missing_output=False)
actors = list_actors(address=address, limit=1000, detail=True)
print(json.dumps({
    "tasks": sorted({(t.name, t.node_id) for t in tasks if t.node_id and t.state == "FINISHED"}),
    "actors": sorted({(a.class_name, a.node_id) for a in actors if a.node_id}),
}))
"""


@pytest.fixture(scope="module")
def config(shared_disk: Path) -> Path:
    """A YAML on the disk both hosts see; its partitions are small, so that there is work for two."""
    numbers = random.Random(0)
    (shared_disk / "text").mkdir()
    for name in range(40):
        lines = [" ".join(numbers.choices(WORDS, k=40)) for _ in range(20)]
        (shared_disk / "text" / f"{name:02d}.txt").write_text("\n".join(lines))
    data = {
        "name": "two-nodes",
        "run_dir": str(shared_disk / "run"),
        "prepare": {
            "source": {"type": "files", "path": str(shared_disk / "text"), "txt_unit": "line"},
            "tokenizer": {"vocab_size": 400},
            "partition_mb": 0.01,
        },
        "pretrain": {
            "objective": "bert",
            "model": {"type": "bert", "num_layers": 1, "width": 16, "context_length": 32},
            "max_steps": 4,
            "global_batch_size": 8,
            "num_workers": 2,
            "log_every_steps": 1,
        },
    }
    path = shared_disk / "two.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def submit(host: Host, head: Host, *command: str | Path) -> str:
    """`ray job submit` from the repository, as a user types it; returns what it printed."""
    client = host.environment | {"RAY_API_SERVER_ADDRESS": f"http://{head.address}:8265"}
    submitting = ["ray", "job", "submit", "--working-dir", ROOT, "--", "python", *command]
    return Host(host.name, host.address, client).run(*submitting).stdout


def who_worked(head: Host) -> dict[str, list[list[str]]]:
    said = head.run("python", "-c", WHO_WORKED, f"http://{head.address}:8265").stdout
    found: dict[str, list[list[str]]] = json.loads(said.splitlines()[-1])
    return found


def test_stages_run_as_jobs_on_two_nodes(hosts: tuple[Host, Host], config: Path, shared_disk: Path) -> None:
    head, second = hosts
    said = submit(head, head, "jobs/prepare.py", config)
    assert "succeeded" in said
    assert f"next:   ray job submit --working-dir . -- python jobs/pretrain.py {config}" in said
    prepared = read_manifest(shared_disk / "run", "prepare")
    assert prepared is not None
    assert prepared.counts["documents_in"] == 800

    said = submit(second, head, "jobs/pretrain.py", config, "pretrain.max_steps=5")
    assert "succeeded" in said
    trained = read_manifest(shared_disk / "run", "pretrain")
    assert trained is not None
    assert trained.counts["steps"] == 5
    worked = who_worked(head)
    assert len({node for name, node in worked["tasks"] if "Map" in name}) == 2
    assert len({node for name, node in worked["actors"] if "TrainWorker" in name}) == 2


def test_nobody_gets_in_without_the_token(hosts: tuple[Host, Host]) -> None:
    head, second = hosts
    script = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=10)"
    refused = second.run("python", "-c", script, f"http://{head.address}:8265/api/jobs/", check=False).stdout
    assert "401" in refused


def test_job_with_a_wrong_key_fails_with_the_one_line(hosts: tuple[Host, Host], config: Path) -> None:
    with pytest.raises(RuntimeError, match=r"pretrain\.max_step: unknown key\. Did you mean 'max_steps'\?"):
        submit(hosts[0], hosts[0], "jobs/pretrain.py", config, "pretrain.max_step=5")


def preparing(head: Host, config: Path) -> subprocess.Popen[bytes]:
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
    """From one moment to the next: nothing is lost, and the bytes are the same."""
    (head, second), folder = hosts, shared_disk / "lost"
    folder.mkdir()
    make_config(folder)
    expected = finished(preparing(head, folder / "config.yaml"), folder)
    for number, (section, moment) in enumerate(
        [({}, "clean-00000"), ({"deduplicate": {"max_task_mb": 0.03}}, "keyed/part-00001")]
    ):
        if number:
            join(second, head, shared_disk / "ray-again")
        storage.remove(folder / "run")
        make_config(folder, **section)
        process = preparing(head, folder / "config.yaml")
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
