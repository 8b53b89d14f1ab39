"""`raysl serve`: finds the production version, checks all that can be checked, starts Ray Serve and watches it."""

import json
import logging
import os
import shlex
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any, Self

from raysl import cluster, storage
from raysl.errors import RayslError, ServeError
from raysl.progress import say
from raysl.release.model_registry import production, version_folder
from raysl.run_config import RunConfig, needed
from raysl.serve.config import ServeConfig
from raysl.serve.edge import PROXY_ENVIRONMENT
from raysl.serve.port import SharedPort, check_port
from raysl.serve.service import Settings, load_tasks
from raysl.serve.session import BundleSession

logger = logging.getLogger(__name__)

READY_SECONDS = 60.0
DELETE_SECONDS = 60
"""How long Ray Serve waits for an application to end before it gives up."""
WATCH_SECONDS = 2.0
SERVICE_FILE = "service.json"
"""Left in the run folder while the service runs: url, pid, version."""


@dataclass
class ServiceHandle:
    """A running service. Leaving the `with` block stops it."""

    settings: Settings
    url: str
    app: str
    examples: dict[str, dict[str, Any]]
    """A good request for each task."""
    port: SharedPort | None
    """The socket of the replicas; None behind Ray Serve's proxy."""
    local: bool
    owns_cluster: bool
    refused: int = 0
    """Version that could not take over; it is not tried again."""
    stopped: bool = False

    @property
    def version(self) -> int:
        return self.settings.version

    def redeploy(self, version: int) -> None:
        """Replaces the served version without a gap: new replicas answer before the old ones go."""
        folder = version_folder(self.settings.run_folder, version)
        settings = replace(self.settings, version=version, bundle_folder=folder)
        examples = check_settings(settings)
        before = self.settings, self.examples
        self.settings, self.examples = settings, examples
        try:
            deploy(self)
        except BaseException as error:
            self.settings, self.examples = before
            if isinstance(error, Exception):
                self._deploy_again(error)
            raise

    def _deploy_again(self, error: Exception) -> None:
        """Serves what was served before; left alone, Ray would go on trying the version that failed."""
        try:
            deploy(self)
        except Exception as worse:
            raise ServeError(f"{error} Version {self.version} could not be served again either: {worse}") from worse

    def stop(self) -> None:
        """Answers what is in flight, writes the records and ends the service; the cluster too, if `start` began it."""
        if self.stopped:
            return
        self.stopped = True
        (self.settings.run_folder / SERVICE_FILE).unlink(missing_ok=True)
        _stop_ray_serve(self)
        if self.port is not None:
            self.port.close()
        if self.owns_cluster:
            cluster.disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _stop_ray_serve(service: ServiceHandle) -> None:
    import ray
    from ray import serve as ray_serve
    from ray.serve.exceptions import RayServeException

    if not ray.is_initialized():
        return
    from raysl.serve.deployment import stopping_seconds

    with suppress(RayServeException):  # it never came up
        for _ in range(1 + stopping_seconds(service.settings.config) // DELETE_SECONDS):
            with suppress(TimeoutError):
                ray_serve.delete(service.app)
                break
        if service.local:
            ray_serve.shutdown()


def serve(config: RunConfig) -> None:
    """Serves the production version until Ctrl-C or SIGTERM; a version promoted meanwhile takes its place."""
    with StopSignals() as stop:
        with start(config) as service:
            for line in hello(service):
                say(line)
            while not stop.event.wait(WATCH_SECONDS):
                follow(service)
        say("stopped")


def start(config: RunConfig) -> ServiceHandle:
    """Starts the service and returns when it has answered a query.

    Raises before the cluster starts: StageError without a version in production, BundleError for a bundle that is cut off,
    ConfigError for a task it cannot answer, ServeError for a port in use.
    """
    needed(config, "serve")
    assert config.serve is not None
    version, folder = production(config.folder)
    settings = Settings(config.name, config.folder, version, folder, config.serve)
    examples = check_settings(settings)
    local = not cluster.joins()
    port = claim_port(config.serve, local)
    import ray

    owns_cluster = not ray.is_initialized()
    service = ServiceHandle(settings, url_of(config.serve), _app_of(config), examples, port, local, owns_cluster)
    try:
        cluster.connect()
        deploy(service)
    except BaseException:
        service.stop()
        raise
    return service


def check_settings(settings: Settings) -> dict[str, dict[str, Any]]:
    """Opens the bundle and every task here, where a mistake is one clear error; returns a good request for each task."""
    tasks = load_tasks(BundleSession.open(settings.bundle_folder), settings.config)
    return {name: task.example() for name, task in tasks.items()}


def claim_port(config: ServeConfig, local: bool) -> SharedPort | None:
    """The socket for `direct` ingress; for `proxy` the check that Ray's proxy will find its port free."""
    if config.ingress == "direct" and not local:
        raise ServeError("serve.ingress=direct works on a local cluster alone. On this one use serve.ingress=proxy.")
    if config.ingress != "proxy" and local:
        return SharedPort(config.host, config.port)
    if local:
        check_port(config.host, config.port)
    return None


def _app_of(config: RunConfig) -> str:
    """Name of the run's application: two runs of one name on a cluster are two, and Ray refuses the second one's route."""
    return f"raysl-{config.name}-{storage.hash_text(str(config.folder))[:8]}"


def deploy(service: ServiceHandle) -> None:
    """Runs the application and waits until the version answers a query."""
    from ray import serve as ray_serve
    from ray.serve.exceptions import RayServeException

    from raysl.serve.deployment import application

    config = service.settings.config
    ray_serve.start(
        proxy_location="EveryNode" if service.port is None else "Disabled",
        http_options={"host": config.host, "port": config.port},
        controller_options={"runtime_env": {"env_vars": PROXY_ENVIRONMENT}},  # the proxies inherit it
    )
    target = application(service.settings, service.port.path if service.port else None, service.local)
    try:
        ray_serve.run(target, name=service.app, route_prefix="/")
    except (RuntimeError, RayServeException) as error:
        raise ServeError(f"The service did not come up: {_last_line(error)}. The log of the run has the rest.") from error
    _wait_until_answering(service)
    facts = {"url": service.url, "pid": os.getpid(), "version": service.version, "started": time.time()}
    storage.write_json(service.settings.run_folder / SERVICE_FILE, facts)


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].strip().rstrip(".")


