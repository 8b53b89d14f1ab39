"""The whole of `prepare` on novels, PEPs and dialogues, beside datatrove doing the same steps (DATATROVE_PYTHON)."""

import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

from benchmarks import Figure, _documents
from benchmarks.filters import PYTHON
from raysl.data.config import TokenizerConfig
from raysl.data.tokens import train_tokenizer

WORK = _documents.ROOT / "runs" / "bench_prepare_whole"
NUM_FILES = 8
PEER_EVERY = 32
"""datatrove reads every 32nd document: all of them would take it most of an hour."""
TOKENIZER_EVERY = 20
FILTERS = [
    {"type": "quality", "count_marks": True}, {"type": "repetition"},
    {"type": "c4", "terminal_punctuation": False, "min_sentences": 3}, {"type": "fineweb"},
]  # fmt: skip
"""As in configs/web.yaml: novels and PEPs are wrapped, so a line need not end a sentence. Marks count, as in datatrove."""


def run() -> Iterator[Figure]:
    """CPU seconds of the whole process tree, Ray's own processes included, from start to end."""
    if not _documents.available():
        return
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    texts = list(chain(_documents.pages(), _documents.peps(), _documents.dialogues()))
    path = WORK / "tokenizer.json"
    train_tokenizer(iter(texts[::TOKENIZER_EVERY]), TokenizerConfig(vocab_size=16000, lowercase=False)).save(str(path))
    megabytes = write_files(texts, WORK / "all")
    print(f"{len(texts):,} documents, {megabytes:.1f} MB; two workers; the tokenizer is given to both")
    used = raysl("run", path)
    print(f"  raysl: {used['cpu_s']:.1f} CPU-s, {used['wall_s']:.1f} s, peak {used['peak_mb']} MB")
    for step, one in steps("run").items():
        print(f"  {step:<13} {one['seconds']:>7.1f} s {one['cpu_seconds']:>7.1f} CPU-s", flush=True)
    yield Figure("raysl prepare, whole process tree", megabytes / used["cpu_s"], "MB/CPU-s")
    in_tasks = sum(one["cpu_seconds"] for one in steps("run").values())
    yield Figure("raysl prepare, its tasks alone", megabytes / in_tasks, "MB/CPU-s")
    if subprocess.run([PYTHON, "-c", "import datatrove, spacy"], capture_output=True).returncode:
        print("skipped: datatrove is not installed; set DATATROVE_PYTHON to an interpreter that has it")
        return
    part = texts[::PEER_EVERY]
    megabytes = write_files(part, WORK / "part")
    script = Path(__file__).with_name("_datatrove_prepare.py")
    used = measure([PYTHON, "-P", str(script), str(WORK / "part"), str(WORK / "datatrove"), str(path)])
    print(f"  datatrove: {len(part):,} documents, {megabytes:.1f} MB, {used['cpu_s']:.1f} CPU-s, {used['wall_s']:.1f} s")
    yield Figure(f"datatrove, every {PEER_EVERY}th document", megabytes / used["cpu_s"], "MB/CPU-s")


def write_files(texts: list[str], folder: Path) -> float:
    """The texts in NUM_FILES files; returns their MB."""
    folder.mkdir()
    each = -(-len(texts) // NUM_FILES)
    parts = [texts[start : start + each] for start in range(0, len(texts), each)]
    sizes = [_documents.write_jsonl(part, folder / f"{n}.jsonl", first=n * each) for n, part in enumerate(parts)]
    return sum(sizes) / 1e6


def raysl(name: str, tokenizer: Path) -> dict[str, Any]:
    config = {
        "name": name, "run_dir": str(WORK / name),
        "prepare": {"source": {"type": "files", "path": str(WORK / "all"), "id_column": "id"}, "filters": FILTERS,
                    "tokenizer": {"path": str(tokenizer)}, "partition_mb": 8.0},
        "pretrain": {"objective": "gpt", "model": {"type": "gpt", "width": 16}},
    }  # fmt: skip
    path = WORK / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return measure([sys.executable, "-m", "raysl.cli", "prepare", str(path)])


def steps(name: str) -> dict[str, dict[str, float]]:
    usage: dict[str, dict[str, float]] = json.loads((WORK / name / "prepare" / "report.json").read_text())["usage"]
    return usage


def measure(command: list[str]) -> dict[str, Any]:
    """CPU seconds of the process tree; raises with the end of the output where the command fails."""
    sys.path.insert(0, str(_documents.SHARED / "peers"))
    _, used = importlib.import_module("common").measure(command, max_bytes=16e9)
    if used["rc"]:
        raise RuntimeError(f"{' '.join(command)} failed: {used.get('tail')}")
    return dict(used)
