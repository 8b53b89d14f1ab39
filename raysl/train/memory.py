"""Memory that a CPU training step frees stays in the process for the next step.

glibc hands large blocks back to the system at once and gets them back page by page, zeroed: thousands of page faults in
each step. In a thread it takes `cluster.FOR_WORKERS` as well.
"""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Tells glibc; other C libraries are left alone. The process then never shrinks below its peak."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, NEVER)
