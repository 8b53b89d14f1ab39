"""The whole service on Ray Serve, asked over real HTTP."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from raw_http import get, headers_of, post, request, send, status
from test_app_checks import make_config, release

from raysl import config as base
from raysl.monitor.recorder import read_records
from raysl.release.model_registry import promote
from raysl.serve import app
from raysl.serve.app import ServiceHandle

pytestmark = pytest.mark.ray

CLASSIFY = "/v1/classify"
GOOD = {"text": "apple banana"}
OUTSIDE = '''
"""A task of another project."""

import os

from raysl.config import PluginConfig
from raysl.serve.tasks import base


class ShoutConfig(PluginConfig):
    type: str = "outside_task:Shout"
    ending: str = "!"


class ShoutResponse(base.Response):
    text: str
    pid: int


class Shout(base.Task):
    name = "shout"
    Config = ShoutConfig
    Request = base.TextRequest
    Response = ShoutResponse

    def predict(self, requests):
        return [ShoutResponse(text=request.text.upper() + self.config.ending, pid=os.getpid()) for request in requests]
'''


@pytest.fixture(scope="module", autouse=True)
def _outside_task(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Code that lies outside the package, on the Python path of the driver and of the cluster that starts next."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "outside_task.py").write_text(OUTSIDE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        patch.syspath_prepend(str(folder))
        yield


@pytest.fixture(scope="module")
def service(_outside_task: None, ray_cluster: Path) -> Iterator[ServiceHandle]:
    release(ray_cluster)
    tasks = ["classify", "embed", "search", "generate", {"type": "outside_task:Shout", "ending": "?"}]
    config = make_config(ray_cluster, tasks=tasks, cpus_per_replica=0.5)
    with app.start(config) as running:
        yield running


@pytest.fixture
def port(service: ServiceHandle) -> int:
    return service.settings.config.port


class Load(threading.Thread):
    """Asks one after another, each time on a new connection, until told to stop; code 0 is no answer."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port, self.going = port, True
        self.codes: list[int] = []

    def run(self) -> None:
        while self.going:
            try:
                self.codes.append(post(self.port, CLASSIFY, GOOD)[0])
            except (OSError, IndexError):
                self.codes.append(0)


def test_every_task_answers_over_http_one_from_outside_the_package_too(port: int) -> None:
    assert post(port, CLASSIFY, GOOD)[1]["label"] == "fruit"
    assert len(post(port, "/v1/embed", GOOD)[1]["embedding"]) == 4
    assert post(port, "/v1/search", {"text": "saw", "limit": 1})[1]["documents"][0]["id"] == "b"
    assert post(port, "/v1/generate", {"text": "cat", "temperature": 0, "max_tokens": 1})[1]["text"] == "dog"
    assert post(port, "/v1/shout", GOOD)[1]["text"] == "APPLE BANANA?"
    assert get(port, "/v1/info")[1]["tasks"] == ["classify", "embed", "search", "generate", "shout"]


def test_what_is_printed_can_be_typed(service: ServiceHandle) -> None:
    lines = list(app.hello(service))
    assert service.url in lines[0]
    curls = [line.strip() for line in lines if line.strip().startswith("curl")]
    assert len(curls) == 3
    for line in curls:
        answer = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=20, check=True).stdout
        assert "request_id" in json.loads(answer)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[" * 100_000, b'{"text": "\xff"}', b'{"text": ""}', b'{"text": "%s"}' % (b"a" * 10**6)]
)
def test_bad_bodies_are_4xx_and_the_service_goes_on(port: int, body: bytes) -> None:
    assert 400 <= post(port, CLASSIFY, body)[0] < 500
    assert post(port, CLASSIFY, GOOD)[0] == 200


def test_a_promoted_version_takes_over_and_no_request_is_lost(service: ServiceHandle, port: int) -> None:
    loads = [Load(port) for _ in range(4)]
    for load in loads:
        load.start()
    version = release(service.settings.run_folder, 2)
    app.follow(service)
    time.sleep(2)
    for load in loads:
        load.going = False
        load.join()
    codes = Counter(code for load in loads for code in load.codes)
    assert get(port, "/v1/info")[1]["version"] == service.version == version == 2
    assert codes[200] > 100
    assert set(codes) == {200}, codes


def test_a_version_that_is_altered_is_refused_and_the_old_one_stays(service: ServiceHandle, port: int) -> None:
    before, folder = service.version, service.settings.run_folder
    version = release(folder, 3)
    path = folder / "registry" / "versions" / str(version) / "classifier.onnx"
    content = path.read_bytes()
    path.write_bytes(content[:-3])
    app.follow(service)
    assert get(port, "/v1/info")[1]["version"] == before
    path.write_bytes(content)
    promote(folder, before)


def test_a_killed_replica_is_replaced(service: ServiceHandle, port: int) -> None:
    pid = post(port, "/v1/shout", GOOD)[1]["pid"]
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if post(port, "/v1/shout", GOOD)[1]["pid"] != pid:
                return
        except (OSError, IndexError):
            time.sleep(0.1)
    pytest.fail("no replica came back within 60 s")


def test_stopping_writes_the_records_and_frees_the_port(service: ServiceHandle, port: int) -> None:
    name = post(port, CLASSIFY, {"text": "drill"})[1]["request_id"]
    post(port, "/v1/feedback", {"request_id": name, "label": "animal"})
    service.stop()
    rows = {row["request_id"]: row for row in read_records(service.settings.run_folder).to_pylist()}
    assert (rows[name]["prediction"], rows[name]["label"]) == ("tool", "animal")
    with pytest.raises(OSError):
        send(port, b"")


def test_replicas_share_the_port(ray_cluster: Path) -> None:
    config = make_config(ray_cluster, tasks=["outside_task:Shout"], min_replicas=2, max_replicas=2, cpus_per_replica=0.5)
    with app.start(config) as service:
        port = service.settings.config.port
        assert len({post(port, "/v1/shout", GOOD)[1]["pid"] for _ in range(100)}) == 2


def test_behind_rays_proxy_the_answers_are_the_same_and_clients_cannot_steer_it(ray_cluster: Path) -> None:
    with app.start(make_config(ray_cluster, ingress="proxy", cpus_per_replica=0.5)) as service:
        port = service.settings.config.port
        assert post(port, CLASSIFY, GOOD)[1]["label"] == "fruit"
        for header in ("x-request-timeout-seconds: 0.0001", "x-request-timeout-seconds: \xff", "x-request-id: \xff"):
            answer = send(port, request(CLASSIFY, json.dumps(GOOD).encode(), headers=(header,)))
            assert status(answer) == 200
            assert len([key for key, _ in headers_of(answer) if key == "x-request-id"]) == 1
        assert post(port, CLASSIFY, b'{"text": "' + b"a" * 10**6 + b'"}')[0] == 413
        assert post(port, CLASSIFY, b"{")[0] == 400


SCRIPT = """
import sys
from raysl import run_config
from raysl.serve.app import serve
serve(run_config.load(sys.argv[1]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_command_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    release(tmp_path)
    config = make_config(tmp_path)
    (tmp_path / "test.yaml").write_text(base.dump(config))
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "test.yaml")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "stop: Ctrl-C" in line:
            break
    assert config.serve is not None
    name = post(config.serve.port, CLASSIFY, GOOD)[1]["request_id"]
    assert (tmp_path / "service.json").is_file()
    process.send_signal(number)
    rest = process.stderr.read()
    assert process.wait(60) == 0, "".join(lines) + rest
    assert not (tmp_path / "service.json").exists()
    assert name in read_records(tmp_path)["request_id"].to_pylist()
