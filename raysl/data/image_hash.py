"""Perceptual hash of a picture: signs of the 64 lowest frequencies of its cosine transform (after Zauner, 2010).

Whole-number arithmetic in float64, so a picture has the same hash on every machine and in every batch. A picture with too
little structure (blank, one smooth edge) has none: the hashes of all such pictures would be alike.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

SIDE = 32
"""Pixels along each side of the grey picture that is transformed."""
NUM_FREQUENCIES = 11
"""Along each axis: the 64 lowest of both lie among them."""
NOISE = 8.0
"""Coefficients (orthonormal, in grey values) up to here say nothing: JPEG and rounding change them. Their bit is 0."""
MIN_TERMS = 12
"""Coefficients beyond noise that a hash needs."""
_SCALE = 4096
_PAIRS = [(down, across) for down in range(NUM_FREQUENCIES) for across in range(NUM_FREQUENCIES) if down + across]
_TERMS = sorted(_PAIRS, key=lambda pair: (sum(pair), pair))[:64]


@dataclass(frozen=True)
class Hashes:
    """Hashes of many pictures."""

    bits: npt.NDArray[np.uint64]
    """(n,)"""
    known: npt.NDArray[np.bool_]
    """(n,); False for pictures without structure, whose bits are 0."""


def grey_square(image: Image.Image) -> npt.NDArray[np.uint8]:
    """What is hashed: (SIDE, SIDE) grey values of the whole picture, squeezed."""
    grey = image if image.mode == "L" else image.convert("L")
    return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def hashes(squares: npt.NDArray[np.uint8]) -> Hashes:
    """Hashes of grey squares (n, SIDE, SIDE)."""
    values = squares.astype(np.float64)
    centred = values * SIDE**2 - values.sum((1, 2), keepdims=True)  # whole numbers without a constant part
    cosines = _cosines()
    coefficients = cosines @ centred @ cosines.T  # (n, frequencies, frequencies); below 2**53, so exact
    rows, columns = np.array(_TERMS).T
    terms = coefficients[:, rows, columns]  # (n, 64)
    noise = NOISE * _SCALE**2 * SIDE**2
    known = (np.abs(terms) > noise).sum(1) >= MIN_TERMS
    bits = np.packbits((terms > noise) & known[:, None], axis=1)
    return Hashes(np.ascontiguousarray(bits).view(">u8").astype(np.uint64).reshape(len(squares)), known)


def _cosines() -> npt.NDArray[np.float64]:
    """The lowest rows of the orthonormal cosine transform, as whole numbers in units of 1/_SCALE."""
    frequency, place = np.arange(NUM_FREQUENCIES)[:, None], np.arange(SIDE)
    length = np.sqrt(np.where(frequency == 0, 1, 2) / SIDE)
    return np.asarray(np.rint(_SCALE * length * np.cos(np.pi * frequency * (2 * place + 1) / (2 * SIDE))))
