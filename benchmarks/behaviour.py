"""Item sequences of a shop: losses against popularity, next basket against item-kNN (needs ../shared, or RAYSL_SHARED)."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch
from scipy.sparse import csr_matrix

from benchmarks import Figure
from raysl import cluster, run_config, storage
from raysl.data.pipeline import prepare
from raysl.data.shards import open_shard
from raysl.models.load import load_encoder
from raysl.schema import SPECIAL_TOKENS
from raysl.train.session import TrainJob, train_rank
from raysl.train.world import single

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("RAYSL_SHARED", ROOT.parent / "shared"))
NUM_SPECIAL, TOP = len(SPECIAL_TOKENS), 10
Floats = npt.NDArray[np.float32]
Scores = Callable[[list[int]], Floats]
"""Context tokens -> a score for each token."""


def run() -> Iterator[Figure]:
    """Prepares on Ray, trains in this process on one thread. Settings were chosen on validation, not on test."""
    table = SHARED / "data" / "commerce" / "online_retail.parquet"
    if not table.is_file():
        print(f"skipped: {table} is not there; set RAYSL_SHARED to the folder that holds data/")
        return
    chosen = [f"prepare.source.path={table}", f"run_dir={ROOT / 'runs' / 'bench_behaviour'}"]
    config = run_config.load(ROOT / "configs" / "retail.yaml", chosen)
    made = prepare(config)
    cluster.disconnect()
    yield Figure("events kept", made.counts["kept"])
    yield Figure("ln of the vocabulary", made.metrics["uniform_loss"], "nats")
    bert = run_config.load(
        ROOT / "configs" / "retail.yaml", [*chosen, "pretrain.objective=bert", "pretrain.model.type=bert"]
    )
    for settings, name in ((bert, "popularity_loss_of_items"), (config, "popularity_loss")):
        kind = settings.training.objective.type
        storage.remove(config.folder / "pretrain")
        last = train_rank(TrainJob(settings), single("cpu"))
        yield Figure(f"{kind}: popularity, held out", made.metrics[name], "nats")
        yield Figure(f"{kind}: held-out loss", last["held_out_loss"], "nats", at_most=made.metrics[name] - 0.2)
    yield from next_basket(config.folder)


def next_basket(folder: Path) -> Iterator[Figure]:
    """The first invoice of each user in the test period: is one of its new items among ten? From the history alone."""
    prepared = folder / "prepare"
    questions = [question for path in sorted((prepared / "held_out").glob("*.parquet")) for question in _questions(path)]
    yield Figure("next basket: users asked about", len(questions))
    popular, neighbours = baselines(prepared / "tokens" / "train", pq.read_table(prepared / "items.parquet"))
    for name, scores in (("popularity", popular), ("item-kNN", neighbours), ("gpt", gpt_scores(folder / "pretrain"))):
        yield Figure(f"next basket: {name}, HR@10", np.mean([hit(scores(context), *rest) for context, *rest in questions]))


def _questions(path: Path) -> Iterator[tuple[list[int], set[int]]]:
    """Context, and the known items of the first basket after it that are not in it."""
    for row in pq.read_table(path, filters=[("split", "==", "test")]).to_pylist():
        first = [t for t, g in zip(row["target"], row["target_groups"], strict=True) if g == row["target_groups"][0]]
        wanted = {token for token in first if token >= NUM_SPECIAL} - set(row["context"])
        if row["context"] and wanted:
            yield row["context"], wanted


def hit(scores: Floats, wanted: set[int]) -> bool:
    return bool(wanted & set(np.argpartition(-scores, TOP)[:TOP].tolist()))


def baselines(train: Path, items: Any) -> tuple[Scores, Scores]:
    """Most popular, and items bought by the same users (cosine), both from the train period."""
    shards = [open_shard(path) for path in sorted(train.glob("shard-*.arrow"))]
    size = int(items["token"].to_numpy().max()) + 1
    lengths = np.concatenate([np.diff(shard.offsets) for shard in shards])
    rows = np.repeat(np.arange(len(lengths)), lengths)
    tokens = np.concatenate([shard.values for shard in shards])
    bought = csr_matrix((np.ones(len(rows), np.float32), (rows, tokens)), shape=(len(lengths), size))
    bought.data[:] = 1
    counts = np.bincount(tokens, minlength=size).astype(np.float32)
    alike = (bought.T @ bought).toarray()
    norms = np.sqrt(np.maximum(alike.diagonal(), 1))
    alike = alike / norms[:, None] / norms
    return lambda c: _allowed(counts.copy(), c), lambda c: _allowed(alike[_known(c)].sum(0), c)


def gpt_scores(folder: Path) -> Scores:
    encoder, _ = load_encoder(folder)
    length = encoder.config.context_length - 1

    @torch.no_grad()
    def scores(context: list[int]) -> Floats:
        vectors = encoder.encode(torch.tensor([context[-length:]]))  # type: ignore[operator]
        logits: Floats = encoder.vocabulary_logits(vectors[:, -1])[0].float().numpy()  # type: ignore[operator]
        return _allowed(logits, context)

    return scores


def _known(context: list[int]) -> list[int]:
    return sorted({token for token in context if token >= NUM_SPECIAL})


def _allowed(scores: Floats, context: list[int]) -> Floats:
    """Neither special tokens nor what the user has already."""
    scores[:NUM_SPECIAL] = -np.inf
    scores[_known(context)] = -np.inf
    return scores
