"""Decoded shards are handed to every node that trains, and kept no longer."""

from typing import Any

import pytest

from raysl.data import decode_tasks
from raysl.errors import ConfigError


class Task:
    """Stands for the remote function."""

    def options(self, **_: Any) -> "Task":
        return self

    def remote(self, where: str) -> str:
        return f"decoded {where}"


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The actor's object, in this process."""
    monkeypatch.setattr(decode_tasks.ray, "remote", lambda _: Task())
    return decode_tasks.Decodings.__ray_metadata__.modified_class(1.0)


def take(decodings: Any, shards: range, *nodes: str) -> None:
    for number in shards:
        for node in nodes:
            assert decodings.shard(f"s{number}", node) == [f"decoded s{number}"]


def test_a_decoded_shard_goes_when_the_last_node_has_taken_it(decodings: Any) -> None:
    for node in ("a", "a", "b"):
        decodings.join(node, "first")
    take(decodings, range(3), "a")
    assert len(decodings._running) == 3
    take(decodings, range(3), "b")
    assert not decodings._running


def test_nodes_of_an_earlier_start_are_not_waited_for(decodings: Any) -> None:
    for node in ("a", "b"):
        decodings.join(node, "first")
    take(decodings, range(2), "a")
    for node in ("a", "c"):
        decodings.join(node, "second")
    assert not decodings._running, "what node b never took is kept"
    take(decodings, range(100), "a", "c")
    assert not decodings._running


def test_cpus_that_will_come_are_waited_for_and_others_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_tasks.ray, "cluster_resources", lambda: {"GPU": 1.0})
    monkeypatch.delenv("RAYSL_AUTOSCALING", raising=False)
    with pytest.raises(ConfigError, match="2 workers leave 0 of 0, and a task needs"):
        decode_tasks.check_cpus(2, True, 0.5)
    monkeypatch.setenv("RAYSL_AUTOSCALING", "1")
    decode_tasks.check_cpus(2, True, 0.5)
