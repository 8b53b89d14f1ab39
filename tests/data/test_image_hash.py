"""Perceptual hashes: alike for alike pictures, far apart for others, absent where there is nothing to see."""

import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn

from raysl.data import image_hash
from raysl.data.image_hash import NOISE, grey_square, hashes
from tests.data.pictures import saved, scene


def hashed(*pictures: Image.Image) -> image_hash.Hashes:
    return hashes(np.stack([grey_square(picture) for picture in pictures]))


def bits_between(a: Image.Image, b: Image.Image) -> int:
    left, right = hashed(a, b).bits
    return int(np.bitwise_count(left ^ right))


def test_the_bits_are_signs_of_the_lowest_frequencies() -> None:
    square = grey_square(scene(1))
    terms = dctn(square.astype(float), norm="ortho")
    wanted = [terms[down, across] > NOISE for down, across in image_hash._TERMS]
    assert image_hash._TERMS[:5] == [(0, 1), (1, 0), (0, 2), (1, 1), (2, 0)]
    assert [bool(bit) for bit in np.unpackbits(hashes(square[None]).bits.astype(">u8").view(np.uint8))] == wanted


def test_other_pictures_are_far() -> None:
    found = hashed(*(scene(seed) for seed in range(40)))
    apart = np.bitwise_count(found.bits[:, None] ^ found.bits[None])[np.triu_indices(40, 1)]
    assert found.known.all()
    assert apart.min() > 10
    assert 25 < apart.mean() < 36


@pytest.mark.parametrize("seed", range(5))
def test_saving_again_and_resizing_change_few_bits(seed: int) -> None:
    from io import BytesIO

    picture = scene(seed, 192, 128)
    assert bits_between(picture, Image.open(BytesIO(saved(picture, "JPEG", quality=30)))) <= 4
    assert bits_between(picture, picture.resize((96, 64))) <= 2
    assert bits_between(picture, Image.fromarray((np.asarray(picture) * 0.9).astype(np.uint8))) <= 4


def test_a_picture_without_structure_has_no_hash() -> None:
    ramp = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1)))
    noise = np.random.default_rng(0).integers(126, 129, (64, 64), np.uint8)
    found = hashed(Image.new("L", (9, 9), 0), Image.new("RGB", (50, 20), "white"), Image.fromarray(noise), ramp, scene(1))
    assert found.known.tolist() == [False, False, False, False, True]
    assert found.bits[:4].tolist() == [0, 0, 0, 0]


def test_a_hash_is_the_same_in_every_batch() -> None:
    squares = np.stack([grey_square(scene(seed)) for seed in range(20)])
    alone = np.concatenate([hashes(square[None]).bits for square in squares])
    assert (hashes(squares).bits == alone).all()
