"""What `serve` refuses before a cluster starts, and what it says when it serves."""

import json
import shlex
import socket
from pathlib import Path
from typing import Any

import pytest
from raw_http import free_port

from raysl import cluster, config, run_config
from raysl.errors import BundleError, CatalogError, ConfigError, ServeError, StageError
from raysl.release.model_registry import promote, register
from raysl.run_config import RunConfig
from raysl.serve import app
from raysl.serve.config import ServeConfig
from raysl.serve.service import Service, Settings
from tests.tiny_bundle import make_bundle


def make_config(folder: Path, **serve: Any) -> RunConfig:
    sections: dict[str, Any] = {
        "name": "tiny", "run_dir": str(folder), "prepare": {"source": "python_docs"},
        "pretrain": {"objective": "bert", "model": "bert"}, "serve": {"tasks": ["classify"], "port": free_port(), **serve},
    }  # fmt: skip
    return config.validate(run_config.RunConfig, sections, "test.yaml")


def release(folder: Path, number: int = 1, **facts: object) -> int:
    bundle = make_bundle(folder / f"made{number}", number=number, **facts)
    version = register(folder, bundle, {})
    promote(folder, version)
    return version


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object, **__: object) -> None:
        pytest.fail("a cluster was started")

    monkeypatch.setattr(cluster, "connect", connect)


def test_without_a_version_in_production_the_command_to_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="raysl release"):
        app.start(make_config(tmp_path))


def test_a_port_in_use_is_refused_and_the_key_named(tmp_path: Path) -> None:
    release(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServeError, match=rf"Port {port}.*serve\.port="):
            app.start(make_config(tmp_path, port=port))


def test_a_bundle_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    version = release(tmp_path)
    path = tmp_path / "registry" / "versions" / str(version) / "encoder.onnx"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(BundleError, match=r"encoder\.onnx"):
        app.start(make_config(tmp_path))


def test_a_task_that_the_bundle_cannot_answer_is_refused(tmp_path: Path) -> None:
    release(tmp_path, generates=False)
    with pytest.raises(BundleError, match=r"generator\.onnx; it answers classify"):
        app.start(make_config(tmp_path, tasks=["generate"]))


def test_a_task_given_twice_is_refused(tmp_path: Path) -> None:
    release(tmp_path)
    with pytest.raises(ConfigError, match=r"/v1/classify is taken"):
        app.start(make_config(tmp_path, tasks=["classify", "classify"]))


def test_an_unknown_task_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises((ConfigError, CatalogError), match=r"Unknown task 'clasify'\. Did you mean 'classify'"):
        make_config(tmp_path, tasks=["clasify"])


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", "http://127.0.0.1:8000"), ("0.0.0.0", "http://127.0.0.1:8000"), ("::", "http://[::1]:8000")],
)
def test_the_address_printed_is_one_that_can_be_asked(host: str, url: str) -> None:
    assert app.url_of(ServeConfig(tasks=("embed",), host=host)) == url


def test_an_example_with_a_quote_can_be_typed(tmp_path: Path) -> None:
    """The shell took it for the end of the body and waited for more."""
    body = {"text": "it's"}
    settings = Settings("tiny", tmp_path, 1, tmp_path, ServeConfig(tasks=("classify",)))
    service = app.ServiceHandle(settings, "http://127.0.0.1:8000", "tiny", {"mine": body}, None, True, False)
    (line,) = [line for line in app.hello(service) if "/v1/mine" in line]
    assert json.loads(shlex.split(line)[-1]) == body


def test_the_service_is_asked_itself_where_a_proxy_is_set(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    assert app.ask(app.url_of(service.config), "/v1/info")["version"] == 1


def make_service(folder: Path) -> app.ServiceHandle:
    settings = app.Settings("run", folder, 1, folder, ServeConfig(tasks=("embed",)))
    return app.ServiceHandle(settings, "http://127.0.0.1:1", "raysl-run", {}, None, False, False)


@pytest.mark.parametrize("kind", [ServeError, OSError])
@pytest.mark.parametrize("old_answers", [True, False])
def test_what_was_served_is_served_again_where_a_new_version_does_not_come_up(
    old_answers: bool, kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's target would stay the version that failed, also after a roll-back to the one that is recorded."""
    asked: list[int] = []

    def deploy(service: app.ServiceHandle) -> None:
        asked.append(service.version)
        if service.version == 2 or not old_answers:
            raise kind(f"version {service.version} did not come up")

    monkeypatch.setattr(app, "deploy", deploy)
    monkeypatch.setattr(app, "check_settings", lambda settings: {})
    service = make_service(tmp_path)
    said = "version 2 did not come up" + ("$" if old_answers else " Version 1 could not be served again either: version 1")
    with pytest.raises(kind if old_answers else ServeError, match=said):
        service.redeploy(2)
    assert (asked, service.version) == ([2, 1], 1)


@pytest.mark.parametrize("where", ["check_settings", "deploy"])
def test_an_error_that_is_none_of_raysl_refuses_the_new_version_and_goes_to_the_log(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    release(tmp_path, 1)
    release(tmp_path, 2)

    def fail(of: object) -> dict[str, dict[str, object]]:
        service = of.settings if isinstance(of, app.ServiceHandle) else of
        if isinstance(service, app.Settings) and service.version == 2:
            raise KeyError("classes")
        return {}

    monkeypatch.setattr(app, "check_settings", lambda settings: {})
    monkeypatch.setattr(app, "deploy", lambda service: None)
    monkeypatch.setattr(app, where, fail)
    service = make_service(tmp_path)
    for _ in range(2):
        app.follow(service)
    assert (service.version, service.refused) == (1, 2)
    assert capsys.readouterr().err.count("still version 1: KeyError: 'classes'. The log of the run") == 1
    assert "Traceback" in caplog.text


def test_a_registry_that_cannot_be_read_for_a_moment_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(run_folder: Path) -> tuple[int, Path]:
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(app, "production", stale)
    service = make_service(tmp_path)
    app.follow(service)
    assert (service.version, service.refused) == (1, 0)


def test_runs_of_one_name_are_two_applications(tmp_path: Path) -> None:
    first, second = (make_config(tmp_path / folder) for folder in ("first", "second"))
    assert first.name == second.name
    assert app._app_of(first) != app._app_of(second)


def test_a_query_with_an_apostrophe_can_be_typed(tmp_path: Path) -> None:
    service = make_service(tmp_path)
    service.examples = {"classify": {"text": "don't panic"}}
    _, line, _ = app.hello(service)
    assert json.loads(shlex.split(line)[-1]) == {"text": "don't panic"}
