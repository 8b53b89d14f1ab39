"""`raysl demo`: a run from raw documents to a served, queried and watched model, ending in one table.

Nothing is staged: the documents asked about are test rows that no stage has read, the other text is source code.
"""

import shlex
import sysconfig
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, quantiles, stdev
from typing import Any

import numpy as np

from raysl import run, storage
from raysl.data.labelled import Documents, read_documents
from raysl.errors import ConfigError
from raysl.monitor.checks import MonitorResult, monitor
from raysl.monitor.recorder import read_records
from raysl.progress import Progress, say
from raysl.run_config import RunConfig, needed
from raysl.serve.app import ask, start, url_of

TASKS = ("classify", "embed", "search")
"""What the demo asks."""
QUERIES = ("parse a date from a string", "multiply two matrices", "retry a request that failed", "draw a histogram")
"""What the demo searches the documentation for."""
NUM_REQUESTS = 400
"""Requests of each kind that the monitor judges."""


@dataclass(frozen=True)
class DemoResult:
    """What the last table shows."""

    latencies_ms: Sequence[float]
    same: MonitorResult
    other: MonitorResult


def demo(config: RunConfig, redo: bool = False) -> DemoResult:
    """Runs every stage, serves the model, asks it, and lets the monitor judge two kinds of traffic."""
    for section in ("finetune", "evaluate", "release", "serve"):
        needed(config, section)
    _check_tasks(config)
    run.run(config, redo)
    test = read_documents(config.folder / "prepare", "test")
    order = np.random.default_rng(config.seed).permutation(len(test))
    with start(config) as service:
        _show_queries(service.url, test.take(order[:2]))
        say("\nmonitor, asked about documents of the same kind:")
        latencies = _send(config, service.url, test.take(order[:NUM_REQUESTS]).texts, "documents")
        same = monitor(config)
        say("\nmonitor, asked about source code instead:")
        _send(config, service.url, source_code(NUM_REQUESTS, config.seed), "pieces of source code")
        other = monitor(config)
    result = DemoResult(latencies, same, other)
    for line in table(config, result):
        say(line)
    return result


def _check_tasks(config: RunConfig) -> None:
    modality = config.prepare.source.modality
    if modality != "text":
        raise ConfigError(
            f"`raysl demo` asks about documents, and this run reads {modality}. Use `raysl run` and `raysl serve`."
        )
    assert config.serve is not None
    served = [task.type for task in config.serve.tasks]
    lacking = [name for name in TASKS if name not in served]
    if lacking:
        raise ConfigError(
            f"`raysl demo` asks {', '.join(TASKS)}; add {', '.join(lacking)} to serve.tasks, or use `raysl run`."
        )


def _show_queries(url: str, documents: Documents) -> None:
    for text, label in zip(documents.texts, documents.labels, strict=True):
        answer = ask(url, "/v1/classify", {"text": text})
        first_line = " ".join(text.split())[:70]
        say(f'\nPOST /v1/classify  "{first_line}..."')
        say(f"  -> {answer['label']}  confidence {answer['confidence']:.2f}  (it is from {label})")
    vector = ask(url, "/v1/embed", {"text": documents.texts[0]})["embedding"]
    say(f"\nPOST /v1/embed     the same text\n  -> {len(vector)} numbers: {', '.join(f'{v:.3f}' for v in vector[:4])}, ...")
    for query in QUERIES:
        say(f'\nPOST /v1/search    "{query}"')
        for hit in ask(url, "/v1/search", {"text": query, "limit": 3})["documents"]:
            say(f"  {hit['score']:.2f}  {hit['id']}  {' '.join(hit['snippet'].split())[:60]}")


def _send(config: RunConfig, url: str, texts: Sequence[str], unit: str) -> list[float]:
    """Asks for the class of each text, waits until all are recorded, and returns the latencies in ms."""
    before, latencies = read_records(config.folder).num_rows, []
    with Progress("ask", len(texts), unit) as progress:
        for text in texts:
            started = time.perf_counter()
            ask(url, "/v1/classify", {"text": text})
            latencies.append(1000 * (time.perf_counter() - started))
            progress.advance()
    deadline = time.monotonic() + 30
    while read_records(config.folder).num_rows < before + len(texts) and time.monotonic() < deadline:
        time.sleep(0.2)
    return latencies


