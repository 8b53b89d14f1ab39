"""Title and body as the two views against two spans: nDCG@10 of Cranfield's questions by the frozen embedding."""

import gzip
import json
import math
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

from benchmarks import Figure
from raysl import cluster
from raysl.data.pipeline import prepare
from raysl.models.load import load_encoder
from raysl.objectives.base import pad
from raysl.run_config import RunConfig
from raysl.train.inputs import tokenize
from raysl.train.session import TrainJob, train_rank
from raysl.train.world import single

CRANFIELD = Path(os.environ.get("RAYSL_SHARED", "shared")) / "data" / "retrieval" / "cranfield"
FOLDER = Path("runs/title-views")
SEEDS, TOP = range(3), 10
Rows = list[dict[str, Any]]


def read(name: str) -> Rows:
    with gzip.open(CRANFIELD / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def config_of(name: str, views: str, seed: int, shards: Path | None = None) -> RunConfig:
    """The sizes and rates of configs/smoke/bert.yaml, with the smaller batch and fewer steps that 1,400 documents allow."""
    return RunConfig.model_validate({
        "name": name, "run_dir": str(FOLDER / name), "seed": seed,
        "prepare": {
            "source": {"type": "files", "path": str(FOLDER / "corpus.jsonl"), "title_column": "title", "id_column": "id"},
            "tokenizer": {"vocab_size": 4000}, "split": {"validation": 0.05, "test": 0.0},
        },
        "pretrain": {
            "objective": {"type": "contrastive_text", "views": views, "span_length": 32, "temperature": 0.2,
                          "hidden_words_weight": 0.1, "hidden_words_rows": 0.0625},
            "model": {"type": "bert", "num_layers": 1, "width": 128, "num_heads": 2, "feedforward_ratio": 2,
                      "context_length": 32},
            "optimizer": {"learning_rate": 2.0e-3, "warmup_share": 0.05}, "global_batch_size": 128, "max_steps": 400,
            "tensorboard": False, **({} if shards is None else {"feed": {"shards": str(shards)}}),
        },
    })  # fmt: skip


def ndcg(ranked: list[str], relevant: set[str]) -> float:
    """Of the first TOP documents; every judged one counts alike."""
    gains = [1 / math.log2(place + 2) for place, name in enumerate(ranked[:TOP]) if name in relevant]
    return sum(gains) / sum(1 / math.log2(place + 2) for place in range(min(TOP, len(relevant))))


def score(run: Path, tokenizer: Path, documents: Rows) -> float:
    encoder, _ = load_encoder(run / "pretrain")
    relevant = defaultdict(set)
    for row in read("qrels"):
        relevant[str(row["query_id"])].add(str(row["doc_id"]))

    def embed(texts: list[str]) -> torch.Tensor:
        rows = tokenize(tokenizer, texts, 256)
        with torch.no_grad():
            return torch.cat([encoder.embed(torch.from_numpy(pad(rows[n : n + 64]))) for n in range(0, len(rows), 64)])

    queries = [row for row in read("queries") if relevant[str(row["id"])]]
    nearest = embed([q["text"] for q in queries]) @ embed([f"{d['title']}\n{d['text']}" for d in documents]).T
    found = nearest.topk(TOP).indices.tolist()
    return fmean(
        ndcg([str(documents[place]["id"]) for place in places], relevant[str(query["id"])])
        for places, query in zip(found, queries, strict=True)
    )


def run() -> Iterator[Figure]:
    """The questions are seen by nothing that is trained or chosen; texts are without the title that they repeat."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    documents = [
        {**row, "text": row["text"].strip().removeprefix(row["title"].strip()).strip(" .\n")} for row in read("corpus")
    ]
    documents = [row for row in documents if row["text"]]
    (FOLDER / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in documents))
    base = config_of("base", "spans", 0)
    cluster.connect()
    prepare(base)
    cluster.disconnect()
    shards = base.folder / "prepare"
    scores: dict[str, list[float]] = defaultdict(list)
    for seed in SEEDS:
        for views in ("spans", "title"):
            config = config_of(f"{views}-{seed}", views, seed, shards)
            config.folder.mkdir(exist_ok=True)
            train_rank(TrainJob(config), single("cpu"))
            scores[views].append(score(config.folder, shards / "tokenizer.json", documents))
    for views, values in scores.items():
        yield Figure(f"nDCG@{TOP}, {views}, {len(values)} seeds (spread {stdev(values):.3f})", fmean(values))
    yield Figure("title over spans", fmean(scores["title"]) - fmean(scores["spans"]), at_least=0)
