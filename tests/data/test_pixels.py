"""Pixel rows read back as images and as patches."""

from pathlib import Path

import numpy as np
import pytest

from raysl.data import rows as rows_module
from raysl.data.pixels import PixelFormat, PixelRows, to_images, to_patches, to_rows, write_pixels
from raysl.errors import DataError

FORM = PixelFormat(size=8, channels=3, patch_size=4)


def random_images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8)


@pytest.mark.parametrize("patch_size", [1, 2, 4, 8])
def test_images_come_back_whatever_the_patches(patch_size: int) -> None:
    form = PixelFormat(8, 3, patch_size)
    images = random_images(5)
    assert (to_images(to_rows(images, form), form) == images.transpose(0, 3, 1, 2)).all()


def test_a_patch_is_a_square_of_the_image() -> None:
    images = random_images(2)
    patches = to_patches(to_rows(images, FORM), FORM)
    assert patches.shape == (2, 4, 48)
    assert (patches[1, 2] == images[1, 4:, :4].ravel()).all()


def test_rows_are_numbered_over_all_shards(tmp_path: Path) -> None:
    images = random_images(5)
    rows = to_rows(images, FORM)
    write_pixels(tmp_path / "shard-00000.arrow", ["a", "b"], ["cat", None], rows[:2], FORM)
    write_pixels(tmp_path / "shard-00001.arrow", ["c", "d", "e"], ["dog"] * 3, rows[2:], FORM)
    found = PixelRows(tmp_path)
    assert (len(found), found.form) == (5, FORM)
    assert [bool((found.row(i) == rows[i]).all()) for i in range(5)] == [True] * 5
    assert (found.ids, found.labels) == (list("abcde"), ["cat", None, "dog", "dog", "dog"])


def test_no_more_shards_are_open_than_a_process_may_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those read last stay open."""
    monkeypatch.setattr(rows_module, "MAX_OPEN", 3)
    images = to_rows(random_images(8), FORM)
    for number in range(8):
        write_pixels(tmp_path / f"shard-{number:05d}.arrow", [str(number)], [None], images[number : number + 1], FORM)
    opened, found = list[int](), PixelRows(tmp_path)
    monkeypatch.setattr(PixelRows, "_open", lambda rows, path, whole=PixelRows._open: (
        opened.append(int(path.stem[-5:])), whole(rows, path))[1])  # fmt: skip
    for number in (0, 1, 2, 0, 3, 0, 1, 7):
        assert (found.row(number) == images[number]).all()
        assert len(found._opened) <= 3
    assert opened == [0, 1, 2, 3, 1, 7]


def test_no_shards_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="raysl prepare"):
        PixelRows(tmp_path)
