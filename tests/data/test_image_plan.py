"""Units and plan as plain functions: the same decision however the pictures are divided, stored as pixels or as found."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysl.data.config import ImagesConfig, PrepareConfig, SplitConfig
from raysl.data.dedup import PLAN
from raysl.data.image_clean import ImageCleaner
from raysl.data.image_plan import ImagePlanner, PreparedRows
from raysl.data.image_shards import PixelWriter, shard_name
from raysl.data.pixels import PixelRows
from raysl.data.sources import Images
from tests.data.pictures import write_pictures


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan") / "pictures"
    write_pictures(folder)
    return folder


def plan(
    pictures: Path, folder: Path, partition_mb: float, **keys: Any
) -> tuple[dict[str, Any], list[pa.Table], list[Path]]:
    """What the planner says, its tables (what stays, duplicates, conflicts), and the units."""
    settings = ImagesConfig(size=16, min_contrast=2, max_distance=4, **keys)
    source = Images.Config(path=str(pictures))
    clean = ImageCleaner(PrepareConfig(source=source, images=settings), settings, 3)
    parts = Images(source).partitions(partition_mb)
    units = [folder / f"clean-{number:05d}" for number in range(len(parts))]
    for part, unit in zip(parts, units, strict=True):
        clean(part, unit)
    stats = ImagePlanner(settings, SplitConfig(validation=0.2, test=0.3), 3)(units, folder / "plan")
    kept = pa.concat_tables([pq.read_table(path) for path in sorted((folder / "plan").glob("part-*.parquet"))])
    others = [pq.read_table(folder / "plan" / f"{name}.parquet") for name in ("duplicates", "conflicts")]
    return stats, [kept.drop_columns("row"), *others], units


def test_the_decision_does_not_depend_on_the_partitions(pictures: Path, tmp_path: Path) -> None:
    whole_stats, whole, units = plan(pictures, tmp_path / "whole", 100)
    cut_stats, cut, many = plan(pictures, tmp_path / "cut", 0.001)
    assert len(units) == 1
    assert len(many) > 30
    assert cut == whole
    assert cut_stats == whole_stats
    assert len(whole[0]) == 30


def test_pictures_stored_as_found_give_the_same_plan_and_examples(pictures: Path, tmp_path: Path) -> None:
    pixels_stats, pixels, units = plan(pictures, tmp_path / "pixels", 0.02)
    found_stats, found, encoded = plan(pictures, tmp_path / "found", 0.02, store="encoded")
    assert found == pixels
    assert found_stats == pixels_stats
    assert len(found_stats["examples"]["near_duplicate"]) == 3
    settings = ImagesConfig(size=16)
    rows = [PreparedRows(u, s) for u, s in ((units, settings), (encoded, settings.model_copy(update={"store": "encoded"})))]
    assert all((rows[0].pixels(row) == rows[1].pixels(row)).all() for row in range(39))


@pytest.mark.parametrize("store", ["pixels", "encoded"])
def test_large_pictures_are_written_before_they_fill_the_memory(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    whole = plan(pictures, tmp_path / "whole", 100, store=store)[1]
    monkeypatch.setattr("raysl.data.image_clean.BATCH_BYTES", 5_000)  # six squares of 16 pixels
    _, found, units = plan(pictures, tmp_path / "small", 100, store=store)
    assert found == whole
    batches = pa.ipc.open_file(units[0] / "rows.arrow")
    sizes = [batches.get_batch(number).num_rows for number in range(batches.num_record_batches)]
    assert sizes == [7, 7, 7, 7, 7, 4] if store == "pixels" else len(sizes) > 5


def test_a_shard_reads_its_own_pictures_of_a_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row group may hold 50,000 pictures: all of them were joined in memory for each shard."""
    size, count = 64 * 64 * 3, 100
    monkeypatch.setattr("raysl.data.image_shards.SHARD_BYTES", 10 * size)
    rows = pa.FixedSizeListArray.from_arrays(pa.array(np.repeat(np.arange(count, dtype=np.uint8), size)), size)
    batches = pa.table([rows], names=["pixels"]).to_batches(max_chunksize=1)
    with pa.ipc.new_file(tmp_path / "rows.arrow", batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    names = [str(place) for place in range(count)]
    part = pa.table([range(count), names, [None] * count, range(count), ["train"] * count], schema=PLAN)
    before, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(pool)
    try:
        PixelWriter(tmp_path, ImagesConfig(size=64))._write_split(tmp_path, part, "train", 0)
    finally:
        pa.set_memory_pool(before)
    assert PixelRows(tmp_path / "pixels" / "train").row(57)[0] == 57
    assert pool.max_memory() < 40 * size


def test_shards_of_a_large_unit_take_no_name_of_the_next() -> None:
    """They were written over: a row group of a million pictures makes 2,300 shards of 224 pixels."""
    assert [shard_name(2, place) for place in (0, 999)] == ["shard-00002000.arrow", "shard-00002999.arrow"]
    names = [shard_name(unit, place) for unit in range(3) for place in range(1003)]
    assert sorted(set(names)) == names
