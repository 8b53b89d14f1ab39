"""docs/cluster.md as typed: two hosts, `ray job submit`, token authentication on; both nodes work."""

import json
import random
from pathlib import Path

import pytest
import yaml

from raysl.stage import read_manifest
from tests.two_hosts import Host

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


@pytest.mark.ray
def test_stages_run_as_jobs_on_two_nodes(hosts: tuple[Host, Host], config: Path, shared_disk: Path) -> None:
    head, second = hosts
    said = submit(head, head, "jobs/prepare.py", config)
    assert "succeeded" in said
    assert f"next:   ray job submit --working-dir . -- python jobs/pretrain.py {config}" in said
    prepared = read_manifest(shared_disk / "run", "prepare")
    assert prepared is not None
    assert prepared.counts["documents_in"] == 800
    cleaned = {node for name, node in who_worked(head)["tasks"] if "Map" in name}
    assert len(cleaned) == 2

    said = submit(second, head, "jobs/pretrain.py", config, "pretrain.max_steps=5")
    assert "succeeded" in said
    trained = read_manifest(shared_disk / "run", "pretrain")
    assert trained is not None
    assert trained.counts["steps"] == 5
    assert len({node for name, node in who_worked(head)["actors"] if "TrainWorker" in name}) == 2


@pytest.mark.ray
def test_nobody_gets_in_without_the_token(hosts: tuple[Host, Host]) -> None:
    head, second = hosts
    script = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=10)"
    refused = second.run("python", "-c", script, f"http://{head.address}:8265/api/jobs/", check=False).stdout
    assert "401" in refused


@pytest.mark.ray
def test_job_with_a_wrong_key_fails_with_the_one_line(hosts: tuple[Host, Host], config: Path) -> None:
    with pytest.raises(RuntimeError, match=r"pretrain\.max_step: unknown key\. Did you mean 'max_steps'\?"):
        submit(hosts[0], hosts[0], "jobs/pretrain.py", config, "pretrain.max_step=5")
