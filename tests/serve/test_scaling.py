"""Replicas follow the requests in flight."""

from types import SimpleNamespace

import pytest

from raysl.serve.scaling import ByRequestsInFlight


@pytest.mark.parametrize(
    ("in_flight", "replicas"), [({}, 1), ({"a": 0.0}, 1), ({"a": 16.0}, 1), ({"a": 17.0}, 2), ({"a": 30.0, "b": 3.0}, 3)]
)
def test_so_many_replicas_that_each_has_the_target_in_flight(in_flight: dict[str, float], replicas: int) -> None:
    context = SimpleNamespace(aggregated_metrics={"in_flight": in_flight} if in_flight else None)
    assert ByRequestsInFlight(16.0)(context) == (replicas, {})
