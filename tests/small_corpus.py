"""A corpus on which a whole run takes seconds: short labelled texts of six topics, with copies and near copies."""

import json
import random
from pathlib import Path
from typing import Any

TOPICS = {
    "network": "socket packet port server client address router header",
    "numbers": "matrix vector sum product inverse root norm scalar",
    "files": "folder path open read write delete rename copy",
    "dates": "year month day hour minute second calendar zone",
    "text": "string letter word line sentence case prefix suffix",
    "tests": "assert expect fixture mock raise pass fail skip",
}
COMMON = ["the", "a", "returns", "of", "when", "given", "and", "with", "from", "value"]


def write_corpus(path: Path, rows: int = 600) -> None:
    """JSON lines with id, text, label; every tenth text stands in it twice."""
    numbers = random.Random(0)
    with open(path, "w", encoding="utf-8") as file:
        for number in range(rows):
            label = list(TOPICS)[number % len(TOPICS)]
            words = numbers.choices([*TOPICS[label].split(), *COMMON], k=numbers.randint(12, 40))
            for copy in range(2 if number % 10 == 0 else 1):
                file.write(json.dumps({"id": f"{number}-{copy}", "text": " ".join(words), "label": label}) + "\n")


def small_run(folder: Path) -> dict[str, Any]:
    """A YAML of all stages over that corpus; its run folder is folder/run."""
    write_corpus(folder / "corpus.jsonl")
    source = {"type": "files", "path": str(folder / "corpus.jsonl"), "label_column": "label", "id_column": "id"}
    return {
        "name": "small",
        "run_dir": str(folder / "run"),
        "prepare": {
            "source": source,
            "filters": [{"type": "length", "min_chars": 80}],
            "tokenizer": {"vocab_size": 400},
            "partition_mb": 0.02,
        },
        "pretrain": {
            "objective": {"type": "contrastive_text", "span_length": 8},
            "model": {"type": "bert", "num_layers": 1, "width": 32, "num_heads": 2, "context_length": 16},
            "global_batch_size": 32,
            "max_steps": 40,
            "num_workers": 2,
            "log_every_steps": 5,
            "evaluate_every_steps": 20,
            "checkpoint": {"every_steps": 5},
        },
        "finetune": {"num_classes": 6, "labels_per_class": 10, "epochs": 2, "max_tokens": 64},
        "evaluate": {"labels_per_class": [5], "num_draws": 2, "baselines": ["tfidf", "scratch"]},
        "release": {"max_tokens": 64, "reference_rows": 50},
        "serve": {"tasks": ["classify", "embed", "search"], "port": 8123},
        "monitor": {"min_rows": 50},
    }
