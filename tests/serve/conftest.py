"""The tiny bundle, and its service behind a real socket without Ray."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from raw_http import free_port

from raysl.serve.config import RecordConfig, ServeConfig
from raysl.serve.http import HttpApp
from raysl.serve.listener import Listener
from raysl.serve.port import SharedPort, borrow
from raysl.serve.service import Service, Settings
from raysl.serve.session import BundleSession
from tests.tiny_bundle import make_bundle

TASKS = ("classify", "embed", "search", "generate")


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("serve") / "bundle")


@pytest.fixture(scope="session")
def session(bundle_folder: Path) -> BundleSession:
    return BundleSession.open(bundle_folder)


@pytest.fixture(scope="module")
def settings(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    config = ServeConfig(tasks=TASKS, port=free_port(), max_text_chars=2000, record=RecordConfig(flush_seconds=0.05))
    return Settings("tiny", tmp_path_factory.mktemp("run"), 1, bundle_folder, config)


@contextmanager
def listening(settings: Settings) -> Iterator[Service]:
    """The service on its port, in an event loop of a thread."""
    service, port = Service(settings, "test"), SharedPort(settings.config.host, settings.config.port)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    listener = Listener(HttpApp(service), borrow(port.path))
    asyncio.run_coroutine_threadsafe(listener.start(), loop).result(10)
    try:
        yield service
    finally:
        asyncio.run_coroutine_threadsafe(listener.stop(), loop).result(15)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        service.close()
        port.close()


@pytest.fixture(scope="module")
def service(settings: Settings) -> Iterator[Service]:
    with listening(settings) as running:
        yield running


def with_config(settings: Settings, **changes: object) -> Settings:
    """The same settings with some keys changed, on a port and in a run folder of their own: two would share record files."""
    port = free_port()
    config = settings.config.model_copy(update={"port": port, **changes})
    return replace(settings, run_folder=settings.run_folder / f"at-{port}", config=config)
