"""How text is prepared: clean, de-duplicate, train a tokenizer, write token shards."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raysl.data import prepare_report
from raysl.data.clean import STATS, Cleaner, read_stats
from raysl.data.decontaminate import write_ngrams
from raysl.data.dedup import Planner, write_index_settings
from raysl.data.given_tokenizer import read_given_tokenizer
from raysl.data.prints import PrintSettings
from raysl.data.sources import Partition
from raysl.data.steps import Recipe
from raysl.data.tokens import TokenizerTrainer, TokenWriter

COMPILE_FROM_MB = 200
"""Raw text from which compiling kernels (10 s in each worker, once per machine) saves time over numpy."""


@dataclass
class TextRecipe(Recipe):
    """Documents -> clean documents, tokenizer.json, token shards, an index for the next round."""

    units: list[Path] = field(default_factory=list)

    def run(self, partitions: Sequence[Partition]) -> tuple[dict[str, Any], dict[str, float]]:
        self.read_evaluation()
        self.clean(partitions)
        self.plan()
        self.train_tokenizer()
        self.write_tokens()
        report = prepare_report.write(self.folder, self.config, self.units, self.plan_folder, self.seed, self.usage)
        return report.counts, report.metrics

    @property
    def plan_folder(self) -> Path:
        return self.work / "plan"

    @property
    def evaluation(self) -> Path:
        return self.work / "evaluation.npy"

    def read_evaluation(self) -> None:
        """Hashes the n-grams of the evaluation set, where there is one."""
        if self.config.decontaminate is None:
            return
        left = not self.evaluation.is_file()
        with self.step("evaluation set", 1, int(left)) as step:
            calls = [(self.config.decontaminate, self.config.partition_mb, self.evaluation)] * left
            step.run_calls(write_ngrams, calls, lambda stats: (stats["ngrams"], "n-grams"))

    def clean(self, partitions: Sequence[Partition]) -> None:
        self.units = [self.work / f"clean-{number:05d}" for number in range(len(partitions))]
        compiled = len(partitions) * self.config.partition_mb >= COMPILE_FROM_MB
        prints = PrintSettings.of(self.config.deduplicate)
        cleaner = Cleaner(self.config, prints, self.seed, compiled, self.evaluation)
        left = [(unit, part) for unit, part in zip(self.units, partitions, strict=True) if not unit.is_dir()]
        with self.step("clean", len(partitions), len(left)) as step:
            calls = [(part, unit) for unit, part in left]
            step.run_calls(cleaner, calls, lambda stats: (stats["clean"], "documents"))
        prepare_report.check(self.config, [read_stats(unit) for unit in self.units])

    def plan(self) -> None:
        planner = Planner(PrintSettings.of(self.config.deduplicate), self.config.split, self.seed)
        left = not self.plan_folder.is_dir()
        with self.step("deduplicate", 1, int(left)) as step:
            step.run_calls(planner, [(self.units, self.plan_folder)] * left, lambda stats: (stats["kept"], "documents stay"))

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
        writer = TokenWriter(self.folder)
        calls = [(unit, self.plan_folder, number, tokens_done(unit)) for number, unit in enumerate(self.units)]
        left = [call for call in calls if not call[-1].is_file()]
        with self.step("tokenize", len(calls), len(left)) as step:
            step.run_calls(writer, left, lambda stats: (sum(s["tokens"] for s in stats.values()), "tokens"))


def tokens_done(unit: Path) -> Path:
    """Marks that the output files of a unit are all there, and holds their counts."""
    return unit.with_name(unit.name.replace("clean-", "tokens-") + f".{STATS}")
