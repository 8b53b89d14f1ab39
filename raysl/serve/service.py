"""The tasks of one bundle behind one interface: bytes of a request in, bytes of an answer out. No HTTP, no Ray."""

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from raysl import __version__
from raysl.catalog import TASKS
from raysl.errors import ConfigError, ServeError
from raysl.monitor.recorder import Label, Record, Recorder
from raysl.serve.batcher import Batched, Batcher
from raysl.serve.body import HttpError, parse
from raysl.serve.config import ServeConfig
from raysl.serve.session import BundleSession
from raysl.serve.tasks.base import DECODING, MAX_TEXT_CHARS, REDACT, Request, Response, Task

MAX_LABEL_CHARS = 200
HANGING_FACTOR = 3
BODY_BYTES = {"text": 262_144, "image": 8 << 20}
"""What the session reads -> the largest body where serve.max_body_bytes says nothing."""
FEEDBACK, INFO = "feedback", "info"


class FeedbackRequest(Request):
    """The right label of an earlier request, known later."""

    request_id: str = Field(pattern=r"^[A-Za-z0-9._-]{1,128}$")
    """The request_id of the answer."""
    label: str = Field(min_length=1, max_length=MAX_LABEL_CHARS)
    """One of the classes at /v1/info, letter by letter."""


class FeedbackResponse(Response):
    """The label was taken."""

    accepted: bool = True


class InfoResponse(Response):
    """What is served."""

    name: str
    """Name of the run."""
    version: int
    """Version of the model registry."""
    tasks: list[str]
    classes: list[str]
    reads: str
    """What requests are about: text, or image."""
    max_tokens: int | None
    """Tokens of a text that are read."""
    image_size: int | None
    """Pixels along each side to which a picture is brought."""
    max_text_chars: int
    max_body_bytes: int
    raysl: str
    """Version of the package."""


@dataclass(frozen=True)
class Settings:
    """What a replica is made of."""

    name: str
    run_folder: Path
    version: int
    bundle_folder: Path
    config: ServeConfig