def source_code(count: int, seed: int) -> list[str]:
    """Pieces of 20 lines of the standard library's source: text of another kind that every machine has."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    generator = np.random.default_rng(seed)
    pieces: list[str] = []
    while len(pieces) < count:
        lines = files[generator.integers(len(files))].read_text(encoding="utf-8", errors="replace").splitlines()
        start_line = int(generator.integers(max(1, len(lines) - 20)))
        piece = "\n".join(lines[start_line : start_line + 20]).strip()
        if len(piece) >= 200:
            pieces.append(piece)
    return pieces


def table(config: RunConfig, result: DemoResult) -> list[str]:
    """The whole run in one table, read from the files of the run folder."""
    stages = storage.read_json(config.folder / "manifest.json")["stages"]
    rows: list[tuple[str, str]] = [*_prepared(stages["prepare"]), *_pretrained(stages["pretrain"])]
    rows += _few_labels(storage.read_json(config.folder / "evaluate" / "report.json"))
    p50, p95 = quantiles(result.latencies_ms, n=20)[9], quantiles(result.latencies_ms, n=20)[18]
    rows += [
        ("ONNX against PyTorch", f"largest difference {stages['release']['metrics']['parity']:.1e}"),
        ("latency over HTTP", f"{p50:.1f} ms median, {p95:.1f} ms at 95 %"),
        ("monitor", f"{result.same.verdict} for more documents, {result.other.verdict} for source code"),
        ("seconds by stage", ", ".join(f"{name} {stage['seconds']:.0f}" for name, stage in stages.items())),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"  {name:<{width}}  {value}" for name, value in rows]
    return ["", f"raysl demo: {config.name}", *lines, "", *_next_steps(config)]


def _prepared(stage: dict[str, Any]) -> list[tuple[str, str]]:
    counts = stage["counts"]
    dropped = sorted(counts["dropped"].items(), key=lambda item: -item[1])
    tokens = counts["tokens"]
    return [
        ("documents in", f"{counts['documents_in']:,}"),
        ("kept", f"{counts['kept']:,}"),
        *((f"dropped: {reason}", f"{count:,}") for reason, count in dropped if count),
        ("tokens", ", ".join(f"{split} {count:,}" for split, count in tokens.items())),
    ]


def _pretrained(stage: dict[str, Any]) -> list[tuple[str, str]]:
    metrics = {name: value for name, value in stage["metrics"].items() if name.startswith("held_out")}
    steps = f"{stage['counts']['parameters']:,} parameters, {stage['counts']['steps']:,} steps"
    losses = ", ".join(f"{name.removeprefix('held_out_').replace('_', ' ')} {value:.3f}" for name, value in metrics.items())
    return [("network", steps), ("held-out loss", losses)]


def _few_labels(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Macro-F1 of every method, the best first; the order is that of the figures, whichever wins."""
    rows = []
    budgets = sorted({entry["labels_per_class"] for entry in report["few_label"]})
    for budget in budgets:
        entries = [entry for entry in report["few_label"] if entry["labels_per_class"] == budget]
        for entry in sorted(entries, key=lambda e: -fmean(e["macro_f1"])):
            name = f"{budget} labels a class: {entry['method']}"
            rows.append((name, f"macro-F1 {_spread(entry['macro_f1'])}   accuracy {_spread(entry['accuracy'])}"))
    return rows


def _spread(values: Sequence[float]) -> str:
    return f"{fmean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def _next_steps(config: RunConfig) -> list[str]:
    assert config.serve is not None
    folder = config.folder.relative_to(Path.cwd()) if config.folder.is_relative_to(Path.cwd()) else config.folder
    return [
        f"everything lies in {folder}; open {folder}/report.html in a browser",
        f"next: raysl serve {shlex.quote(f'{folder}/config.yaml')}     answers at {url_of(config.serve)}",
        "      docs/run.md                         the same with your own documents",
    ]
