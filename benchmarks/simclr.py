"""SimCLR beside lightly, ResNet-18 at 32 pixels: augmentation alone and end to end (needs lightly, see _image_peer).

Images of random bytes; two views of each; one thread each, in turns. lightly: SimCLRTransform without blur, its NTXentLoss,
torchvision's ResNet, SGD. Ours: the real loop on pixel shards, AdamW.
"""

import os
from collections.abc import Iterator
from statistics import median

from benchmarks import Figure
from benchmarks._image_peer import lightly, ours, ratio, why_not

ROUNDS = int(os.environ.get("RAYSL_BENCH_ROUNDS", "3"))
SIZE = ("--batch", "64", "--steps", "4")


def run() -> Iterator[Figure]:
    reason = why_not()
    if reason is not None:
        print(f"skipped: {reason}")
        return
    yield from augmentation()
    peer, own, half = [], [], []
    for _ in range(ROUNDS):
        peer.append(lightly("simclr.py", "random", "--part", "end-to-end", "--batch", "64", "--steps", "7"))
        own.append(ours("simclr", *SIZE))
        half.append(ours("simclr", *SIZE, "--precision", "bf16"))
    yield Figure("end to end: lightly, fp32", median(peer), "images/CPU-s")
    yield Figure("end to end: ours, fp32", median(own), "images/CPU-s")
    yield Figure("end to end: ours, bf16", median(half), "images/CPU-s")
    yield ratio("end to end over lightly, fp32", own, peer, at_least=1.2)
    yield ratio("end to end over lightly, bf16 + channels-last", half, peer, at_least=2.2)


def augmentation() -> Iterator[Figure]:
    peer, own = [], []
    for _ in range(ROUNDS):
        peer.append(lightly("simclr.py", "random", "--part", "aug-lightly", "--steps", "8"))
        own.append(ours("augment", "--steps", "30"))
    yield Figure("two views: lightly", median(peer), "images/CPU-s")
    yield Figure("two views: ours", median(own), "images/CPU-s")
    yield ratio("two views over lightly", own, peer, at_least=8)
