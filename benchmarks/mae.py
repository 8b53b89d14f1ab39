"""MAE beside lightly and timm, ViT-tiny at 32 pixels, patches of 4, decoder 4 x 96 (needs lightly, see _image_peer).

One thread each, in turns. lightly reads ready tensors of noise; ours reads pixel shards through the real loop.
"""

import os
from collections.abc import Iterator
from statistics import median

from benchmarks import Figure
from benchmarks._image_peer import lightly, ours, ratio, why_not

ROUNDS = int(os.environ.get("RAYSL_BENCH_ROUNDS", "3"))
BATCH = "128"


def run() -> Iterator[Figure]:
    reason = why_not()
    if reason is not None:
        print(f"skipped: {reason}")
        return
    for precision, flag in (("fp32", []), ("bf16", ["--bf16"])):
        peer, own = [], []
        for _ in range(ROUNDS):
            peer.append(lightly("mae.py", "--impl", "lightly", "--batch", BATCH, "--steps", "8", *flag))
            own.append(ours("mae", "--batch", BATCH, "--steps", "5", "--precision", precision))
        yield Figure(f"lightly, {precision}", median(peer), "images/CPU-s")
        yield Figure(f"ours, {precision}", median(own), "images/CPU-s")
        yield ratio(f"over lightly, {precision}", own, peer, at_least=0.98)
