"""`prepare`: raw documents -> clean, de-duplicated, tokenized shards, on Ray Data.

Work is cut into units that depend on the source alone. Each is a plain function of its inputs that leaves files behind
whole or not at all, and whose files are not made again; so the same bytes come out whatever the number of workers, and
a run killed at any moment continues where it was.
"""

import json
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raysl import cluster, storage
from raysl.catalog import FILTERS, SOURCES
from raysl.data import prepare_report
from raysl.data.clean import STATS, Cleaner, read_stats
from raysl.data.config import PrepareConfig
from raysl.data.decontaminate import write_ngrams
from raysl.data.dedup import Planner, write_index_settings
from raysl.data.prints import PrintSettings
from raysl.data.sources import Partition, Source
from raysl.data.tokens import TokenizerTrainer, TokenWriter
from raysl.progress import Progress, say
from raysl.run_config import RunConfig
from raysl.stage import Manifest, Stage, check_same_config, section

WORK = "work"
MAX_RETRIES = 3
"""Starts of a task whose process dies; Ray Data's own default is without end, so running out of memory never fails."""
COMPILE_FROM_MB = 200
"""Raw text from which compiling kernels (10 s in each worker, once per machine) saves time over numpy."""


def prepare(config: RunConfig, redo: bool = False) -> Manifest:
    """Makes <run>/prepare, or returns its manifest at once where nothing has changed.

    Raises DataError for a source that is missing, empty or mostly broken, and where the filters leave nothing.
    """
    source = SOURCES.load(config.prepare.source.type)(config.prepare.source)
    stage = Stage(config.folder, "prepare", section(config, "prepare", "seed"), inputs_of(config.prepare, source))
    manifest = stage.done()
    if manifest is not None and not redo:
        say(f"prepare: done already, {manifest.counts['kept']:,} documents in {stage.folder}")
        return manifest
    check_same_config(stage, redo)
    for one in config.prepare.filters:
        FILTERS.load(one.type)(one)  # says what is missing before a cluster starts
    partitions = source.partitions(config.prepare.partition_mb)
    if redo and manifest is not None:
        storage.remove(stage.folder)
    folder = stage.begin()
    run = Run(folder, config.prepare, config.seed)
    run.clear_unfinished()
    run.read_evaluation()
    run.clean(partitions)
    run.plan()
    run.train_tokenizer()
    run.write_tokens()
    report = prepare_report.write(folder, run.config, run.units, run.plan_folder, config.seed, run.seconds)
    files = storage.hash_folder(folder, lambda path: _is_output(path.relative_to(folder)))
    manifest = stage.finish(report.counts, report.metrics, files)
    storage.remove(folder / WORK)
    say(prepare_report.table(manifest.counts))
    say(f"prepare: {manifest.counts['kept']:,} documents in {folder}")
    return manifest


def inputs_of(config: PrepareConfig, source: Source) -> dict[str, str]:
    """Names the content of everything that is read."""
    inputs = {"source": source.fingerprint()}
    for number, one in enumerate(config.filters):
        if hasattr(one, "fingerprint"):  # a filter that reads a file
            inputs[f"filters.{number}"] = one.fingerprint()
    if config.decontaminate is not None:
        evaluation = config.decontaminate.source
        inputs["decontaminate"] = SOURCES.load(evaluation.type)(evaluation).fingerprint()
    return inputs


def _is_output(path: Path) -> bool:
    """Timings differ from run to run, so the report is no output that a hash could name."""
    return path.parts[0] != WORK and path.name not in (prepare_report.REPORT, "manifest.json")