class Service:
    """Loads the bundle and its tasks. `writer` names this replica's record files."""

    def __init__(self, settings: Settings, writer: str) -> None:
        self.settings, self.config = settings, settings.config
        self.session = BundleSession.open(settings.bundle_folder)
        self.tasks = load_tasks(self.session, self.config)
        self._batchers = {name: self._batcher(task) for name, task in self.tasks.items()}
        bundle = self.session.bundle
        self._context = {
            MAX_TEXT_CHARS: self.config.max_text_chars, REDACT: bundle.redact, DECODING: bundle.decoding
        }  # fmt: skip
        self.max_body_bytes = self.config.max_body_bytes or BODY_BYTES[self.session.reads]
        self._decoders = ThreadPoolExecutor(math.ceil(self.config.cpus_per_replica), "decode")
        self.recorder = _recorder(settings, writer)

    def _batcher(self, task: Task) -> Batcher:
        bounds = (self.config.max_batch_size, task.max_batch_size, self.session.max_batch_size)
        return Batcher(task.predict, min(bound for bound in bounds if bound), f"predict-{task.name}")

    async def ask(self, name: str, body: bytes, request_id: str) -> bytes:
        """Answers one request of a task; HttpError where the request is bad."""
        started = time.perf_counter()
        task = self.tasks[name]
        request = await self._parse(task, body)
        result = await self._batchers[name](request)
        result.response.request_id = request_id
        content = result.response.__pydantic_serializer__.to_json(result.response)
        self._record(task, request, result, request_id, 1e3 * (time.perf_counter() - started))
        return bytes(content)

    async def _parse(self, task: Task, body: bytes) -> Request:
        """In a thread where a picture has to be decoded, so that other requests do not wait for it.

        As many at a time as the replica has cores: a picture of 50 million pixels takes hundreds of MB meanwhile.
        """
        if self.session.reads == "text":
            return parse(task.Request, body, self._context)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._decoders, parse, task.Request, body, self._context)

    def _record(self, task: Task, request: Request, result: Batched, request_id: str, latency_ms: float) -> None:
        if self.recorder is None:
            return
        answer = task.answer(request, result.response)
        self.recorder.record(
            Record(
                request_id=request_id, time=time.time(), task=task.name, text=answer.text, prediction=answer.prediction,
                confidence=answer.confidence, latency_ms=latency_ms, model_ms=1e3 * result.model_seconds,
                version=self.settings.version, embedding=answer.embedding,
            )
        )  # fmt: skip

    def feedback(self, body: bytes, request_id: str) -> bytes:
        """Keeps a late label; HttpError where it is no class of the model or nothing is recorded."""
        given = parse(FeedbackRequest, body, {})
        if self.recorder is None:
            raise HttpError(404, [("path", "takes no labels while serve.record.enabled is false")])
        if self.session.classes and given.label not in self.session.classes:
            raise HttpError(422, [("label", "is none of the classes that GET /v1/info lists")])
        if not self.recorder.record(Label(given.request_id, time.time(), given.label)):
            raise HttpError(503, [("label", "could not be kept now; send it again")], {"retry-after": "2"})
        return FeedbackResponse(request_id=request_id).model_dump_json().encode()

    def info(self, request_id: str) -> bytes:
        how = self.session.bundle.decoding
        info = InfoResponse(
            request_id=request_id, name=self.settings.name, version=self.settings.version, tasks=list(self.tasks),
            classes=list(self.session.classes), reads=self.session.reads,
            max_tokens=None if how else self.session.bundle.max_tokens, image_size=how.size if how else None,
            max_text_chars=self.config.max_text_chars,
            max_body_bytes=self.max_body_bytes, raysl=__version__,
        )  # fmt: skip
        return info.model_dump_json().encode()

    def examples(self) -> Mapping[str, Mapping[str, Any]]:
        """A good request for each task."""
        return {name: task.example() for name, task in self.tasks.items()}

    def check(self) -> None:
        """Raises where a model hangs: its batch has taken several times what one request may take."""
        limit = HANGING_FACTOR * self.config.request_timeout_s
        for name, batcher in self._batchers.items():
            if batcher.busy_seconds > limit:
                raise ServeError(f"task {name} has been at work on one batch for more than {limit:.0f} s")

    def warm_up(self) -> None:
        """Answers one example of each task, so that the first user does not pay for it and a broken bundle shows now."""
        for task in self.tasks.values():
            task.predict([task.Request.model_validate(task.example(), context=self._context)])

    def close(self) -> None:
        for batcher in self._batchers.values():
            batcher.close()
        self._decoders.shutdown(wait=False, cancel_futures=True)
        if self.recorder is not None:
            self.recorder.close()


def load_tasks(session: BundleSession, config: ServeConfig) -> dict[str, Task]:
    """Task objects by their names, in the order of the config."""
    classes: Sequence[type[Task]] = [TASKS.load(task.type) for task in config.tasks]
    names = [task.name for task in classes]
    for name in names:
        if names.count(name) > 1 or name in (FEEDBACK, INFO):
            raise ConfigError(f"serve.tasks: the address /v1/{name} is taken. Give the task class another `name`.")
    tasks = {task.name: task(session, settings) for task, settings in zip(classes, config.tasks, strict=True)}
    for name, task in tasks.items():
        fields, other = task.Request.model_fields, "image" if session.reads == "text" else "text"
        if other in fields and session.reads not in fields:
            raise ConfigError(f"serve.tasks: '{name}' asks about `{other}`, and this model reads `{session.reads}`.")
    return tasks


def _recorder(settings: Settings, writer: str) -> Recorder | None:
    record = settings.config.record
    if not record.enabled:
        return None
    return Recorder(
        settings.run_folder, writer, max_rows=record.max_rows, flush_seconds=record.flush_seconds,
        queue_rows=record.queue_rows, max_text_chars=record.max_text_chars,
    )  # fmt: skip
