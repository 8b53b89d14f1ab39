"""`prepare` on pictures with a real Ray cluster: what it leaves behind, and that it is the same after every interruption."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from raysl import report, run_config, schema, storage
from raysl.data.images import decode, fitted, to_pixels
from raysl.data.pipeline import prepare
from raysl.data.pixels import PixelFormat, PixelRows, to_images
from raysl.errors import ConfigError, DataError
from raysl.run_config import RunConfig
from raysl.stage import Manifest, read_manifest
from tests.data.pictures import BAD, saved, scene, write_pictures

pytestmark = pytest.mark.ray

DRIVER = """
import sys
from raysl import cluster
from raysl.data.pipeline import prepare
from raysl.run_config import load
cluster.connect(num_cpus=int(sys.argv[2]))
print("made", prepare(load(sys.argv[1])).content_hash)
"""


def make_config(folder: Path, images: dict[str, Any] | None = None, **keys: Any) -> RunConfig:
    pictures = folder / "pictures"
    if not pictures.is_dir():
        write_pictures(pictures)
    data = {
        "name": "pictures", "run_dir": str(folder / "run"), "seed": 3,
        "prepare": {
            "source": {"type": "images", "path": str(pictures)}, "partition_mb": 0.02,
            "images": {"size": 16, "patch_size": 8, "min_contrast": 2, "max_distance": 4, **(images or {})},
            "split": {"validation": 0.2, "test": 0.3}, **keys,
        },
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(data))
    return run_config.load(folder / "config.yaml")


@pytest.fixture(scope="module")
def prepared(ray_cluster: Path) -> tuple[Path, Manifest]:
    config = make_config(ray_cluster)
    return config.folder / "prepare", prepare(config)


def test_every_picture_is_kept_or_named_with_a_reason(prepared: tuple[Path, Manifest]) -> None:
    folder, manifest = prepared
    assert manifest.counts["documents_in"] == 41
    assert manifest.counts["dropped"] == {"blank": 1, "broken_image": 1, "exact_duplicate": 6, "near_duplicate": 3}
    assert manifest.counts["kept"] == sum(manifest.counts["images"].values()) == 30
    removed = pq.read_table(folder / "removed.parquet")
    assert removed.schema.equals(schema.REMOVED_IMAGE)
    by_id = {row["id"]: row for row in removed.to_pylist()}
    copy = {"id": "label9/copy3.jpg", "reason": "exact_duplicate", "kept_id": "label0/scene03.jpg", "distance": 0}
    assert by_id["label9/copy3.jpg"] == copy
    assert by_id["label9/small7.webp"]["kept_id"] == "label1/scene07.jpg"
    assert by_id["label9/small7.webp"]["distance"] <= 4
    assert by_id["label9/broken.jpg"]["kept_id"] is None


def test_shards_hold_the_pictures_as_a_service_would_see_them(prepared: tuple[Path, Manifest]) -> None:
    folder, _ = prepared
    found = 0
    for split in schema.SPLITS:
        rows = PixelRows(folder / "pixels" / split)
        assert rows.form == PixelFormat(16, 3, 8)
        for index, (name, label) in enumerate(zip(rows.ids, rows.labels, strict=True)):
            data = (folder.parents[1] / "pictures" / name).read_bytes()
            wanted = to_pixels(fitted(decode(data, 3, 64, 10**6).image, 16, "crop"))
            assert (to_images(rows.row(index)[None], rows.form)[0] == wanted.transpose(2, 0, 1)).all()
            assert label == name.split("/")[0]
        found += len(rows)
    assert found == 30


def test_the_table_of_images_has_clusters_and_splits(prepared: tuple[Path, Manifest]) -> None:
    folder, manifest = prepared
    table = pa.concat_tables(pq.read_table(path) for path in sorted((folder / "images").glob("*.parquet")))
    assert table.schema.equals(schema.IMAGE)
    assert len(table) == 30
    assert {split: table["split"].to_pylist().count(split) for split in schema.SPLITS} == manifest.counts["images"]


def test_twins_with_other_labels_are_reported(prepared: tuple[Path, Manifest]) -> None:
    folder, manifest = prepared
    conflicts = pq.read_table(folder / "label_conflicts.parquet").to_pylist()
    assert manifest.counts["label_conflicts"] == len(conflicts) == 9
    assert {"id": "label0/scene03.jpg", "label": "label0", "labels": ["label0", "label9"]} in conflicts


def test_the_report_shows_removed_pictures(ray_cluster: Path, prepared: tuple[Path, Manifest]) -> None:
    said = storage.read_json(prepared[0] / "report.json")
    assert [len(said["examples"][reason]) for reason in ("blank", "broken_image", "near_duplicate")] == [1, 1, 3]
    assert said["examples"]["blank"][0]["image"].startswith("data:image/jpeg;base64,")
    assert said["examples"]["broken_image"][0]["image"] == ""
    assert said["labels"] == {"label0": 10, "label1": 10, "label2": 10}
    page = report.build(make_config(ray_cluster)).read_text()
    assert "41 in, 30 kept" in page
    assert page.count('<img src="data:image/jpeg;base64,') == 10
    assert "kept: label0/scene03.jpg" in page


def test_a_written_config_repeats_the_run(ray_cluster: Path, prepared: tuple[Path, Manifest]) -> None:
    from raysl import config as base

    written = ray_cluster / "written.yaml"
    written.write_text(base.dump(make_config(ray_cluster)))
    assert "tokenizer" not in written.read_text()
    assert prepare(run_config.load(written)).content_hash == prepared[1].content_hash


def test_every_broken_file_has_its_reason(ray_cluster: Path) -> None:
    folder = ray_cluster / "bad"
    (folder / "pictures").mkdir(parents=True)
    for name, (data, _) in BAD.items():
        (folder / "pictures" / name).write_bytes(data)
    with pytest.raises(DataError, match=r"11 of 11 rows cannot be used .*max_bad_share"):
        prepare(make_config(folder))
    for number in range(12):
        (folder / "pictures" / f"good{number}.png").write_bytes(saved(scene(number), "PNG"))
    config = make_config(folder)
    assert prepare(config).counts["kept"] == 12
    rows = pq.read_table(config.folder / "prepare" / "removed.parquet").to_pylist()
    assert {row["id"]: row["reason"] for row in rows} == {name: reason for name, (_, reason) in BAD.items()}


def test_filters_that_leave_nothing_say_so(ray_cluster: Path) -> None:
    (ray_cluster / "small").mkdir()
    with pytest.raises(DataError, match="nothing is left of 41 images; most were dropped as 'too_small'"):
        prepare(make_config(ray_cluster / "small", {"min_side": 1000}))


def test_digits_need_no_file(ray_cluster: Path) -> None:
    config = make_config(ray_cluster, {"size": 8, "channels": 1, "max_distance": None}, source="digits")
    config = config.model_copy(update={"run_dir": str(ray_cluster / "digits")})
    assert prepare(config).counts["kept"] == 1797
    assert to_images(PixelRows(config.folder / "prepare/pixels/train").row(0)[None], PixelFormat(8, 1, 8)).shape == (
        1,
        1,
        8,
        8,
    )


def test_a_key_for_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"`tokenizer` is not for images, .*Keys for images: images, split"):
        make_config(tmp_path, tokenizer={"vocab_size": 500})
    with pytest.raises(ConfigError, match=r"patch_size must divide size, got size 16 and patch_size 5"):
        make_config(tmp_path, {"patch_size": 5})


def start(folder: Path, num_cpus: int) -> subprocess.Popen[str]:
    make_config(folder)
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(folder / "config.yaml"), str(num_cpus)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip


def written(path: Path) -> int | None:
    """When `path` was written; None once it is gone, as all of them are when the stage is done."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def test_same_bytes_with_one_worker_and_after_a_kill(prepared: tuple[Path, Manifest], tmp_path: Path) -> None:
    shutil.copytree(prepared[0].parents[1] / "pictures", tmp_path / "pictures")
    first = tmp_path / "run" / "prepare" / "work" / "clean-00001"
    process = start(tmp_path, num_cpus=2)
    deadline = time.monotonic() + 240
    while not first.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    assert process.poll() is None, process.communicate()[1][-3000:]
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    one_file = min(path for path in first.rglob("*") if path.is_file())
    made = written(one_file)
    assert read_manifest(tmp_path / "run", "prepare") is None
    process = start(tmp_path, num_cpus=1)
    while process.poll() is None and (now := written(one_file)) is not None:
        assert now == made  # not made again
        time.sleep(0.01)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]
    assert f"made {prepared[1].content_hash}" in output.splitlines()
