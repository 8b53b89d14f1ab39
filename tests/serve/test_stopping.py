"""A replica that goes has the time to answer what it has begun, and none without requests takes that time."""

import socket
import threading
import time

import pytest
from conftest import listening, with_config
from raw_http import request, send, status

from raysl.serve import app, deployment
from raysl.serve.http import HttpApp
from raysl.serve.listener import NOTICE_SECONDS, Listener, drain_seconds
from raysl.serve.service import Service, Settings


@pytest.mark.parametrize("request_timeout_s", [0.5, 30.0, 600.0])
def test_no_limit_is_below_the_longest_time_of_a_request(
    request_timeout_s: float, service: Service, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The listener's, then Ray's for the replica as a whole."""
    changed = with_config(settings, request_timeout_s=request_timeout_s)
    monkeypatch.setattr(deployment.ray, "cluster_resources", dict)
    replica = deployment.application(changed, None, local=True)._bound_deployment
    monkeypatch.setattr(service, "config", changed.config)
    with socket.socket() as unused:
        listener = Listener(HttpApp(service), unused)
    drain = listener._server.config.timeout_graceful_shutdown
    assert drain == drain_seconds(request_timeout_s) > request_timeout_s
    assert replica._deployment_config.graceful_shutdown_timeout_s > NOTICE_SECONDS + drain


def test_a_listener_that_stops_answers_what_is_in_flight(settings: Settings) -> None:
    answers: list[bytes] = []
    with listening(with_config(settings)) as service:
        gate = threading.Event()
        batcher, port = service._batchers["classify"], service.config.port
        predict = batcher.predict
        batcher.predict = lambda requests: (gate.wait(20), predict(requests))[1]
        data = request("/v1/classify", b'{"text": "saw"}')
        client = threading.Thread(target=lambda: answers.append(send(port, data)))
        client.start()
        while not batcher.busy_seconds:
            time.sleep(0.01)
        threading.Timer(1.0, gate.set).start()
    client.join()
    assert status(answers[0]) == 200


def test_a_listener_without_requests_stops_at_once(settings: Settings) -> None:
    with listening(with_config(settings, request_timeout_s=600.0)) as service:
        idle = socket.create_connection(("127.0.0.1", service.config.port))
        started = time.monotonic()
    assert time.monotonic() - started < 3
    idle.close()


def test_a_service_whose_requests_take_longer_than_ray_waits_is_stopped(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def delete(name: str) -> None:
        calls.append(name)
        if len(calls) < 3:
            raise TimeoutError("weren't deleted after 60s")

    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("ray.serve.delete", delete)
    changed = with_config(settings, request_timeout_s=150.0)
    app.ServiceHandle(changed, "http://127.0.0.1:1", "raysl-run", {}, None, local=False, owns_cluster=False).stop()
    assert calls == ["raysl-run"] * 3
