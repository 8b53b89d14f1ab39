"""Stored pictures become the pixel shards that prepare would have written."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raysl.data.config import PrepareConfig
from raysl.data.decode import EncodedRows, decode_file, write_encoded
from raysl.data.image_clean import ImageCleaner
from raysl.data.image_plan import ImagePlanner
from raysl.data.image_shards import PixelWriter
from raysl.data.labelled import Pictures, read_split
from raysl.data.pixels import PixelRows, Pixels
from raysl.data.shard_facts import shard_facts
from raysl.data.sources import Images
from raysl.data.statistics import count
from raysl.errors import DataError
from raysl.train import inputs
from tests.picture_shards import HOW, pictures, write_prepared


def test_a_decoded_shard_is_the_prepared_one_byte_for_byte(tmp_path: Path) -> None:
    for encoded in (True, False):
        write_prepared(tmp_path / str(encoded), encoded)
    name = "train/shard-00003.arrow"
    decoded = decode_file(str(tmp_path / "True/prepare/encoded" / name))
    assert decoded == (tmp_path / "False/prepare/pixels" / name).read_bytes()


def test_stored_pictures_have_the_statistics_of_their_pixels(tmp_path: Path) -> None:
    for encoded in (True, False):
        write_prepared(tmp_path / str(encoded), encoded)
    assert count(tmp_path / "True/prepare") == count(tmp_path / "False/prepare")


def test_rows_and_labels_of_stored_pictures(tmp_path: Path) -> None:
    files = pictures(5)
    write_encoded(tmp_path / "shard-00000.arrow", list("abcde"), ["x", None, "y", "y", "x"], files, HOW)
    rows = EncodedRows(tmp_path)
    assert (len(rows), rows.labels, rows.form) == (5, ["x", None, "y", "y", "x"], HOW.form)
    assert np.array_equal(rows.row(3), HOW.row(files[3], "d"))
    assert shard_facts(tmp_path / "shard-00000.arrow").said["resize"] == "crop"


def test_only_the_pictures_that_are_taken_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def watched(self: EncodedRows, index: int) -> Pixels:
        read.append(index)
        row: Pixels = PixelRows.row(self, index)
        return row

    write_prepared(tmp_path, encoded=True)
    whole = EncodedRows(tmp_path / "prepare" / "encoded" / "train")
    monkeypatch.setattr(EncodedRows, "row", watched)
    chosen = read_split(tmp_path / "prepare", "train").take([9, 2, 5]).take(np.array([2, 1]))
    assert isinstance(chosen, Pictures)
    monkeypatch.setattr(inputs, "KEPT_BYTES", 1000)
    rows = inputs.rows_of(chosen, tmp_path, 0)
    assert (chosen.ids, len(rows)) == ([whole.ids[5], whole.ids[2]], 2)
    assert read == [5]  # how large a row is
    read.clear()
    elsewhere = pickle.loads(pickle.dumps(chosen))
    assert read == [5, 2]
    shutil.rmtree(tmp_path)
    assert np.array_equal(np.stack(elsewhere.pixels), np.stack([PixelRows.row(whole, 5), PixelRows.row(whole, 2)]))


def test_a_picture_that_is_damaged_afterwards_is_named(tmp_path: Path) -> None:
    write_encoded(tmp_path / "shard-00000.arrow", ["good", "cut-off"], [None, None], [pictures(1)[0], b"\xff\xd8"], HOW)
    with pytest.raises(DataError, match=r"cut-off in .*shard-00000\.arrow cannot be decoded: .*raysl prepare"):
        decode_file(str(tmp_path / "shard-00000.arrow"))


def test_a_shard_that_is_cut_off_is_named(tmp_path: Path) -> None:
    (tmp_path / "shard-00000.arrow").write_bytes(b"ARROW1 and no more")
    with pytest.raises(DataError, match=r"shard-00000\.arrow is no whole shard"):
        PixelRows(tmp_path)


def prepared_by_hand(folder: Path, config: PrepareConfig) -> Path:
    """The steps of the recipe for pictures, without Ray."""
    assert config.images is not None
    source, unit, plan = Images(config.source), folder / "work" / "clean-00000", folder / "work" / "plan"
    ImageCleaner(config, config.images, 0)(source.partitions(100)[0], unit)
    ImagePlanner(config.images, config.split, 0)([unit], plan)
    PixelWriter(folder, config.images)(unit, plan, 0, folder / "work" / "done.json")
    return folder


def test_pictures_that_prepare_stores_have_the_pixels_that_it_would_have_stored(tmp_path: Path) -> None:
    """JPEG of several hundred pixels, which are decoded at a reduced scale."""
    (tmp_path / "photos").mkdir()
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (9, 12, 3), np.uint8).repeat(40, 0).repeat(40, 1)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number:02d}.jpg")
    for store in ("pixels", "encoded"):
        settings = {"size": 16, "store": store, "max_distance": None}
        section = {"source": {"type": "images", "path": str(tmp_path / "photos")}, "images": settings}
        prepared_by_hand(tmp_path / store, PrepareConfig.model_validate(section))
    shards = sorted((tmp_path / "pixels" / "pixels").rglob("shard-*.arrow"))
    assert sum(shard_facts(path).rows for path in shards) == 12
    for path in shards:
        stored = tmp_path / "encoded" / "encoded" / path.relative_to(tmp_path / "pixels" / "pixels")
        assert decode_file(str(stored)) == path.read_bytes()
    assert not (tmp_path / "encoded" / "pixels").exists()
