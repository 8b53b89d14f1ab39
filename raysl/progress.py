"""Progress of a stage: a bar with rate and time left on a terminal, one line every few seconds elsewhere."""

import sys
import time
from types import TracebackType
from typing import Any, Self, TextIO

LINE_EVERY_S = 5.0
_user_stream: TextIO | None = None


def user_stream() -> TextIO:
    """Where the user reads: stderr, also while `cluster.quiet` sends everybody else's stderr to a log file."""
    return _user_stream or sys.stderr


def set_user_stream(stream: TextIO | None) -> None:
    """Speaks to `stream` instead of `sys.stderr`; None goes back."""
    global _user_stream
    _user_stream = stream


class Progress:
    """Counts work of one step of a stage.

    with Progress("prepare: clean", total=40, unit="partitions") as progress:
        progress.advance(1, note="12,000 documents")
    """

    def __init__(self, title: str, total: float | None = None, unit: str = "") -> None:
        self.title, self.total, self.unit = title, total, unit
        self.count = 0.0
        self.note = ""
        self.started = time.monotonic()
        self._first, self._begun = 0.0, self.started  # work and time before the first piece of work: not part of the rate
        self._last_line = 0.0
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        if user_stream().isatty():
            self._open_bar()
        else:
            self._line()
        return self

    def _open_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"),
                   TimeElapsedColumn(), TimeRemainingColumn())  # fmt: skip
        self._bar = Bar(*columns, console=Console(file=user_stream()))
        self._bar.start()
        self._task = self._bar.add_task(self.title, total=self.total, state="")

    def advance(self, amount: float = 1, note: str = "") -> None:
        self.set(self.count + amount, note)

    def start_at(self, count: float) -> None:
        """Work begins here: what an earlier start has done, and the time to get ready, are no part of the rate."""
        self._first, self._begun = count, time.monotonic()
        self.set(count)

    def set(self, count: float, note: str = "") -> None:
        self.count, self.note = count, note or self.note
        if self._bar is not None:
            self._bar.update(self._task, completed=count, state=self._state())
        elif time.monotonic() - self._last_line >= LINE_EVERY_S:
            self._line()

    def tell(self, line: str) -> None:
        """A line that stays, above the bar."""
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False)
        else:
            say(line)

    def _line(self, done: bool = False) -> None:
        self._last_line = time.monotonic()
        left = self._seconds_left()
        elapsed = time.monotonic() - self.started
        tail = f"  {elapsed:.1f} s" if done else (f"  {left:.0f} s left" if left is not None else "")
        state = self._state()
        print(f"{self.title}{'  ' + state if state else ''}{tail}", file=user_stream(), flush=True)

    def _state(self) -> str:
        if not self.count and not self.note:
            return ""
        total = f"/{self.total:,.0f}" if self.total else ""
        rate = (self.count - self._first) / max(time.monotonic() - self._begun, 1e-9)
        parts = [
            f"{self.count:,.0f}{total} {self.unit}".strip(),
            f"{rate:,.1f}/s" if rate < 100 else f"{rate:,.0f}/s",
            self.note,
        ]
        return "  ".join(part for part in parts if part)

    def _seconds_left(self) -> float | None:
        done = self.count - self._first
        if not self.total or done <= 0:
            return None
        return max(self.total - self.count, 0) * (time.monotonic() - self._begun) / done

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif kind is None:
            self._line(done=True)


def say(line: str = "") -> None:
    """One line to the user, beside the progress."""
    print(line, file=user_stream(), flush=True)
