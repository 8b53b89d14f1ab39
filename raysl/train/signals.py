"""SIGTERM means "you will be killed soon": the loop hears of it within seconds and saves first."""

import signal
import threading
from types import FrameType

from raysl.train.world import MUST_END, STAYS

_asked, _over = threading.Event(), threading.Event()


def listen() -> None:
    """Turns SIGTERM into a note for the loop; a second one, or one after `over`, ends the process. In the main thread."""
    signal.signal(signal.SIGTERM, _note)


def asked_to_end() -> int:
    """MUST_END once SIGTERM has come, else STAYS."""
    return MUST_END if _asked.is_set() else STAYS


def over() -> None:
    """There is nothing left to save."""
    _over.set()


def _note(number: int, frame: FrameType | None) -> None:
    if _asked.is_set() or _over.is_set():
        raise SystemExit(128 + number)
    _asked.set()