def _wait_until_answering(service: ServiceHandle) -> None:
    deadline = time.monotonic() + READY_SECONDS
    task, example = next(iter(service.examples.items()))
    while True:
        try:
            if ask(service.url, "/v1/info")["version"] == service.version:
                ask(service.url, f"/v1/{task}", example)
                return
            problem = "an earlier version still answers"
        except (OSError, ValueError, KeyError) as error:
            problem = str(error)
        if time.monotonic() > deadline:
            raise ServeError(f"{service.url} did not answer within {READY_SECONDS:.0f} s: {problem}.")
        time.sleep(0.1)


def ask(url: str, path: str, body: Any = None, timeout: float = 30.0) -> dict[str, Any]:
    """One HTTP query: GET, or POST where there is a body. Raises OSError (HTTPError) where the answer is not 200.

    Goes to `url` itself, whatever `http_proxy` says: a proxy elsewhere does not reach a service of this machine.
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"Content-Type": "application/json"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=timeout) as response:
        return dict(json.load(response))


def follow(service: ServiceHandle) -> None:
    """Serves the version in production, where another one was promoted; a bad one is refused and the old one stays."""
    try:
        version, _ = production(service.settings.run_folder)
    except Exception:  # the registry is being looked at by hand, or its disk is away; what is served goes on
        return
    if version in (service.version, service.refused):
        return
    try:
        service.redeploy(version)
        say(f"version {version} is served")
    except Exception as error:  # whatever a user's task or a disk raises: a version that is served is not given up for it
        service.refused = version
        if isinstance(error, RayslError):
            say(f"still version {service.version}: {error}")
        else:
            logger.exception("version %d cannot take over", version)
            say(f"still version {service.version}: {type(error).__name__}: {error}. The log of the run has the traceback.")


def hello(service: ServiceHandle) -> Iterator[str]:
    """What the user can type now."""
    yield f"serving {service.settings.name} version {service.version} at {service.url}"
    for task, example in list(service.examples.items())[:3]:
        body = shlex.quote(json.dumps(example))
        yield f"  curl -s {service.url}/v1/{task} -H 'content-type: application/json' -d {body}"
    yield f"  API: {service.url}/openapi.json   stop: Ctrl-C"


def url_of(config: ServeConfig) -> str:
    """Where this machine reaches the service."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.host, config.host)
    return f"http://[{host}]:{config.port}" if ":" in host else f"http://{host}:{config.port}"


class StopSignals:
    """Ctrl-C and SIGTERM set `event`, instead of ending the process in the middle of something."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self._kept: dict[int, Any] = {}

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.event.set()

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._kept[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._kept.items():
            signal.signal(number, handler)
