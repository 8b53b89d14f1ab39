"""Tokens from documents to shards beside raw `tokenizers.encode_batch` (needs ../shared, or RAYSL_SHARED)."""

import gzip
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from benchmarks import Figure
from raysl import storage
from raysl.data.clean import ROWS, Cleaner
from raysl.data.config import PrepareConfig, TokenizerConfig
from raysl.data.dedup import PLAN, split_of
from raysl.data.prints import PrintSettings
from raysl.data.sources import Files
from raysl.data.tokens import TokenWriter, train_tokenizer
from raysl.schema import SPLITS, TEXT, TRAIN

SHARED = Path(os.environ.get("RAYSL_SHARED", Path(__file__).parents[1].parent / "shared"))
EVERY = {"gutenberg": 12, "peps": 12, "dialogues": 12}
"""One document in so many is taken."""
REPEATS = 5
VOCAB_SIZE = 16_000


def run() -> Iterator[Figure]:
    """Both ways tokenize the same cleaned texts in this process, by turns, on one thread; CPU seconds are compared."""
    folder = SHARED / "data" / "text"
    if not folder.is_dir():
        print(f"skipped: {folder} is not there; set RAYSL_SHARED to the folder that holds data/")
        return
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in sample(folder)))
        config = PrepareConfig.model_validate({"source": {"type": "files", "path": str(work / "texts.jsonl")}})
        units = cleaned(config, work)
        texts = {unit: pq.read_table(unit / ROWS)[TEXT].to_pylist() for unit in units}
        megabytes = sum(len(text.encode()) for own in texts.values() for text in own) / 1e6
        print(f"{megabytes:.1f} MB, {sum(map(len, texts.values())):,} documents in {len(units)} units, {REPEATS} repeats")
        for kind in ("bpe", "wordpiece"):
            yield from compared(kind, units, texts, megabytes, work)


def sample(folder: Path) -> Iterator[str]:
    for path in sorted((folder / "gutenberg").glob("*.txt.gz"))[:: EVERY["gutenberg"]]:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            yield file.read()
    for number, row in enumerate(_rows(folder / "peps.jsonl.gz")):
        if number % EVERY["peps"] == 0:
            yield str(row["text"])
    for number, row in enumerate(_rows(folder / "dialogues.jsonl.gz")):
        if number % EVERY["dialogues"] == 0:
            yield "\n".join(f"{turn['speaker']}: {turn['text']}" for turn in row["turns"])  # type: ignore[attr-defined]


def _rows(path: Path) -> Iterator[dict[str, object]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def cleaned(config: PrepareConfig, work: Path) -> list[Path]:
    """Units as `prepare` leaves them before its last step: clean rows, prints, and a plan under which all stay."""
    cleaner = Cleaner(config, PrintSettings.of(config.deduplicate), 0, compiled=False)
    units = []
    for number, partition in enumerate(Files(config.source).partitions(config.partition_mb)):
        units.append(work / f"clean-{number:05d}")
        cleaner(partition, units[-1])
        rows = pq.read_table(units[-1] / ROWS)
        splits = [split_of(one, 0, config.split) for one in rows["id"].to_pylist()]
        places = np.arange(len(rows))
        plan = pa.table([places, rows["id"], rows["label"], places, splits], schema=PLAN)
        (work / "plan").mkdir(exist_ok=True)
        pq.write_table(plan, work / "plan" / f"part-{number:05d}.parquet")
    return units


def compared(kind: str, units: list[Path], texts: dict[Path, list[str]], megabytes: float, work: Path) -> Iterator[Figure]:
    trained = train_tokenizer(
        (text for own in texts.values() for text in own), TokenizerConfig(type=kind, vocab_size=VOCAB_SIZE)
    )
    storage.write_text(work / "tokenizer.json", trained.to_str(pretty=True))
    tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
    writer = TokenWriter(work)
    own, raw, fast = [], [], []
    for _ in range(REPEATS):
        own.append(
            seconds(lambda: [writer(unit, work / "plan", n, work / f"tokens-{n}.json") for n, unit in enumerate(units)])
        )
        raw.append(seconds(lambda: [tokenizer.encode_batch(own, add_special_tokens=False) for own in texts.values()]))
        fast.append(seconds(lambda: [tokenizer.encode_batch_fast(own, add_special_tokens=False) for own in texts.values()]))
    yield Figure(f"{kind}: documents to shards, written", megabytes / statistics.median(own), "MB/CPU-s")
    yield Figure(f"{kind}: raw encode_batch", megabytes / statistics.median(raw), "MB/CPU-s")
    yield Figure(f"{kind}: raw encode_batch_fast", megabytes / statistics.median(fast), "MB/CPU-s")
    ratios = sorted(theirs / ours for theirs, ours in zip(raw, own, strict=True))
    yield Figure(f"{kind}: ours over encode_batch, median", statistics.median(ratios), "", at_least=0.9)
    yield Figure(f"{kind}: the same, worst of {REPEATS}", ratios[0])
    yield Figure(f"{kind}: the same, best of {REPEATS}", ratios[-1])
    counted = [storage.read_json(work / f"tokens-{n}.json") for n in range(len(units))]
    total = {key: sum(one[split][key] for one in counted for split in SPLITS) for key in counted[0][TRAIN]}
    yield Figure(f"{kind}: bytes of text per token", total["bytes"] / (total["tokens"] - total["documents"]))
    yield Figure(f"{kind}: unknown tokens", 100 * total["unknown"] / total["tokens"], "%")


def seconds(function: Callable[[], object]) -> float:
    """CPU seconds of all threads of this process."""
    started = time.process_time()
    function()
    return time.process_time() - started
