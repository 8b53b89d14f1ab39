"""Training on shards in a store and on stored pictures, killed in between: the rows and the weights are the local run's."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from raysl import storage
from raysl.data.publish import publish
from raysl.errors import ConfigError
from raysl.run_config import RunConfig
from raysl.stage import Stage, read_manifest
from raysl.train import run
from raysl.train.session import TrainJob, train_rank
from raysl.train.world import single
from tests.object_store import object_store
from tests.picture_shards import write_prepared
from tests.tiny_run import make_run
from tests.token_shards import random_documents, write_shards

pytestmark = pytest.mark.ray

STEPS, WINDOW = 30, 2


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """Comes before the cluster, whose processes inherit its address."""
    with object_store("bucket"):
        yield "s3://bucket"


@pytest.fixture(scope="module")
def folder(store: str, ray_cluster: Path) -> Path:
    return ray_cluster


def settings(objective: Any, model: Any, **more: Any) -> dict[str, Any]:
    return {
        "objective": objective, "model": model, "global_batch_size": 8, "max_steps": STEPS, "precision": "fp32",
        "checkpoint": {"every_steps": 5}, "log_every_steps": 1, "evaluate_every_steps": 100, "window_shards": WINDOW,
        "probe": None, "tensorboard": False, **more,
    }  # fmt: skip


def text_run(folder: Path, **more: Any) -> RunConfig:
    contrast = {"type": "contrastive_text", "span_length": 4}
    config = make_run(
        folder, pretrain=settings(contrast, {"type": "bert", "num_layers": 1, "width": 16, "num_heads": 2}, **more)
    )
    documents = random_documents(96)
    write_shards(folder / "prepare/tokens/train", [documents[i::8] for i in range(8)])
    write_shards(folder / "prepare/tokens/validation", [random_documents(20, seed=1)])
    return finished_prepare(config)


def image_run(folder: Path, encoded: bool, **more: Any) -> RunConfig:
    write_prepared(folder, encoded)
    return RunConfig.model_validate({
        "name": "images", "run_dir": str(folder), "prepare": {"source": "digits"},
        "pretrain": settings("simclr", {"type": "resnet", "width": 8}, num_workers=1, **more),
    })  # fmt: skip


def finished_prepare(config: RunConfig) -> RunConfig:
    prepared = config.folder / "prepare"
    files = storage.hash_folder(prepared, keep=lambda path: path.name != "manifest.json")
    Stage(config.folder, "prepare", {}, {}).finish({}, {}, files)
    storage.remove(config.folder / "pretrain")
    return config


def losses(config: RunConfig) -> list[float]:
    """Of every step, as metrics.jsonl has them."""
    import json

    lines = [json.loads(line) for line in (config.folder / "metrics.jsonl").read_text().splitlines()]
    found = {line["step"]: line["loss"] for line in lines if "loss" in line}
    return [found[step] for step in range(1, STEPS + 1)]


def kill_once(config: RunConfig, killed: list[int]) -> None:
    """SIGKILL of one training process of this cluster, once it has left two checkpoints behind."""
    while not (config.folder / "pretrain/checkpoints/step-000000010").exists():
        time.sleep(0.01)
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and _is_worker(process) and _is_ours(int(process.name)):
            os.kill(int(process.name), signal.SIGKILL)
            killed.append(int(process.name))
            return


def _is_worker(process: Path) -> bool:
    try:
        return (process / "cmdline").read_bytes().startswith(b"ray::RayTrainWorker")
    except OSError:
        return False


def _is_ours(pid: int) -> bool:
    while pid > 1:
        if pid == os.getpid():
            return True
        pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    return False


class Watch:
    """Trains on Ray, kills a worker on the way, and counts the train shards on disk all the while."""

    def __init__(self, config: RunConfig, cache: Path) -> None:
        self.killed, self.most, self.messages = list[int](), 0, list[dict[str, Any]]()
        over = Event()

        def count() -> None:
            while not over.wait(0.005):
                self.most = max(self.most, len(list(cache.glob("*/*/train/shard-*.arrow"))))

        threads = [Thread(target=count), Thread(target=kill_once, args=(config, self.killed), daemon=True)]
        for thread in threads:
            thread.start()
        try:
            run.train(config, self.messages.append)
        finally:
            over.set()
            threads[0].join()
        self.left = list(cache.glob("*/*/*/shard-*.arrow"))


def test_a_killed_run_on_a_store_learns_what_one_process_learns_from_the_folder(store: str, folder: Path) -> None:
    """Two workers share the cache of their node."""
    local = text_run(folder / "local", num_workers=1)
    train_rank(TrainJob(local), single("cpu"))
    manifest = read_manifest(local.folder, "prepare")
    assert manifest is not None
    publish(local.folder / "prepare", manifest, f"{store}/text")
    cache = folder / "cache"
    feed = {"shards": f"{store}/text", "cache_dir": str(cache)}
    there = RunConfig.model_validate({
        **local.model_dump(), "run_dir": str(folder / "there"),
        "pretrain": {**local.training.model_dump(), "num_workers": 2, "feed": feed},
    })  # fmt: skip
    watch = Watch(there, cache)
    assert watch.killed, "no worker was killed"
    assert [m["start"] for m in watch.messages if "start" in m][-1] >= 10
    assert losses(there) == pytest.approx(losses(local), abs=2e-5)
    assert 0 < watch.most <= 2 * WINDOW
    assert watch.left == []


def test_a_killed_run_on_stored_pictures_ends_with_the_weights_of_the_run_on_pixels(folder: Path) -> None:
    """Bit-equal: one worker, whose pictures are decoded by tasks on the other CPU."""
    pixels = image_run(folder / "pixels", encoded=False)
    train_rank(TrainJob(pixels), single("cpu"))
    cache = folder / "decoded"
    pictures = image_run(folder / "pictures", encoded=True, feed={"cache_dir": str(cache)})
    watch = Watch(pictures, cache)
    assert watch.killed, "no worker was killed"
    assert losses(pictures) == losses(pixels)
    first, second = (load_file(config.folder / "pretrain/model.safetensors") for config in (pixels, pictures))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert 0 < watch.most <= 2 * WINDOW
    assert watch.left == []


def test_decoding_without_a_free_cpu_is_refused(folder: Path) -> None:
    config = image_run(folder / "full", encoded=True)
    full = config.model_copy(update={"pretrain": config.training.model_copy(update={"num_workers": 2})})
    with pytest.raises(ConfigError, match=r"2 workers leave 0 of 2, .*decode_cpus=0\.5\. Lower pretrain\.num_workers"):
        run.train(full, lambda _: None)
