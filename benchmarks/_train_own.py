"""Our side of the training benchmarks: the real Trainer on token shards, one process, one thread, without Ray.

`python -m benchmarks._train_own gpt|bert TEXTS --steps N` prints one JSON line with the keys of the peers' scripts;
`--metrics FILE` also keeps what the loop reports, held-out loss every 100 steps included.
"""

import argparse
import gzip
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F

from raysl import schema, storage
from raysl.catalog import OBJECTIVES
from raysl.data.config import TokenizerConfig
from raysl.data.prints import write_prints
from raysl.data.shards import TokenRows
from raysl.data.tokens import tokenize, train_tokenizer
from raysl.models import load
from raysl.objectives.base import Objective
from raysl.schema import SPECIAL_TOKENS
from raysl.train.config import PretrainConfig
from raysl.train.loop import Report, Trainer
from raysl.train.memory import keep_freed_memory
from raysl.train.world import single

WARM_UP = 10
"""Steps that are not timed."""
NUM_SPECIAL = len(SPECIAL_TOKENS)
COMMON: dict[str, Any] = {
    "num_workers": 1, "device": "cpu", "log_every_steps": 50, "evaluate_every_steps": 10**9, "probe": None,
}  # fmt: skip


def gpt(texts: Path, steps: int, precision: str, folder: Path, report: Report | None = None) -> dict[str, Any]:
    """tinyshakespeare by characters: the last tenth is held out, and its loss is over all of it."""
    text = texts.read_text(encoding="utf-8")
    ids = {char: NUM_SPECIAL + place for place, char in enumerate(sorted(set(text)))}
    tokens = np.array([ids[char] for char in text], np.int32)
    cut = int(len(tokens) * 0.9)
    write_shard(pa.array([tokens[:cut]]), folder / "train")
    write_shard(pa.array([tokens[cut:]]), folder / "validation")
    config = PretrainConfig.model_validate({
        "objective": "gpt", "model": {"type": "gpt", "preset": "gpt-mini"}, "global_batch_size": 12, "max_steps": steps,
        "optimizer": {"learning_rate": 1e-3, "min_learning_rate_share": 0.1, "weight_decay": 0.1, "betas": (0.9, 0.99)},
        "precision": precision, **COMMON,
    })  # fmt: skip
    objective, result = trained(config, NUM_SPECIAL + len(ids), folder, report)
    return result | {"tokens": 12 * 64, "val_loss": held_out_loss(objective.encoder, torch.from_numpy(tokens[cut:]).long())}


@torch.no_grad()
def held_out_loss(encoder: Any, tokens: torch.Tensor) -> float:
    """Mean over all tokens in windows of 64, as the peers' script counts."""
    rows = (len(tokens) - 1) // 64
    inputs, labels = tokens[: rows * 64].view(rows, 64), tokens[1 : rows * 64 + 1].view(rows, 64)
    sums = [
        F.cross_entropy(encoder.vocabulary_logits(encoder.encode(x)).flatten(0, 1), y.flatten(), reduction="sum").item()
        for x, y in zip(inputs.split(256), labels.split(256), strict=True)
    ]
    return round(sum(sums) / labels.numel(), 4)


def bert(texts: Path, steps: int, precision: str, folder: Path, report: Report | None = None) -> dict[str, Any]:
    """Hidden words on packed documents; a vocabulary of 8,000 trained on the texts."""
    with gzip.open(texts, "rt", encoding="utf-8") as file:
        documents = [json.loads(line)["text"] for line in file]
    tokenizer = train_tokenizer(iter(documents), TokenizerConfig(type="wordpiece", vocab_size=8000))
    write_shard(tokenize(documents[200:], tokenizer), folder / "train")
    write_shard(tokenize(documents[:200], tokenizer), folder / "validation")
    config = PretrainConfig.model_validate({
        "objective": "bert", "model": {"type": "bert", "preset": "bert-mini", "context_length": 128},
        "global_batch_size": 32, "max_steps": steps, "optimizer": {"learning_rate": 5e-4, "betas": (0.9, 0.999)},
        "precision": precision, **COMMON,
    })  # fmt: skip
    return trained(config, tokenizer.get_vocab_size(), folder, report)[1] | {"tokens": 32 * 128}


def write_shard(tokens: pa.Array, folder: Path) -> None:
    names = [str(number) for number in range(len(tokens))]
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table([names, pa.nulls(len(tokens), pa.string()), tokens], schema=schema.TOKENIZED)
    write_prints(table, folder / "shard-00000.arrow")


def trained(
    config: PretrainConfig, vocab_size: int, folder: Path, report: Report | None
) -> tuple[Objective, dict[str, Any]]:
    """Trains to the end; CPU seconds of a step, from its end to the next one's, are the median, as in the peers' scripts."""
    torch.set_num_threads(1)
    keep_freed_memory()
    torch.manual_seed(0)
    encoder = load.build(config.model, vocab_size)
    objective = OBJECTIVES.load(config.objective.type)(config.objective, encoder)
    rows, held_out = (TokenRows(folder / s, "packed", objective.row_length) for s in ("train", "validation"))
    ends: list[float] = []
    losses: list[float] = []

    def mark(metrics: dict[str, Any]) -> None:
        if "loss" in metrics:
            losses.append(metrics["loss"])
        if report is not None:
            report(metrics)

    if report is not None:
        config = config.model_copy(update={"evaluate_every_steps": 100})
    Trainer(
        objective,
        rows,
        held_out if report else None,
        config,
        0,
        single("cpu"),
        report=mark,
        record=lambda *_: ends.append(time.process_time()),
    ).run()
    seconds = [after - before for before, after in pairwise(ends[WARM_UP:])]
    parameters = sum(p.numel() for p in objective.parameters() if p.requires_grad)
    return objective, {"params": parameters, "train_loss": losses[-1], "step_cpu_s": statistics.median(seconds)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("objective", choices=("gpt", "bert"))
    parser.add_argument("texts", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--metrics", type=Path)
    given = parser.parse_args(arguments)
    report = None if given.metrics is None else partial(storage.append_jsonl, given.metrics)
    with tempfile.TemporaryDirectory() as folder:
        measure = {"gpt": gpt, "bert": bert}[given.objective]
        result = measure(given.texts, given.steps, given.precision, Path(folder), report)
    rate = round(result.pop("tokens") / result["step_cpu_s"], 1)
    print(json.dumps({"impl": "raysl", "precision": given.precision, "iters": given.steps, "per_cpu_s_p50": rate, **result}))


if __name__ == "__main__":
    main()
