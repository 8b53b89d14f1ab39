"""What a setting `device` asks of a cluster, which addresses lead to one, and what is said meanwhile."""

import os
import signal
from pathlib import Path

import pytest
import ray
from ray._private import utils

from raysl import cluster
from raysl.errors import ConfigError
from raysl.progress import say


@pytest.mark.parametrize(("device", "gpus", "grows", "taken"), [
    ("auto", 0, "", False), ("auto", 2, "", True), ("cpu", 2, "", False), ("cuda", 1, "", True), ("cuda", 0, "1", True),
])  # fmt: skip
def test_gpus_are_taken_where_there_are_some_or_some_will_come(
    device: str, gpus: int, grows: str, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 4.0, **({"GPU": float(gpus)} if gpus else {})})
    monkeypatch.setenv("RAYSL_AUTOSCALING", grows)
    assert cluster.takes_gpus(device) == taken


def test_a_name_that_is_no_utf8_can_be_told_and_logged(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with cluster.quiet(tmp_path / "log"):
        say("caf\udce9.txt is read")
        print("caf\udce9.txt is broken")
    assert capfd.readouterr().err == "caf\\udce9.txt is read\n"
    assert "caf\\udce9.txt is broken" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "head"])
def test_an_address_of_another_kind_is_told_with_the_right_ones(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(
        ConfigError, match=f"at RAY_ADDRESS={address} .* Give `auto` or <head>:6379 .* RAY_API_SERVER_ADDRESS"
    ):
        cluster._join(ray)


def test_a_gpu_that_never_comes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 4.0})
    monkeypatch.delenv("RAYSL_AUTOSCALING", raising=False)
    with pytest.raises(
        ConfigError, match=r"device=cuda needs a GPU and the cluster has none\. Use device=auto.*RAYSL_AUTOSCALING=1"
    ):
        cluster.takes_gpus("cuda")


def test_a_signal_to_all_of_a_command_does_not_end_its_cluster_first() -> None:
    """Ray's processes were in its group: without a raylet the command waited for a minute, and ended without a word."""
    from ray._private import services

    with cluster._few_processes():
        process = services.ConsolePopen(["sleep", "60"])
    try:
        assert os.getpgid(process.pid) == process.pid
    finally:
        process.kill()
        process.wait()


def test_sigterm_stays_with_who_listens_to_it_when_ray_starts() -> None:
    heard: list[str] = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append("listener"))
    try:
        with cluster._own_sigterm():
            utils.set_sigterm_handler(lambda *_: heard.append("ray"))
            os.kill(os.getpid(), signal.SIGTERM)
            signal.signal(signal.SIGTERM, lambda *_: heard.append("core"))
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == ["listener", "listener"]
