"""Speed of a run: units a second, share of the time spent waiting for rows, seconds left."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Window:
    """What happened since the last reading, evaluations left out."""

    seconds: float
    steps: int
    units: int
    """Tokens or images that this rank read."""
    data_wait: float
    """Share of the seconds that this rank waited for rows."""


@dataclass
class Meter:
    """Clocks of one rank; `now` is seconds on a clock that only rises."""

    started: float = field(default_factory=time.monotonic)
    _since: float = field(init=False)
    _steps: int = field(default=0, init=False)
    _units: int = field(default=0, init=False)
    _waited: float = field(default=0.0, init=False)
    _all_steps: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._since = self.started

    @contextmanager
    def waiting(self) -> Iterator[None]:
        began = time.monotonic()
        yield
        self._waited += time.monotonic() - began

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time inside the block is not training time."""
        began = time.monotonic()
        yield
        self._since += time.monotonic() - began

    def step(self, units: int) -> None:
        self._steps += 1
        self._all_steps += 1
        self._units += units

    def read(self) -> Window:
        """The window since the last reading; the next one begins."""
        now = time.monotonic()
        seconds = max(now - self._since, 1e-9)
        window = Window(seconds, self._steps, self._units, self._waited / seconds)
        self._since, self._steps, self._units, self._waited = now, 0, 0, 0.0
        return window

    def seconds_left(self, steps: int) -> float:
        """At the mean speed of this start, evaluations and checkpoints included."""
        return steps * (time.monotonic() - self.started) / max(self._all_steps, 1)
