"""One GPU: GPT-2 124M, BERT, SimCLR and MAE ViT-B in the real loop, bf16 and compiled (needs ../shared, RAYSL_SHARED).

GPT on packed documents, rows of 1,024 tokens, none of which sees another. Peers, compiled and in bf16 too: Hugging Face's
GPT2LMHeadModel on rows that need no mask, lightly's SimCLR and MAE. MFU after PaLM, appendix B (Chowdhery et al., 2022), of
the dense bf16 peak of the card.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks import Figure
from benchmarks._cifar10 import ROOT, SHARED

PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bf16 operations a second, by a part of the card's name (NVIDIA's data sheets, SXM)."""
LAYERS, WIDTH, CONTEXT = 12, 768, 1024
PEER_STEPS = 150
WITH_PEERS = os.environ.get("RAYSL_GPU_PEERS", "1") == "1"
"""Whether transformers, lightly and timm are run too."""


@dataclass(frozen=True)
class Case:
    """One objective at the size of its goal."""

    kind: str
    name: str
    unit: str
    goal: int | None
    batch: int
    steps: int


CASES = (
    Case("gpt", "GPT-2 124M, packed documents", "tokens/s", 300_000, batch=64, steps=120),
    Case("simclr", "SimCLR, ResNet-18 at 32 px", "images/s", 10_000, batch=1024, steps=1500),
    Case("mae", "MAE, ViT-B at 224 px", "images/s", 2_000, batch=256, steps=150),
    Case("bert", "BERT-base, packed documents", "tokens/s", None, batch=256, steps=80),
)


def run() -> Iterator[Figure]:
    reason = why_not()
    if reason is not None:
        print(f"skipped: {reason}")
        return
    print(torch.cuda.get_device_name(), f"torch {torch.__version__}")
    for case in CASES:
        yield from figures(case)


def figures(case: Case) -> Iterator[Figure]:
    own = measured("_gpu_own", case, case.steps, *(["--knn"] if case.kind == "simclr" else []))
    assert own is not None, "see above"
    yield Figure(case.name, own["per_s_p50"], case.unit, at_least=case.goal)
    yield Figure(f"{case.kind}: data wait", 100 * own["data_wait"], "%", at_most=5)
    if case.kind == "gpt":
        yield Figure("gpt: MFU", 100 * own["per_s_p50"] * operations_per_token(own["params"]) / peak(), "%")
    if case.kind == "simclr":
        epochs = case.batch * case.steps / own["rows"]
        yield Figure(f"kNN on CIFAR-10's test images, {epochs:.0f} epochs", own["knn"], "%")
    peer = measured("_gpu_peer", case, PEER_STEPS) if WITH_PEERS and case.goal else None
    if peer is not None:
        yield Figure(f"{case.kind}: over its peer", own["per_s_p50"] / peer["per_s_p50"], "x")


def why_not() -> str | None:
    if not torch.cuda.is_available():
        return "torch sees no GPU here"
    if not (SHARED / "data" / "images").is_dir():
        return f"{SHARED}/data is not there; set RAYSL_SHARED to the folder that holds data/"
    return None


def measured(module: str, case: Case, steps: int, *more: str) -> dict[str, Any] | None:
    """The JSON line of a process of its own, which leaves no memory behind; None where it failed."""
    sizes = ["--batch", str(case.batch), "--steps", str(steps)]
    command = [sys.executable, "-m", f"benchmarks.{module}", case.kind, *sizes, *more]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    if done.returncode:
        print(f"failed: {' '.join(command[1:])}", flush=True)
        return None
    line = done.stdout.splitlines()[-1]
    print(line, flush=True)
    return dict(json.loads(line))


def operations_per_token(parameters: int) -> float:
    """6 N + 12 L W T; a causal model does half of the last part, which is counted as a whole by convention."""
    return 6 * parameters + 12 * LAYERS * WIDTH * CONTEXT


def peak() -> float:
    name = torch.cuda.get_device_name()
    return next((value for part, value in PEAK.items() if part in name), float("nan"))


if __name__ == "__main__":
    for figure in run():
        print(figure)
