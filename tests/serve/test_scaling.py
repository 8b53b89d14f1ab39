"""Replicas follow the requests in flight."""

import warnings
from types import SimpleNamespace

import pytest
from conftest import with_config

from raysl.serve import deployment
from raysl.serve.scaling import ByRequestsInFlight
from raysl.serve.service import Settings


@pytest.mark.parametrize(
    ("in_flight", "replicas"), [({}, 1), ({"a": 0.0}, 1), ({"a": 16.0}, 1), ({"a": 17.0}, 2), ({"a": 30.0, "b": 3.0}, 3)]
)
def test_so_many_replicas_that_each_has_the_target_in_flight(in_flight: dict[str, float], replicas: int) -> None:
    context = SimpleNamespace(aggregated_metrics={"in_flight": in_flight} if in_flight else None)
    assert ByRequestsInFlight(16.0)(context) == (replicas, {})


def test_a_version_that_takes_over_begins_with_as_many_replicas_as_there_are(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a first number, Ray would go down to it at every change of the version, in the middle of the traffic."""
    monkeypatch.setattr(deployment.ray, "cluster_resources", dict)
    several = with_config(settings, min_replicas=1, max_replicas=4)
    scaling = deployment.application(several, None, local=True)._bound_deployment._deployment_config.autoscaling_config
    assert scaling is not None
    assert (scaling.min_replicas, scaling.max_replicas, scaling.initial_replicas) == (1, 4, None)


def test_a_service_that_scales_does_not_lean_on_what_a_later_ray_refuses(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployment.ray, "cluster_resources", dict)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        deployment.application(with_config(settings, min_replicas=1, max_replicas=4), None, local=True)
