"""Peak memory of this process."""

import contextlib
import re
import resource
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")


def peak_mb() -> float:
    """Largest resident memory in MB since `reset_peak`; where the system cannot reset it, since the process began."""
    if STATUS.is_file():
        found = re.search(r"VmHWM:\s+(\d+)", STATUS.read_text())
        if found is not None:
            return round(int(found[1]) * 1024 / 1e6, 1)
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)


def reset_peak() -> None:
    """Forgets the peak of what ran before in this process (Linux only)."""
    with contextlib.suppress(OSError):  # a system without it reports the peak of the whole process
        Path("/proc/self/clear_refs").write_text("5")
