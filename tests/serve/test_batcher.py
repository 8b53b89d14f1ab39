"""The batcher takes what waits, waits for nothing and keeps errors where they belong."""

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest

from raysl.serve.batcher import Batcher


class Model:
    """Doubles numbers; refuses negative ones; keeps the batches it saw. `gate` holds it up."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()

    def predict(self, numbers: Sequence[int]) -> list[int]:
        self.gate.wait(10)
        self.batches.append(list(numbers))
        if min(numbers) < 0:
            raise ValueError("negative")
        return [2 * number for number in numbers]


async def _ask(batcher: Batcher, numbers: Sequence[int]) -> list[object]:
    asked = asyncio.gather(*(batcher(number) for number in numbers), return_exceptions=True)
    results = await asyncio.wait_for(asked, 10)
    return [result if isinstance(result, BaseException) else result.response for result in results]


async def _gather_behind_one(model: Model, batcher: Batcher, numbers: Sequence[int]) -> list[object]:
    """Lets `numbers` gather while the model is held up by a first request."""
    model.gate.clear()
    first = asyncio.ensure_future(batcher(0))
    await asyncio.sleep(0.05)
    rest = asyncio.ensure_future(_ask(batcher, numbers))
    await asyncio.sleep(0.05)
    model.gate.set()
    await first
    return await rest


def test_a_lone_request_waits_for_nobody() -> None:
    async def scenario() -> float:
        batcher = Batcher(Model().predict, 32)
        await batcher(1)
        started = time.perf_counter()
        for _ in range(20):
            await batcher(1)
        return (time.perf_counter() - started) / 20

    assert asyncio.run(scenario()) < 0.02


def test_requests_that_gather_are_answered_in_batches_in_their_order() -> None:
    model = Model()
    answers = asyncio.run(_gather_behind_one(model, Batcher(model.predict, 4), range(1, 11)))
    assert answers == [2 * number for number in range(1, 11)]
    assert model.batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]


def test_an_error_reaches_its_own_caller_and_spares_the_neighbours() -> None:
    model = Model()
    answers = asyncio.run(_gather_behind_one(model, Batcher(model.predict, 8), [1, -1, 3]))
    assert (answers[0], answers[2]) == (2, 6)
    assert isinstance(answers[1], ValueError)


def test_a_stop_iteration_is_an_error_like_another() -> None:
    async def scenario() -> list[object]:
        return await _ask(Batcher(lambda numbers: next(iter(())), 8), [1, 2])  # type: ignore[call-overload]

    assert [str(answer) for answer in asyncio.run(scenario())] == ["predict raised StopIteration"] * 2


def test_the_batcher_goes_on_after_an_error() -> None:
    async def scenario() -> list[object]:
        batcher = Batcher(Model().predict, 8)
        await _ask(batcher, [-1])
        return await _ask(batcher, [5])

    assert asyncio.run(scenario()) == [10]


def test_too_few_responses_are_an_error_for_each_caller() -> None:
    async def scenario() -> list[object]:
        return await _ask(Batcher(lambda numbers: [], 8), [1, 2])

    assert all("has to give one each" in str(answer) for answer in asyncio.run(scenario()))


def test_a_caller_that_gave_up_costs_the_model_nothing() -> None:
    model = Model()

    async def scenario() -> None:
        batcher = Batcher(model.predict, 8)
        model.gate.clear()
        first = asyncio.ensure_future(batcher(0))
        await asyncio.sleep(0.05)
        impatient, patient = asyncio.ensure_future(batcher(1)), asyncio.ensure_future(batcher(2))
        await asyncio.sleep(0.05)
        impatient.cancel()
        model.gate.set()
        await first
        assert (await patient).response == 4

    asyncio.run(scenario())
    assert model.batches == [[0], [2]]


def test_it_says_how_long_the_model_has_been_at_work() -> None:
    async def scenario() -> tuple[float, float]:
        model = Model()
        batcher = Batcher(model.predict, 8)
        model.gate.clear()
        waiting = asyncio.ensure_future(batcher(0))
        await asyncio.sleep(0.1)
        busy = batcher.busy_seconds
        model.gate.set()
        await waiting
        return busy, batcher.busy_seconds

    busy, free = asyncio.run(scenario())
    assert busy > 0.05
    assert free == 0


def test_the_time_of_a_batch_is_shared_by_its_rows() -> None:
    def slow(numbers: Sequence[int]) -> Sequence[int]:
        time.sleep(0.08)
        return numbers

    async def scenario() -> list[float]:
        batcher = Batcher(slow, 8)
        return [r.model_seconds for r in await asyncio.gather(*(batcher(n) for n in range(4)))]

    assert asyncio.run(scenario()) == pytest.approx([0.02] * 4, abs=0.015)
