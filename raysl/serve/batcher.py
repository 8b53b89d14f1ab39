"""Micro-batching that never waits: while the model works, requests gather; when it is free, it takes what is there.

A lone request pays no delay, and a busy service fills its batches by itself.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

Predict = Callable[[Sequence[Any]], Sequence[Any]]


@dataclass(frozen=True)
class Batched:
    """A response and what it cost the model: the time of its batch over the rows of the batch."""

    response: Any
    model_seconds: float


@dataclass
class _Waiting:
    request: Any
    future: "asyncio.Future[Batched]"


class Batcher:
    """Calls `predict` with the requests that wait, in the order of their arrival, from one thread of its own.

    Callers that gave up before their batch began are left out. An exception of a batch of several is narrowed down to
    its rows by asking them one by one, so that neighbours get their answers.
    """

    def __init__(self, predict: Predict, max_batch_size: int, name: str = "predict") -> None:
        self.predict, self.max_batch_size = predict, max_batch_size
        self._waiting: deque[_Waiting] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._batch_started: float | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    @property
    def busy_seconds(self) -> float:
        """How long the model has been at work on the present batch; 0 when it is free."""
        return 0.0 if self._batch_started is None else time.perf_counter() - self._batch_started

    async def __call__(self, request: Any) -> Batched:
        item = _Waiting(request, asyncio.get_running_loop().create_future())
        self._waiting.append(item)
        if self._worker is None:
            self._worker = asyncio.ensure_future(self._work())
        return await item.future

    async def _work(self) -> None:
        try:
            while batch := self._next():
                await self._answer(batch)
        finally:
            self._worker = None

    def _next(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        while self._waiting and len(batch) < self.max_batch_size:
            item = self._waiting.popleft()
            if not item.future.done():
                batch.append(item)
        return batch

    async def _answer(self, batch: list[_Waiting]) -> None:
        try:
            results = await self._run([item.request for item in batch])
        except Exception as error:
            if len(batch) > 1:
                for item in batch:
                    await self._answer([item])
            elif not batch[0].future.done():
                batch[0].future.set_exception(error)
            return
        for item, result in zip(batch, results, strict=True):
            if not item.future.done():
                item.future.set_result(result)

    async def _run(self, requests: list[Any]) -> list[Batched]:
        started = self._batch_started = time.perf_counter()
        try:
            responses = await asyncio.get_running_loop().run_in_executor(self._thread, self._predict, requests)
        finally:
            self._batch_started = None
        if len(responses) != len(requests):
            raise ValueError(
                f"predict gave {len(responses)} responses for {len(requests)} requests; it has to give one each"
            )
        seconds = (time.perf_counter() - started) / len(requests)
        return [Batched(response, seconds) for response in responses]

    def _predict(self, requests: list[Any]) -> Sequence[Any]:
        try:
            return self.predict(requests)
        except StopIteration as error:  # no future takes it, so the callers would wait for ever
            raise RuntimeError("predict raised StopIteration") from error

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
