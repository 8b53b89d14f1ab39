"""Made-up pictures and every kind of broken file, without any data of others."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def scene(seed: int, width: int = 96, height: int = 64) -> Image.Image:
    """A smooth random picture with edges: like a photo, and unlike that of any other seed."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (6, 6, 3), np.uint8))
    picture = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).copy()
    top, left = random.integers(0, height // 2), random.integers(0, width // 2)
    picture[top : top + height // 3, left : left + width // 3] = random.integers(0, 256, 3)
    return Image.fromarray(picture)


def saved(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims any size in a hundred bytes."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    ]
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def changed(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]


def oriented(image: Image.Image, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(image, "JPEG", quality=95, exif=exif)


PHOTO = saved(scene(0))
BAD = {
    "empty.png": (b"", "empty_file"),
    "text.jpg": (b"this is no picture, whatever its name says", "not_an_image"),
    "cut_off.jpg": (PHOTO[: len(PHOTO) * 6 // 10], "broken_image"),
    "header_only.jpg": (PHOTO[:40], "broken_image"),
    "cut_off.png": (saved(scene(0), "PNG")[:600], "broken_image"),
    "bad_checksum.png": (changed(saved(scene(0), "PNG"), 700), "broken_image"),
    "bad_checksum_alone.png": (changed(saved(scene(0), "PNG"), -14), "broken_image"),
    "cut_off.gif": (saved(scene(0).convert("P"), "GIF")[:900], "broken_image"),
    "cut_off.webp": (saved(scene(0), "WEBP")[:200], "broken_image"),
    "bomb.png": (png_header(60_000, 60_000), "too_many_pixels"),
    "large.png": (png_header(9_000, 9_000), "too_many_pixels"),
}
"""Name of a file -> its bytes, and the reason under which it is counted."""


def write_pictures(folder: Path) -> int:
    """30 pictures in the folders of 3 labels, 6 copies, 3 altered copies, a blank one, a broken one; returns how many."""
    for number in range(30):
        place = folder / f"label{number % 3}" / f"scene{number:02d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(saved(scene(number), quality=90))
    (folder / "label9").mkdir()
    for number in range(6):
        (folder / "label9" / f"copy{number}.jpg").write_bytes(saved(scene(number), quality=90))
    for number in range(6, 9):
        (folder / "label9" / f"small{number}.webp").write_bytes(saved(scene(number).resize((48, 32)), "WEBP", quality=80))
    (folder / "label9" / "blank.png").write_bytes(saved(Image.new("RGB", (64, 64), "white"), "PNG"))
    (folder / "label9" / "broken.jpg").write_bytes(PHOTO[:500])
    return 41
