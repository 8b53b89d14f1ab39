"""Our side of the GPU benchmark: the real Trainer on prepared shards, one GPU, without Ray.

`python -m benchmarks._gpu_own gpt|bert|simclr|mae --steps N --batch N [--no-compile]` prints one JSON line. Texts,
photographs and CIFAR-10 lie below RAYSL_SHARED; the shards made of them stay in runs/bench-gpu.
"""

import argparse
import gzip
import json
import statistics
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import yaml

from benchmarks._cifar10 import ROOT, SHARED, images_of, voted
from benchmarks._train_own import write_shard
from raysl.catalog import OBJECTIVES
from raysl.data import images
from raysl.data.config import TokenizerConfig
from raysl.data.pixels import PixelFormat, PixelRows, channel_statistics, to_rows, write_pixels
from raysl.data.rows import Rows
from raysl.data.shards import TokenRows
from raysl.data.tokens import tokenize, train_tokenizer
from raysl.models import load
from raysl.models.vision import ImageFormat
from raysl.objectives.base import Objective
from raysl.train.config import PretrainConfig
from raysl.train.loop import Trainer
from raysl.train.world import autocast, single

SHARDS = ROOT / "runs" / "bench-gpu"
TEXTS = ("text/peps.jsonl.gz", "text_classification/ag_news_test/train.jsonl.gz")
PHOTOGRAPHS = "images/clothing/train.zip"
VOCABULARY = 50_304
"""GPT-2's 50,257 entries, up to the next multiple of 128."""
LOGGED = 10
"""Optimizer steps of one timing."""

CONFIGS = {"gpt": "gpt2", "bert": "bert-base", "simclr": "simclr", "mae": "mae"}
"""Objective -> the file in configs/gpu that says model and optimizer."""


def config_of(kind: str, **more: Any) -> PretrainConfig:
    said = yaml.safe_load((ROOT / "configs" / "gpu" / f"{CONFIGS[kind]}.yaml").read_text(encoding="utf-8"))["pretrain"]
    if kind == "bert":
        said["objective"] = "bert"  # whole words are the tokenizer's, which is another one here
    return PretrainConfig.model_validate({**said, "accumulation_steps": 1, "probe": None, **more})


def texts() -> Iterator[str]:
    for name in TEXTS:
        with gzip.open(SHARED / "data" / name, "rt", encoding="utf-8") as file:
            yield from (json.loads(line)["text"] for line in file)


def token_rows(length: int) -> Rows:
    folder = SHARDS / "tokens"
    if not folder.is_dir():
        documents = list(texts())
        tokenizer = train_tokenizer(iter(documents), TokenizerConfig(vocab_size=VOCABULARY, lowercase=False))
        mixed = [documents[place] for place in np.random.default_rng(0).permutation(len(documents))]
        write_shard(tokenize(mixed, tokenizer), folder)
    return TokenRows(folder, "packed", length)


def cifar_rows() -> PixelRows:
    folder = SHARDS / "cifar10"
    if not folder.is_dir():
        write_images(folder, images_of("train")[0], 4)
    return PixelRows(folder)


def photograph_rows() -> PixelRows:
    folder = SHARDS / "photographs"
    if not folder.is_dir():
        with zipfile.ZipFile(SHARED / "data" / PHOTOGRAPHS) as archive:
            stored = [archive.read(name) for name in sorted(archive.namelist()) if name.endswith(images.SUFFIXES)]
        with ThreadPoolExecutor(16) as threads:
            write_images(folder, np.stack(list(threads.map(photograph, stored))), 16)
    return PixelRows(folder)


def photograph(data: bytes) -> images.Pixels:
    picture = images.decode(data, 3, 224, 10**8)
    return images.to_pixels(images.fitted(picture.image, 224, "crop"))


def write_images(folder: Path, pixels: images.Pixels, patch_size: int) -> None:
    form = PixelFormat(pixels.shape[1], 3, patch_size)
    ids = [str(number) for number in range(len(pixels))]
    write_pixels(folder / "shard-00000.arrow", ids, [None] * len(ids), to_rows(pixels, form), form)


def objective_and_rows(kind: str, config: PretrainConfig) -> tuple[Objective, Rows]:
    torch.manual_seed(0)
    build = partial(OBJECTIVES.load(kind), config.objective)
    if kind in ("gpt", "bert"):
        objective = build(load.build(config.model, VOCABULARY))
        return objective, token_rows(objective.row_length)
    rows = cifar_rows() if kind == "simclr" else photograph_rows()
    form, (mean, std) = rows.form, channel_statistics(rows)
    return build(load.build(config.model, ImageFormat(form.size, form.channels, form.patch_size, mean, std))), rows


def train(kind: str, batch: int, steps: int, compiled: bool) -> tuple[Objective, dict[str, Any]]:
    """Trains on the GPU in bf16; the speed is the median over stretches of LOGGED steps, the first two left out."""
    config = config_of(
        kind, global_batch_size=batch, max_steps=steps, precision="bf16", compile=compiled, log_every_steps=LOGGED,
        evaluate_every_steps=10**9, checkpoint={},
    )  # fmt: skip
    objective, rows = objective_and_rows(kind, config)
    told: list[dict[str, Any]] = []
    Trainer(objective, rows, None, config, 0, single("cuda"), report=told.append).run()
    speeds = [said[f"{objective.unit}_per_second"] for said in told[2:]]
    return objective, {
        "per_s_p50": statistics.median(speeds), "least": min(speeds), "most": max(speeds), "loss": told[-1]["loss"],
        "data_wait": statistics.fmean(said["data_wait"] for said in told[2:]), "rows": len(rows),
        "memory_gb": torch.cuda.max_memory_allocated() / 1e9, "params": sum(p.numel() for p in objective.parameters()),
    }  # fmt: skip


@torch.no_grad()
def knn_on_test(objective: Objective) -> float:
    """Share of CIFAR-10's test images whose neighbours among all training images vote for their class, in percent."""
    objective.eval()
    (bank, classes), (queries, expected) = (embedded(objective, name) for name in ("train", "test"))
    return 100 * float((voted(bank, classes, queries) == expected).float().mean())


def embedded(objective: Objective, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    pixels, labels = images_of(name)
    whole = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    with autocast(torch.device("cuda"), torch.bfloat16):
        parts = [objective.embed(part.cuda()).float() for part in whole.split(2048)]
    return F.normalize(torch.cat(parts), dim=-1), torch.tensor(labels, device="cuda")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=tuple(CONFIGS))
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--knn", action="store_true", help="simclr: also measure the embedding on CIFAR-10's test images")
    given = parser.parse_args(arguments)
    objective, result = train(given.kind, given.batch, given.steps, not given.no_compile)
    if given.knn:
        result["knn"] = knn_on_test(objective)
    print(
        json.dumps(
            {"impl": "raysl", "kind": given.kind, "batch": given.batch, "device": torch.cuda.get_device_name(), **result}
        )
    )


if __name__ == "__main__":
    main()
