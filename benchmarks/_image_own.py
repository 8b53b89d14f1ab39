"""Our side of the image benchmarks: the real Trainer on pixel shards, one process, one thread, without Ray.

`python -m benchmarks._image_own augment|simclr|mae --batch N --steps N --precision fp32|bf16` prints one JSON line with the
keys of the peers' scripts.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raysl.catalog import OBJECTIVES
from raysl.data.pixels import PixelFormat, PixelRows, channel_statistics, to_images, to_rows, write_pixels
from raysl.models import load
from raysl.models.vision import ImageFormat
from raysl.objectives.augment import NUM_UNIFORM, views
from raysl.objectives.image_config import AugmentConfig
from raysl.train.config import PretrainConfig
from raysl.train.loop import Trainer
from raysl.train.memory import keep_freed_memory
from raysl.train.world import single

FORM = PixelFormat(32, 3, 4)
RUNS: dict[str, dict[str, Any]] = {
    "simclr": {
        "objective": {"type": "simclr", "temperature": 0.5, "projection_width": 128},
        "model": {"type": "resnet", "depth": 18, "width": 64, "stem": "small"},
    },
    "mae": {
        "objective": {"type": "mae", "decoder_layers": 4, "decoder_width": 96, "decoder_heads": 3},
        "model": {"type": "vit", "num_layers": 12, "width": 192, "num_heads": 3, "patch_size": 4},
    },
}
"""The networks of peers/train/simclr.py and mae.py."""


def augment(batch: int, steps: int, pixels: np.ndarray[Any, Any]) -> dict[str, Any]:
    """From rows as they lie on disk to two views of each."""
    generator, seconds = np.random.default_rng(0), []
    for _ in range(steps + 3):
        started = time.process_time()
        images = torch.from_numpy(to_images(pixels[generator.integers(0, len(pixels), batch)], FORM))
        numbers = torch.from_numpy(generator.random((2 * batch, NUM_UNIFORM))).float()
        views(images.repeat(2, 1, 1, 1), numbers, AugmentConfig())
        seconds.append(time.process_time() - started)
    return {"step_cpu_s": statistics.median(seconds[3:])}


def train(kind: str, batch: int, steps: int, precision: str, folder: Path) -> dict[str, Any]:
    """CPU seconds of one step are the median; the first three are left out."""
    config = PretrainConfig.model_validate({
        **RUNS[kind], "global_batch_size": batch, "max_steps": steps + 3, "num_workers": 1, "device": "cpu",
        "log_every_steps": 1, "evaluate_every_steps": 10**9, "probe": None, "precision": precision,
    })  # fmt: skip
    rows = PixelRows(folder)
    mean, std = channel_statistics(rows)
    torch.manual_seed(0)
    encoder = load.build(config.model, ImageFormat(FORM.size, FORM.channels, FORM.patch_size, mean, std))
    objective = OBJECTIVES.load(kind)(config.objective, encoder)
    marks: list[float] = []
    trainer = Trainer(
        objective, rows, None, config, 0, single("cpu"), report=lambda metrics: marks.append(time.process_time())
    )
    trainer.run()
    seconds = [after - before for before, after in pairwise(marks)]
    return {"step_cpu_s": statistics.median(seconds[2:]), "params": sum(p.numel() for p in objective.parameters())}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("augment", *RUNS))
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    keep_freed_memory()
    pixels = to_rows(np.random.default_rng(0).integers(0, 255, (2000, 32, 32, 3), np.uint8), FORM)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.part == "augment":
            result = augment(given.batch, given.steps, pixels)
        else:
            ids = [str(number) for number in range(len(pixels))]
            write_pixels(folder / "shard-00000.arrow", ids, [None] * len(ids), pixels, FORM)
            result = train(given.part, given.batch, given.steps, given.precision, folder)
    rate = round(given.batch / result["step_cpu_s"], 1)
    print(json.dumps({"impl": "raysl", "part": given.part, "precision": given.precision, "per_cpu_s_p50": rate, **result}))


if __name__ == "__main__":
    main()
