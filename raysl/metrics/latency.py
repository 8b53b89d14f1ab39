"""How long answers took."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Latency:
    """Percentiles in ms."""

    p50_ms: float
    p95_ms: float
    p99_ms: float


def latency(milliseconds: Sequence[float]) -> Latency:
    """Percentiles of at least one measurement."""
    p50, p95, p99 = (round(float(value), 3) for value in np.percentile(milliseconds, [50, 95, 99]))
    return Latency(p50, p95, p99)
