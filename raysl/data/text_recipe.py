"""How text is prepared: clean, de-duplicate, train a tokenizer, write token shards."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raysl import storage
from raysl.catalog import FILTERS
from raysl.data import prepare_report
from raysl.data.clean import STATS, Cleaner, read_counts, read_stats
from raysl.data.decisions import Corpus, batches, decide_in_one_task
from raysl.data.decontaminate import write_ngrams
from raysl.data.dedup import write_index_settings
from raysl.data.given_tokenizer import read_given_tokenizer
from raysl.data.keyed import Keyed
from raysl.data.plan import Planner
from raysl.data.prints import PrintSettings
from raysl.data.sources import Partition
from raysl.data.steps import Recipe
from raysl.data.tokens import TokenizerTrainer, TokenWriter
from raysl.progress import say

COMPILE_FROM_MB, COMPILE_FILTERS_FROM_MB = 200, 50
"""Raw text from which compiling kernels (10 to 25 s in each worker, once per machine) saves time over numpy: without and
with filters that measure documents, which gain most."""
PLANNED_AT_ONCE = 20_000
"""Documents of one plan task, so that few small units do not cost a task each."""


@dataclass
class TextRecipe(Recipe):
    """Documents -> clean documents, tokenizer.json, token shards, an index for the next round."""

    units: list[Path] = field(default_factory=list)
    corpus: Corpus = field(init=False)
    """Known once all units are clean."""

    def run(self, partitions: Sequence[Partition]) -> tuple[dict[str, Any], dict[str, float]]:
        self.read_evaluation()
        self.clean(partitions)
        self.find_duplicates()
        self.plan()
        self.train_tokenizer()
        self.write_tokens()
        report = prepare_report.write(self.folder, self.config, self.units, self.plan_folder, self.seed, self.usage)
        return report.counts, report.metrics

    @property
    def plan_folder(self) -> Path:
        return self.work / "plan"

    @property
    def decided(self) -> Path:
        return self.work / "decided"

    @property
    def evaluation(self) -> Path:
        return self.work / "evaluation.npy"

    def read_evaluation(self) -> None:
        """Hashes the n-grams of the evaluation set, where there is one."""
        if self.config.decontaminate is None:
            return
        left = not self.evaluation.is_file()
        with self.step("evaluation set", 1, int(left)) as step:
            calls = [(self.config.decontaminate, self.config.partition_mb, self.evaluation, self.config.redact)] * left
            step.run_calls(write_ngrams, calls, evaluation_read)

    def clean(self, partitions: Sequence[Partition]) -> None:
        self.units = [self.work / f"clean-{number:05d}" for number in range(len(partitions))]
        measured = any(FILTERS.load(one.type).has_kernels for one in self.config.filters)
        least = COMPILE_FILTERS_FROM_MB if measured else COMPILE_FROM_MB
        compiled = len(partitions) * self.config.partition_mb >= least
        prints = PrintSettings.of(self.config.deduplicate)
        cleaner = Cleaner(self.config, prints, self.seed, compiled, self.evaluation)
        left = [(unit, part) for unit, part in zip(self.units, partitions, strict=True) if not unit.is_dir()]
        with self.step("clean", len(partitions), len(left)) as step:
            calls = [(part, unit) for unit, part in left]
            step.run_calls(cleaner, calls, lambda stats: (stats["clean"], "documents"))
        stats = [read_counts(unit) for unit in self.units]
        prepare_report.check(self.config, stats)
        sizes = tuple(one["clean"] for one in stats)
        self.corpus = Corpus(tuple(self.units), sizes, prints, self.config.deduplicate.max_task_mb)

    def find_duplicates(self) -> None:
        """In one task while the documents fit it, in many beyond that; the decisions are the same."""
        if self.corpus.fits_one_task or self.decided.is_dir():
            self.run_left("deduplicate", decide_in_one_task, [((self.corpus, self.decided), self.decided)], "duplicates")
            return
        keyed = Keyed(self.corpus, self.work / "keyed")
        keyed.begin()
        scatters = [(call, keyed.scattered(call[0])) for call in keyed.scatters()]
        self.run_left("scatter keys", keyed.scatter, scatters)
        self.run_left("gather keys", keyed.gather, [((n,), keyed.part(n)) for n in range(keyed.num_parts)])
        for level in keyed.levels():
            self.run_left("merge keys", keyed.merge, [(call, call[1]) for call in level])
        self.run_left("compare", keyed.compare, [((n,), keyed.compared(n)) for n in range(keyed.num_groups())])
        self.run_left("deduplicate", keyed.collect, [((self.decided,), self.decided)], "duplicates")
        storage.remove(keyed.folder)

    def run_left(self, name: str, function: Callable[..., dict[str, Any]], calls: Sequence[tuple[tuple[Any, ...], Path]],
                 counted: str = "documents") -> None:  # fmt: skip
        """Runs the calls whose path is not there yet."""
        left = [call for call, path in calls if not path.exists()]
        with self.step(name, len(calls), len(left)) as step:
            step.run_calls(function, left, lambda stats: (stats["documents"], counted))

    def plan(self) -> None:
        planner = Planner(self.corpus, self.decided, self.plan_folder, self.config.split, self.seed)
        calls = [(call, planner.stats_path(call[1] - 1)) for call in batches(self.corpus.sizes, PLANNED_AT_ONCE)]
        self.run_left("plan", planner, calls, "documents stay")
        if not (self.plan_folder / STATS).is_file():
            planner.summary()

    def train_tokenizer(self) -> None:
        train_bytes = read_stats(self.plan_folder)["train_bytes"]
        given = None if self.config.tokenizer.path is None else read_given_tokenizer(Path(self.config.tokenizer.path))
        trainer = TokenizerTrainer(self.config.tokenizer, self.seed, train_bytes, given)
        path = self.folder / "tokenizer.json"
        left = not path.is_file()
        with self.step("tokenizer", 1, int(left)) as step:
            calls = [(self.units, self.plan_folder, path)] * left
            step.run_calls(trainer, calls, lambda stats: (stats["vocab_size"], "entries"))

    def write_tokens(self) -> None:
        write_index_settings(self.folder / "dedup_index", PrintSettings.of(self.config.deduplicate))
        writer = TokenWriter(self.folder, self.config.yields_titles)
        calls = [(unit, self.plan_folder, number, tokens_done(unit)) for number, unit in enumerate(self.units)]
        left = [call for call in calls if not call[-1].is_file()]
        with self.step("tokenize", len(calls), len(left)) as step:
            step.run_calls(writer, left, lambda stats: (sum(s["tokens"] for s in stats.values()), "tokens"))


def evaluation_read(stats: dict[str, Any]) -> tuple[int, str]:
    """How much there is to compare with; tells the user which rows of the evaluation set are not."""
    if stats["bad"]:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(stats["bad"].items()))
        say(f"prepare: {sum(stats['bad'].values()):,} rows of the evaluation set cannot be used: {reasons}")
    return stats["ngrams"], "n-grams"


def tokens_done(unit: Path) -> Path:
    """Marks that the output files of a unit are all there, and holds their counts."""
    return unit.with_name(unit.name.replace("clean-", "tokens-") + f".{STATS}")
