"""Pictures are not recorded, only what the model made of them: that is enough to tell drift."""

import asyncio
import base64
import json
from pathlib import Path

import numpy as np
import pytest

from raysl.data.pixels import PixelFormat, to_rows, write_pixels
from raysl.monitor.checks import judge
from raysl.monitor.config import MonitorConfig
from raysl.monitor.window import newest_window, reference_window
from raysl.release.bundle import Bundle, open_bundle
from raysl.release.pictures import first_pictures
from raysl.serve.config import RecordConfig, ServeConfig
from raysl.serve.service import Service, Settings
from tests.pixel_shards import file_of
from tests.serve.tiny_bundle import make_picture_bundle

FORM = PixelFormat(size=4, channels=1, patch_size=4)
CONFIG = MonitorConfig(min_rows=50, num_null_windows=500)


def pictures(count: int, seed: int, darker_by: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    bright = generator.integers(60, 200, (count, 1, 1, 1)) - darker_by
    return np.clip(bright + generator.integers(0, 40, (count, 4, 4, 1)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("pictures")
    names = [str(number) for number in range(200)]
    rows = to_rows(pictures(200, seed=0), FORM)
    write_pixels(folder / "pixels" / "train" / "shard-0.arrow", names, [None] * 200, rows, FORM)
    return open_bundle(make_picture_bundle(folder / "bundle", first_pictures(folder, 200)))


@pytest.mark.parametrize(("darker_by", "verdict"), [(0, "normal"), (50, "drift")])
@pytest.mark.parametrize("kept", [0, 10_000])
def test_darker_pictures_are_drift_and_more_of_the_same_are_not(
    bundle: Bundle, tmp_path: Path, darker_by: int, verdict: str, kept: int
) -> None:
    record = RecordConfig(max_text_chars=kept)
    service = Service(Settings("x", tmp_path, 1, bundle.folder, ServeConfig(tasks=("classify",), record=record)), "writer")
    for picture in pictures(100, seed=1, darker_by=darker_by):
        sent = json.dumps({"image": base64.b64encode(file_of(picture)).decode()}).encode()
        asyncio.run(service.ask("classify", sent, f"{picture[0, 0, 0]}-{len(sent)}"))
    service.close()
    window = newest_window(tmp_path, bundle, 1, 1000, kept)
    result = judge(reference_window(bundle, kept), window, CONFIG, 1, "classify")
    assert (len(window), result.verdict) == (100, verdict)
    assert [check.name for check in result.checks] == ["inputs", "confidence", "predictions"]
