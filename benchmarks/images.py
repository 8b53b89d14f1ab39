"""Decode check and perceptual hash beside imagehash; near-duplicates against brute force (needs ../shared, or RAYSL_SHARED).

Photos: random crops of the three that scikit-learn and matplotlib ship, 550 pixels on the longer side; and, harder,
mosaics of 5 x 5 photos of clothes, 550 x 550 pixels. All saved as JPEG at quality 85.
"""

import importlib.util
import io
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import Figure
from benchmarks.dedup import SHARED
from raysl.data import hamming, image_hash, images
from raysl.data.config import ImagesConfig
from raysl.data.image_clean import HASH_SIDE, digest, failed, least_side
from raysl.data.sources import BadRows, Images

SIDE = 550
NUM_PHOTOS = 300
RUNS = 5
MAX_PIXELS = ImagesConfig().max_pixels
EDITS: dict[str, Callable[[Image.Image], bytes]] = {
    "saved again as JPEG at quality 30": lambda image: saved(image, "JPEG", 30),
    "saved again as WebP at quality 60": lambda image: saved(image, "WEBP", 60),
    "brought to half its size": lambda image: saved(image.resize((image.width // 2, image.height // 2)), "JPEG", 85),
    "brought to twice its size": lambda image: saved(image.resize((image.width * 2, image.height * 2)), "JPEG", 85),
}


def run() -> Iterator[Figure]:
    data = SHARED / "data" / "images"
    if not data.is_dir():
        print(f"skipped: {data} is not there; set RAYSL_SHARED to the folder that holds data/")
        return
    thumbnails = read(str(data / "clothing" / "train.zip"))
    yield from speed("photos", crops(), goal=1500)
    yield from speed("mosaics", [mosaic(thumbnails[start : start + 25]) for start in range(NUM_PHOTOS)], goal=None)
    yield from recall("clothing", thumbnails)
    yield from recall("MedNIST", read(str(data / "mednist" / "mednist.tar")))
    yield from edits(thumbnails[:800])


def read(path: str) -> list[bytes]:
    source = Images(Images.Config(path=path))
    return [picture for part in source.partitions(1000.0) for _, picture, _ in source.images(part, BadRows())]


def saved(image: Image.Image, kind: str, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, quality=quality)
    return file.getvalue()


def mosaic(pictures: Sequence[bytes]) -> bytes:
    """5 x 5 photos of clothes side by side: they have the detail of a large photo, which enlarging one would lack."""
    tile = SIDE // 5
    whole = Image.new("RGB", (SIDE, SIDE))
    for place, picture in enumerate(pictures):
        row, column = divmod(place, 5)
        photo = Image.open(io.BytesIO(picture)).convert("RGB").resize((tile, tile), Image.Resampling.LANCZOS)
        whole.paste(photo, (column * tile, row * tile))
    return saved(whole, "JPEG", 85)


def crops() -> list[bytes]:
    """As many random nine tenths of each of three real photos."""
    random = np.random.default_rng(0)
    found = []
    for path in (sklearn_photo("china.jpg"), sklearn_photo("flower.jpg"), matplotlib_photo("grace_hopper.jpg")):
        photo = Image.open(path).convert("RGB")
        for left, top in random.uniform(0, 0.1, (NUM_PHOTOS // 3, 2)):
            box = (left * photo.width, top * photo.height, (left + 0.9) * photo.width, (top + 0.9) * photo.height)
            crop = photo.crop([round(side) for side in box])
            scale = SIDE / max(crop.size)
            size = (round(crop.width * scale), round(crop.height * scale))
            found.append(saved(crop.resize(size, Image.Resampling.LANCZOS), "JPEG", 85))
    return found


def sklearn_photo(name: str) -> Path:
    return Path(str(resources.files("sklearn.datasets") / "images" / name))


def matplotlib_photo(name: str) -> Path:
    return Path(str(resources.files("matplotlib") / "mpl-data" / "sample_data" / name))


def speed(kind: str, photos: Sequence[bytes], goal: float | None) -> Iterator[Figure]:
    print(f"{len(photos)} {kind}, {np.mean([len(photo) for photo in photos]) / 1000:.0f} KB on average")
    measured = {
        "decode check + hash, channels: 1": hash_grey, "decode check + hash, channels: 3": hash_colour,
        "a whole clean task, 64 pixels, RGB": prepare_all, "Pillow's whole decode alone": decode_whole,
    }  # fmt: skip
    if importlib.util.find_spec("imagehash") is not None:
        measured["imagehash.phash"] = peer
    else:
        print("skipped: imagehash is not installed (pip install imagehash)")
    best = dict.fromkeys(measured, float("inf"))
    for _ in range(RUNS):  # in turns, so that a neighbour on the machine disturbs all of them
        for name, function in measured.items():
            started = time.process_time()
            function(photos)
            best[name] = min(best[name], time.process_time() - started)
    for name, seconds in best.items():
        yield Figure(
            f"{kind}: {name}",
            len(photos) / seconds,
            "/CPU-s",
            at_least=goal if name == "decode check + hash, channels: 1" else None,
        )


def hash_grey(photos: Sequence[bytes]) -> None:
    _hash(photos, channels=1)


def hash_colour(photos: Sequence[bytes]) -> None:
    _hash(photos, channels=3)


def _hash(photos: Sequence[bytes], channels: int) -> image_hash.Hashes:
    pictures = (images.decode(photo, channels, HASH_SIDE, MAX_PIXELS) for photo in photos)
    return image_hash.hashes(np.stack([image_hash.grey_square(picture.image) for picture in pictures]))


def prepare_all(photos: Sequence[bytes]) -> None:
    """Decode, the tests of contrast, digest, hash, resize."""
    settings = ImagesConfig(min_contrast=2, max_aspect=3)
    squares = []
    for photo in photos:
        picture = images.decode(photo, 3, least_side(settings), MAX_PIXELS)
        failed(picture, settings)
        digest(picture)
        images.fitted(picture.image, settings.size, settings.resize)
        squares.append(image_hash.grey_square(picture.image))
    image_hash.hashes(np.stack(squares))


def decode_whole(photos: Sequence[bytes]) -> None:
    for photo in photos:
        Image.open(io.BytesIO(photo)).load()


def peer(photos: Sequence[bytes]) -> None:
    import imagehash

    for photo in photos:
        imagehash.phash(Image.open(io.BytesIO(photo)))


def recall(name: str, pictures: Sequence[bytes], distance: int = 4) -> Iterator[Figure]:
    """All pairs within the distance, by banding and one by one."""
    hashes = np.unique(_hash(pictures, channels=3).bits)
    started = time.process_time()
    found = {
        (min(a, b), max(a, b)) for left, right in hamming.pairs(hashes, distance) for a, b in zip(left, right, strict=True)
    }
    seconds = time.process_time() - started
    true = {(row, int(other)) for row, bits in enumerate(hashes)
            for other in np.flatnonzero(np.bitwise_count(hashes[row + 1 :] ^ bits) <= distance) + row + 1}  # fmt: skip
    yield Figure(f"{name}: pairs within {distance} bits", len(true), f"of {len(hashes)} hashes")
    yield Figure(f"{name}: of these found by banding", len(found & true) / max(len(true), 1), at_least=1)
    yield Figure(f"{name}: found that are none", len(found - true), at_most=0)
    yield Figure(f"{name}: search", seconds, "CPU-s")


def edits(pictures: Sequence[bytes], distance: int = 2) -> Iterator[Figure]:
    """How many altered copies lie within the distance of their original; 2 bits is what `prepare` removes by default."""
    whole = _hash(pictures, channels=3).bits
    for name, edit in EDITS.items():
        altered = _hash([edit(Image.open(io.BytesIO(picture)).convert("RGB")) for picture in pictures], channels=3).bits
        yield Figure(f"{name}: found", float((np.bitwise_count(whole ^ altered) <= distance).mean()), "", at_least=0.95)
    strangers = np.bitwise_count(whole[1:] ^ whole[:-1])
    yield Figure("different photos: bits that differ", float(strangers.mean()), "of 64")
