"""What `prepare` costs before there is much to do: 1,000 documents on a cluster that has started."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import Figure
from benchmarks._synthetic import write_corpus
from raysl import cluster, storage
from raysl.data.pipeline import prepare
from raysl.run_config import RunConfig

RUNS = 3


def run() -> Iterator[Figure]:
    """The first run of a fresh cluster, which starts its workers, and later ones."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_corpus(folder / "corpus.parquet", 1000)
        cluster.connect(num_cpus=2)
        walls = []
        for number in range(RUNS):
            config = make_config(folder / str(number), folder / "corpus.parquet")
            started = time.monotonic()
            prepare(config)
            walls.append(time.monotonic() - started)
            usage = storage.read_json(config.folder / "prepare" / "report.json")["usage"]
            print(f"run {number}: " + ", ".join(f"{step} {used['seconds']:.2f} s" for step, used in usage.items()))
        cluster.disconnect()
    yield Figure("prepare, 1,000 documents, first on a cluster", walls[0], "s", at_most=10)
    yield Figure("prepare, 1,000 documents, later", min(walls[1:]), "s", at_most=10)


def make_config(folder: Path, corpus: Path, **deduplicate: float) -> RunConfig:
    folder.mkdir(parents=True, exist_ok=True)
    return RunConfig.model_validate(
        {
            "name": "bench", "run_dir": str(folder / "run"),
            "prepare": {
                "source": {"type": "files", "path": str(corpus), "id_column": "id"},
                "tokenizer": {"vocab_size": 4000, "max_training_mb": 5}, "deduplicate": deduplicate,
            },
            "pretrain": {"objective": "bert", "model": {"type": "bert", "width": 16}},
        }
    )  # fmt: skip
