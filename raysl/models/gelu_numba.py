"""The kernels of gelu.py: GELU and its slope in one pass over the numbers, eight or sixteen at a time.

Written without a call or a branch in the loops, so that LLVM turns them into vector instructions; products and sums may
become one rounding (`contract`), nothing else is reordered. Compiled once per machine (about a second, in numba's cache).
"""

import math
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raysl.kernels import compiled

F32 = NDArray[np.float32]

ONE, HALF = np.float32(1), np.float32(0.5)
SCALE, CUBIC, CUBIC_SLOPE = (np.float32(value) for value in (2 * math.sqrt(2 / math.pi), 0.044715, 3 * 0.044715))

# exp, from Cephes (Moshier, 1989): e^x = 2^n e^r with |r| <= ln(2) / 2, and a polynomial for e^r.
LOWEST, HIGHEST = np.float32(-87), np.float32(87)
PER_LOG_2, LOG_2_HIGH, LOG_2_LOW = (np.float32(value) for value in (1.44269504088896341, 0.693359375, -2.12194440e-4))
ROUNDS = np.float32(3 << 22)
"""Added to a small number it leaves its nearest integer in the last bits."""
E5, E4, E3, E2, E1, E0 = (
    np.float32(value)
    for value in (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
)

# The normal distribution function by way of erf (Abramowitz & Stegun, 1964, 7.1.26), off by at most 7.5e-8.
ERF_P = np.float32(0.3275911 / math.sqrt(2))
ERF_1, ERF_2, ERF_3, ERF_4, ERF_5 = (
    np.float32(value / 2) for value in (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
)
DENSITY = np.float32(1 / math.sqrt(2 * math.pi))


@partial(compiled, inline="always")
def exp(x: Any) -> Any:
    """e^x to the last bit or two of fp32, for x between LOWEST and HIGHEST."""
    shifted = x * PER_LOG_2 + ROUNDS
    n = shifted - ROUNDS
    r = x - n * LOG_2_HIGH - n * LOG_2_LOW
    p = ((((E5 * r + E4) * r + E3) * r + E2) * r + E1) * r + E0
    p = p * (r * r) + r + ONE
    bits = np.float32(p).view(np.int32) + (np.float32(shifted).view(np.int32) << np.int32(23))  # times 2^n
    return np.int32(bits).view(np.float32)


@partial(compiled, fastmath={"contract"})
def tanh_form(x: F32, y: F32, slope: F32) -> None:
    """y = x s with s = sigmoid(z), z = a (x + c x^3), since (1 + tanh(z / 2)) / 2 = sigmoid(z)."""
    for i in range(x.size):
        v = x[i]
        square = v * v
        z = SCALE * v * (ONE + CUBIC * square)
        e = exp(max(min(-z, HIGHEST), LOWEST))
        s = ONE / (ONE + e)
        y[i] = v * s
        slope[i] = s + v * (e * s * s) * SCALE * (ONE + CUBIC_SLOPE * square)


@partial(compiled, fastmath={"contract"})
def exact(x: F32, y: F32, slope: F32) -> None:
    """y = x P(x), P the normal distribution function; its slope is P(x) + x p(x)."""
    for i in range(x.size):
        v = x[i]
        e = exp(max(-HALF * v * v, LOWEST))
        t = ONE / (ONE + ERF_P * abs(v))
        tail = ((((ERF_5 * t + ERF_4) * t + ERF_3) * t + ERF_2) * t + ERF_1) * t * e
        below = ONE - tail if v > 0 else tail
        y[i] = v * below
        slope[i] = below + v * (DENSITY * e)
