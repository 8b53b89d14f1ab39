"""How rows reach the training: local shards, an object store, pictures decoded by Ray tasks or in the trainer."""

import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import Figure
from benchmarks.dedup import SHARED
from raysl import cluster
from raysl.data import decode_tasks
from raysl.data.decode import Decoding, write_encoded
from raysl.data.pixels import write_pixels
from raysl.data.prepared import IN_PROCESS, Decoder
from raysl.data.publish import publish
from raysl.run_config import RunConfig
from raysl.stage import Stage, read_manifest
from raysl.storage import hash_folder
from raysl.train.session import TrainJob, train_rank
from raysl.train.world import single

HOW = Decoding(size=32, channels=3, patch_size=32, resize="crop", least_side=64, max_pixels=10_000_000)
SHARD_ROWS, WINDOW_SHARDS, BATCH, EPOCHS = 128, 6, 128, 3
ENLARGED = 512
"""Pixels of the longer side that photos are brought to: decoding those of the set (128 pixels) costs next to nothing."""


def run() -> Iterator[Figure]:
    """One training process (ResNet-18 of width 8, SimCLR, 32 pixels); one more core, on which Ray decodes."""
    archive = SHARED / "data" / "images" / "clothing" / "train.zip"
    if not archive.is_file():
        print(f"skipped: {archive} is not there; set RAYSL_SHARED to the folder that holds data/")
        return
    print(
        f"one trainer, {os.cpu_count()} cores, {WINDOW_SHARDS} shards of {SHARD_ROWS} photos ({ENLARGED} px JPEG) a window"
    )
    with tempfile.TemporaryDirectory() as name, s3_server():
        folder = Path(name)
        seconds = write_prepared(folder, archive)
        yield Figure("decoding and resizing, one core", seconds * 1e3, "ms/photo")
        manifest = read_manifest(folder / "pixels", "prepare")
        assert manifest is not None
        publish(folder / "pixels" / "prepare", manifest, "s3://bench/photos")
        yield from trained("local shards", folder, "pixels", 0.05)
        yield from trained("object store", folder, "pixels", 0.05, shards="s3://bench/photos")
        yield from trained("decoded in the trainer", folder, "encoded")
        cluster.connect(num_cpus=1)
        decodings = decode_tasks.Decodings.remote(0.5)  # type: ignore[attr-defined]
        yield from trained("decoded by Ray tasks", folder, "encoded", decoder=decode_tasks.decoder(decodings, 4))
        cluster.disconnect()


def trained(name: str, folder: Path, prepared: str, at_most: float | None = None, shards: str = "",
            decoder: Decoder = IN_PROCESS) -> Iterator[Figure]:  # fmt: skip
    """Rows a second and data wait of a run, the wait for its first window apart."""
    run_folder = folder / name.replace(" ", "_")
    run_folder.mkdir()
    feed = {"shards": shards or str(folder / prepared / "prepare"), "cache_dir": str(folder / "cache")}
    config = RunConfig.model_validate({
        "name": "feed", "run_dir": str(run_folder), "prepare": {"source": "digits"},
        "pretrain": {
            "objective": "simclr", "model": {"type": "resnet", "width": 8}, "global_batch_size": BATCH, "num_workers": 1,
            "max_steps": EPOCHS * steps_of_epoch(folder), "precision": "fp32", "window_shards": WINDOW_SHARDS, "feed": feed,
            "log_every_steps": 1, "evaluate_every_steps": 10_000, "checkpoint": {"every_steps": 10_000}, "probe": None,
            "tensorboard": False, "health": {"max_data_wait": 1},
        },
    })  # fmt: skip
    train_rank(TrainJob(config), single("cpu"), decoder=decoder)
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "data_wait" in line]
    seconds = np.array([BATCH / line["rows_per_second"] for line in lines])
    waits = np.array([line["data_wait"] for line in lines]) * seconds
    yield Figure(f"{name}: rows", BATCH * (len(lines) - 1) / seconds[1:].sum(), "rows/s")
    yield Figure(f"{name}: data wait", 100 * waits[1:].sum() / seconds[1:].sum(), "%", at_most and 100 * at_most)
    yield Figure(f"{name}: first batch", waits[0], "s")


def steps_of_epoch(folder: Path) -> int:
    return len(list((folder / "pixels/prepare/pixels/train").iterdir())) * SHARD_ROWS // BATCH


def write_prepared(folder: Path, archive: Path) -> float:
    """The photos as pixels and as they are; returns the seconds that decoding one took."""
    with zipfile.ZipFile(archive) as file:
        photos = [enlarged(file.read(name)) for name in sorted(file.namelist()) if name.endswith(".jpg")]
    seconds = 0.0
    for number, start in enumerate(range(0, len(photos), SHARD_ROWS)):
        split = "validation" if number == 0 else "train"
        some = photos[start : start + SHARD_ROWS]
        ids, labels = [f"photo {start + n}" for n in range(len(some))], [None] * len(some)
        started = time.process_time()
        rows = np.stack([HOW.row(photo, "a photo") for photo in some])
        seconds += time.process_time() - started
        name = f"prepare/{{}}/{split}/shard-{number:05d}.arrow"
        write_pixels(folder / "pixels" / name.format("pixels"), ids, labels, rows, HOW.form)
        write_encoded(folder / "encoded" / name.format("encoded"), ids, labels, some, HOW)
    for kind in ("pixels", "encoded"):
        Stage(folder / kind, "prepare", {}, {}).finish({}, {}, hash_folder(folder / kind / "prepare"))
    return seconds / len(photos)


def enlarged(photo: bytes) -> bytes:
    image = Image.open(io.BytesIO(photo)).convert("RGB")
    scale, file = ENLARGED / max(image.size), io.BytesIO()
    image.resize((round(image.width * scale), round(image.height * scale))).save(file, "JPEG", quality=85)
    return file.getvalue()


@contextmanager
def s3_server() -> Iterator[None]:
    """moto's server in a process of its own, with an empty bucket."""
    from pyarrow import fs

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", address.partition(":")[2]]
    server: Any = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.environ |= {"AWS_ENDPOINT_URL": f"http://{address}", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
                   "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}  # fmt: skip
    try:
        wait_for(int(address.partition(":")[2]))
        fs.S3FileSystem(allow_bucket_creation=True, endpoint_override=address, scheme="http").create_dir("bench")
        yield
    finally:
        server.terminate()
        server.wait()


def wait_for(port: int) -> None:
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
