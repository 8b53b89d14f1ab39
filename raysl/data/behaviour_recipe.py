"""How behaviour is prepared: read events, put each user's in order, cut time, give items tokens, write sequences."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from raysl.catalog import SOURCES
from raysl.data import behaviour_report, cuts, prepare_report
from raysl.data.clean import STATS, read_counts, read_stats
from raysl.data.config import BehaviourConfig, PrepareConfig
from raysl.data.events import EventReader
from raysl.data.items import CatalogueWriter
from raysl.data.ordering import EventOrder
from raysl.data.sequences import SequenceWriter
from raysl.data.sources import Partition
from raysl.data.steps import Recipe
from raysl.data.times import micros_of

MAX_BUCKETS = 400
"""Buckets of users at most. Every bucket looks into every partition, so as many as partitions would be 600 million looks
for 50 GB; from 400 partitions on, memory of a bucket grows instead: 125 MB of text each at 50 GB."""


@dataclass
class BehaviourRecipe(Recipe):
    """Events -> items.parquet, tokenizer.json, token shards as of text, and held-out targets with their context."""

    rows_name: ClassVar[str] = "events"
    units: list[Path] = field(default_factory=list)
    ordered: list[Path] = field(default_factory=list)

    @classmethod
    def cut(cls, config: PrepareConfig, partitions: Sequence[Partition]) -> Any:
        """Work with a bucket for every partition, however many, cannot be gone on with in fewer."""
        buckets = bucket_a_partition(config, partitions)
        return partitions if buckets <= MAX_BUCKETS else {"partitions": partitions, "buckets": MAX_BUCKETS}

    def run(self, partitions: Sequence[Partition]) -> tuple[dict[str, Any], dict[str, float]]:
        self.read(partitions)
        self.order()
        self.make_vocabulary()
        self.write_sequences()
        return behaviour_report.write(self.folder, self.units, self.ordered, self.cuts, self.seed, self.usage)

    @property
    def settings(self) -> BehaviourConfig:
        return self.config.behaviour or BehaviourConfig()

    def read(self, partitions: Sequence[Partition]) -> None:
        num_buckets = min(bucket_a_partition(self.config, partitions), MAX_BUCKETS)
        self.units = [self.work / f"read-{number:05d}" for number in range(len(partitions))]
        self.ordered = [self.work / f"order-{number:05d}" for number in range(num_buckets)]
        reader = EventReader(self.config, self.seed, num_buckets)
        calls = [(part, unit) for part, unit in zip(partitions, self.units, strict=True) if not unit.is_dir()]
        with self.step("read", len(partitions), len(calls)) as step:
            step.run_calls(reader, calls, lambda stats: (stats["clean"], "events"))
        prepare_report.check(self.config, [read_counts(unit) for unit in self.units], self.rows_name, "prepare.source.where")

    def order(self) -> None:
        order = EventOrder(self.units, self.seed, None if self.settings.split.cuts else self.bin_width)
        calls = [(number, unit) for number, unit in enumerate(self.ordered) if not unit.is_dir()]
        with self.step("order", len(self.ordered), len(calls)) as step:
            step.run_calls(order, calls, lambda stats: (stats["events"], "events"))

    @property
    def bin_width(self) -> int:
        spans = [span for span in (read_stats(unit)["span"] for unit in self.units) if span]
        return cuts.bin_width(min(first for first, _ in spans), max(last for _, last in spans))

    @property
    def cuts(self) -> tuple[int, int]:
        """Those of the config, or those that leave the shares it asks for."""
        split = self.settings.split
        if split.cuts:
            return micros_of(split.cuts[0]), micros_of(split.cuts[1])
        bins = (one for unit in self.ordered for one in read_stats(unit)["bins"])
        return cuts.choose_cuts(bins, self.bin_width, split.validation, split.test)

    def make_vocabulary(self) -> None:
        writer = CatalogueWriter(self.folder, self.settings, self.cuts[0])
        calls = [(self.ordered,)] * (not (self.folder / "tokenizer.json").is_file())
        with self.step("vocabulary", 1, len(calls)) as step:
            step.run_calls(writer, calls, lambda stats: (stats["vocab_size"], "entries"))

    def write_sequences(self) -> None:
        writer = SequenceWriter(self.folder, self.cuts, self.settings.min_user_events, self.seed)
        calls = [(unit, number, written(unit)) for number, unit in enumerate(self.ordered) if not written(unit).is_file()]
        with self.step("sequences", len(self.ordered), len(calls)) as step:
            step.run_calls(writer, calls, lambda stats: (sum(s["events"] for s in stats["splits"].values()), "events"))


def bucket_a_partition(config: PrepareConfig, partitions: Sequence[Partition]) -> int:
    """How many buckets of about the size of a partition the source makes."""
    size_mb: float = SOURCES.load(config.source.type)(config.source).size_mb()
    return max(len(partitions), math.ceil(size_mb / config.partition_mb))


def written(unit: Path) -> Path:
    """Marks that the output files of a bucket are all there, and holds their counts."""
    return unit.with_name(f"{unit.name}.{STATS}")
