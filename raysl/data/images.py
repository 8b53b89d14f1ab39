"""Bytes of a picture -> upright grey or RGB pixels of one size. What `prepare` does to a picture, a service does too.

Only the formats below are read (Pillow knows others that start programs). A header is judged before anything is decoded.
"""

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

Pixels = npt.NDArray[np.uint8]
Resize = Literal["crop", "pad", "stretch"]

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pnm", ".avif")
EMPTY, NOT_AN_IMAGE, BROKEN, TOO_MANY_PIXELS = "empty_file", "not_an_image", "broken_image", "too_many_pixels"
BREAKS = (
    OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, OverflowError, RuntimeError, struct.error,
    zlib.error,
)  # fmt: skip
"""What Pillow's readers raise on damaged bytes; a RuntimeError is a damaged AVIF."""
ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""EXIF orientation -> what turns the stored picture as it is to be seen."""


class BadImage(Exception):
    """Bytes that are no usable picture; `reason` is one of the names above."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Picture:
    """A decoded picture, upright; JPEG may be decoded at a half, a quarter or an eighth."""

    image: Image.Image
    """Mode L or RGB."""
    width: int
    """Pixels of the whole picture, as it is to be seen."""
    height: int


def decode(data: bytes, channels: int, least_side: int, max_pixels: int) -> Picture:
    """The first frame, upright, of mode L (1 channel) or RGB (3), transparency on white, 16 bits brought to 8.

    JPEG is decoded at the smallest scale whose sides are at least `least_side` (or whole): four times as fast, and every
    byte is still read, so a file that is cut off is found. Raises BadImage.
    """
    image = _opened(data, max_pixels)
    width, height = image.size
    try:
        image.draft("L" if channels == 1 else "RGB", (least_side, least_side))
        image.load()
        orientation = _orientation(image)
        image = _plain(image, "L" if channels == 1 else "RGB")
    except BREAKS as error:
        raise BadImage(BROKEN) from error
    if orientation in UPRIGHT:
        image = image.transpose(UPRIGHT[orientation])
    return Picture(image, *((height, width) if orientation >= 5 else (width, height)))


def _opened(data: bytes, max_pixels: int) -> Image.Image:
    """The header, judged; of PNG also all checksums, since its reader skips those of the pixels."""
    if not data:
        raise BadImage(EMPTY)
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.size[0] * image.size[1] > max_pixels:
            raise BadImage(TOO_MANY_PIXELS)
        if image.format == "PNG":
            Image.open(io.BytesIO(data), formats=("PNG",)).verify()
    except Image.DecompressionBombError as error:
        raise BadImage(TOO_MANY_PIXELS) from error
    except UnidentifiedImageError as error:
        raise BadImage(NOT_AN_IMAGE) from error
    except BREAKS as error:
        raise BadImage(BROKEN) from error
    return image


def _orientation(image: Image.Image) -> int:
    """1 where nothing is said, or in a way that nobody can read. Pillow turns TIFF by itself while it loads."""
    if not {"exif", "xmp", "Raw profile type exif"} & image.info.keys():
        return 1
    try:
        said = image.getexif().get(ORIENTATION, 1)
    except BREAKS:
        return 1
    return said if said in UPRIGHT else 1


def _plain(image: Image.Image, mode: str) -> Image.Image:
    """The picture in `mode`."""
    if image.mode == mode and not image.has_transparency_data:
        return image
    if image.mode.startswith("I;16"):  # Pillow itself cuts all values above 255
        image = Image.fromarray((np.asarray(image).astype(np.uint32) * 255 // 65535).astype(np.uint8))
    elif image.mode in ("I", "F"):
        image = Image.fromarray(_stretched(np.asarray(image, np.float64)))
    elif image.has_transparency_data:
        colours = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), colours)
    return image.convert("RGB").convert(mode)


def _stretched(values: npt.NDArray[np.float64]) -> Pixels:
    """32-bit values have no white of their own: the darkest becomes 0, the brightest 255. NaN says nothing and is dark."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    return ((values - low) * (255 / (high - low) if high > low else 0)).astype(np.uint8)


def fitted(image: Image.Image, size: int, resize: Resize) -> Image.Image:
    """The picture as a square: its middle (`crop`), all of it on black (`pad`), or squeezed (`stretch`)."""
    width, height = image.size
    if resize == "pad":
        scale = size / max(width, height)
        inner = image.resize((max(round(width * scale), 1), max(round(height * scale), 1)), Image.Resampling.BICUBIC)
        square = Image.new(image.mode, (size, size))
        square.paste(inner, ((size - inner.width) // 2, (size - inner.height) // 2))
        return square
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (0, 0, width, height) if resize == "stretch" else (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box)


def to_pixels(image: Image.Image) -> Pixels:
    """(height, width, channel)"""
    values = np.asarray(image)
    return values[..., None] if values.ndim == 2 else values


def contrast(grey: Image.Image) -> float:
    """Standard deviation of the grey values: 0 for a blank picture, about 60 for a photo."""
    return float(np.asarray(grey).std())


def sharpness(grey: Image.Image, side: int) -> float:
    """Variance of the Laplacian (Pech-Pacheco et al., 2000), little where blurred; measured at `side` pixels at most."""
    grey = grey.copy()
    grey.thumbnail((side, side), Image.Resampling.BICUBIC)
    values = np.asarray(grey, np.float32)
    if min(values.shape) < 3:
        return 0.0
    inner = values[1:-1, 1:-1]
    edges = values[:-2, 1:-1] + values[2:, 1:-1] + values[1:-1, :-2] + values[1:-1, 2:] - 4 * inner
    return float(edges.var())
