"""A small corpus of made-up documents with copies, near-copies and broken rows, and a config over it."""

import json
from pathlib import Path

import numpy as np
import yaml

from raysl import run_config
from raysl.run_config import RunConfig

NUM_BASE = 240


def make_rows(seed: int = 0) -> list[dict[str, object]]:
    """240 different documents; then 20 copies with another label, and 20 near-copies without any."""
    random = np.random.default_rng(seed)
    rows = []
    for number in range(NUM_BASE):
        words = [f"word{n}" for n in random.integers(0, 3000, 60)]
        rows.append({"id": f"base{number}", "text": " ".join(words), "label": f"topic{number % 4}"})
    rows += [{"id": f"copy{n}", "text": rows[n]["text"], "label": "other"} for n in range(20)]
    rows += [{"id": f"near{n}", "text": f"{rows[n]['text']} and more", "label": None} for n in range(20, 40)]
    rows += [{"id": f"short{n}", "text": f"tiny {n}", "label": "topic0"} for n in range(12)]
    return rows


def write_corpus(folder: Path) -> Path:
    """Three .jsonl files, the second with a broken line, the third with a row without text."""
    folder.mkdir(parents=True)
    lines = [json.dumps(row) for row in make_rows()]
    parts = [lines[:100], [*lines[100:200], '{"id": "cut", "text": "x'], [*lines[200:], '{"id": "none"}']]
    for number, part in enumerate(parts):
        (folder / f"part{number}.jsonl").write_text("\n".join(part) + "\n")
    return folder


def write_config(path: Path, corpus: Path, run_dir: Path, **prepare: object) -> Path:
    data = {
        "name": "tiny", "run_dir": str(run_dir), "seed": 3,
        "prepare": {
            "source": {"type": "files", "path": str(corpus), "label_column": "label", "id_column": "id"},
            "filters": [{"type": "length", "min_chars": 50}],
            "tokenizer": {"vocab_size": 400},
            "split": {"validation": 0.1, "test": 0.2},
            "partition_mb": 0.01,
            **prepare,
        },
        "pretrain": {"objective": "bert", "model": {"type": "bert", "width": 16}},
    }  # fmt: skip
    path.write_text(yaml.safe_dump(data))
    return path


def make_config(folder: Path, **prepare: object) -> RunConfig:
    corpus = folder / "corpus"
    if not corpus.is_dir():
        write_corpus(corpus)
    return run_config.load(write_config(folder / "config.yaml", corpus, folder / "run", **prepare))