@dataclass
class Run:
    """The steps of one `prepare`, each skipping what an earlier start has finished."""

    folder: Path
    config: PrepareConfig
    seed: int
    units: list[Path] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def work(self) -> Path:
        return self.folder / WORK

    @property
    def plan_folder(self) -> Path:
        return self.work / "plan"

    def clear_unfinished(self) -> None:
        """Removes what a killed start left under temporary names."""
        for path in [*self.folder.rglob(".*.tmp")]:
            storage.remove(path)

    @property
    def evaluation(self) -> Path:
        return self.work / "evaluation.npy"

    def read_evaluation(self) -> None:
        """Hashes the n-grams of the evaluation set, where there is one."""
        if self.config.decontaminate is None:
            return
        left = not self.evaluation.is_file()
        with self._step("evaluation set", 1, int(left)) as progress:
            calls = [(self.config.decontaminate, self.config.partition_mb, self.evaluation)] * left
            run_calls(write_ngrams, calls, progress, lambda stats: (stats["ngrams"], "n-grams"))

    def clean(self, partitions: Sequence[Partition]) -> None:
        self.units = [self.work / f"clean-{number:05d}" for number in range(len(partitions))]
        compiled = len(partitions) * self.config.partition_mb >= COMPILE_FROM_MB
        prints = PrintSettings.of(self.config.deduplicate)
        cleaner = Cleaner(self.config, prints, self.seed, compiled, self.evaluation)
        left = [(unit, part) for unit, part in zip(self.units, partitions, strict=True) if not unit.is_dir()]
        with self._step("clean", len(partitions), len(left)) as progress:
            calls = [(part, unit) for unit, part in left]
            run_calls(cleaner, calls, progress, lambda stats: (stats["clean"], "documents"))
        prepare_report.check(self.config, [read_stats(unit) for unit in self.units])

    def plan(self) -> None:
        planner = Planner(PrintSettings.of(self.config.deduplicate), self.config.split, self.seed)
        left = not self.plan_folder.is_dir()
        with self._step("deduplicate", 1, int(left)) as progress:
            run_calls(
                planner, [(self.units, self.plan_folder)] * left, progress, lambda stats: (stats["kept"], "documents stay")
            )

    def train_tokenizer(self) -> None:
        train_bytes = read_stats(self.plan_folder)["train_bytes"]
        trainer = TokenizerTrainer(self.config.tokenizer, self.seed, train_bytes)
        path = self.folder / "tokenizer.json"
        left = not path.is_file()
        with self._step("tokenizer", 1, int(left)) as progress:
            calls = [(self.units, self.plan_folder, path)] * left
            run_calls(trainer, calls, progress, lambda stats: (stats["vocab_size"], "entries"))

    def write_tokens(self) -> None:
        write_index_settings(self.folder / "dedup_index", PrintSettings.of(self.config.deduplicate))
        writer = TokenWriter(self.folder)
        calls = [(unit, self.plan_folder, number, tokens_done(unit)) for number, unit in enumerate(self.units)]
        left = [call for call in calls if not call[-1].is_file()]
        with self._step("tokenize", len(calls), len(left)) as progress:
            run_calls(writer, left, progress, lambda stats: (sum(s["tokens"] for s in stats.values()), "tokens"))

    def _step(self, name: str, total: int, left: int) -> "Step":
        return Step(self, name, total, left)


class Step:
    """Progress and time of one step; starts the cluster when there is work left."""

    def __init__(self, run: Run, name: str, total: int, left: int) -> None:
        self.run, self.name, self.left = run, name, left
        self.progress = Progress(f"prepare: {name}", total=total, unit="partitions" if total > 1 else "")
        self.total = total

    def __enter__(self) -> Progress:
        self.started = time.monotonic()
        self.progress.__enter__()
        self.progress.start_at(self.total - self.left)
        if self.left:
            cluster.connect()
        return self.progress

    def __exit__(self, *error: Any) -> None:
        self.progress.__exit__(*error)
        self.run.seconds[self.name] = round(time.monotonic() - self.started, 2)


def tokens_done(unit: Path) -> Path:
    """Marks that the output files of a unit are all there, and holds their counts."""
    return unit.with_name(unit.name.replace("clean-", "tokens-") + f".{STATS}")


def run_calls(function: Callable[..., dict[str, Any]], calls: Sequence[tuple[Any, ...]], progress: Progress,
              counted: Callable[[dict[str, Any]], tuple[int, str]]) -> None:  # fmt: skip
    """Runs `function(*call)` for every call as one Ray Data task each; the driver holds only the counts."""
    if not calls:
        return
    import pickle

    import ray

    def task(row: dict[str, Any]) -> dict[str, Any]:
        return {"stats": json.dumps(function(*pickle.loads(row["call"])))}

    rows = [{"call": pickle.dumps(call)} for call in calls]
    count = 0
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the only way to bound retries; gone in Ray 2.64
        dataset = dataset.map(task, ray_remote_args_fn=lambda: {"max_retries": MAX_RETRIES})
    for row in dataset.iter_rows():
        amount, unit = counted(json.loads(row["stats"]))
        count += amount
        progress.advance(1, note=f"{count:,} {unit}")
