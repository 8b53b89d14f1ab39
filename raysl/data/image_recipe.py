"""How pictures are prepared: clean, de-duplicate, write pixel shards."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from raysl.data import image_report, prepare_report
from raysl.data.clean import read_stats
from raysl.data.config import ImagesConfig
from raysl.data.image_clean import ImageCleaner
from raysl.data.image_plan import ImagePlanner
from raysl.data.image_shards import PixelWriter
from raysl.data.sources import Partition
from raysl.data.steps import Recipe
from raysl.schema import SPLITS


@dataclass
class ImageRecipe(Recipe):
    """Pictures -> pixel shards of each split, images/part-*.parquet with ids, labels and clusters."""

    rows_name: ClassVar[str] = "images"
    units: list[Path] = field(default_factory=list)

    def run(self, partitions: Sequence[Partition]) -> tuple[dict[str, Any], dict[str, float]]:
        self.clean(partitions)
        self.plan()
        self.write_pixels()
        counts = image_report.write(self.folder, self.units, self.plan_folder, self.seed, self.usage)
        return counts, {}

    @property
    def settings(self) -> ImagesConfig:
        return self.config.images or ImagesConfig()

    @property
    def plan_folder(self) -> Path:
        return self.work / "plan"

    def clean(self, partitions: Sequence[Partition]) -> None:
        self.units = [self.work / f"clean-{number:05d}" for number in range(len(partitions))]
        cleaner = ImageCleaner(self.config, self.settings, self.seed)
        left = [(part, unit) for part, unit in zip(partitions, self.units, strict=True) if not unit.is_dir()]
        with self.step("clean", len(partitions), len(left)) as step:
            step.run_calls(cleaner, left, lambda stats: (stats["clean"], "images"))
        stats = [read_stats(unit) for unit in self.units]
        prepare_report.check(self.config, stats, self.rows_name, "prepare.images")

    def plan(self) -> None:
        planner = ImagePlanner(self.settings, self.config.split, self.seed)
        left = not self.plan_folder.is_dir()
        with self.step("deduplicate", 1, int(left)) as step:
            step.run_calls(planner, [(self.units, self.plan_folder)] * left, lambda stats: (stats["kept"], "images stay"))

    def write_pixels(self) -> None:
        writer = PixelWriter(self.folder, self.settings)
        calls = [(unit, self.plan_folder, number, image_report.written(unit)) for number, unit in enumerate(self.units)]
        left = [call for call in calls if not call[-1].is_file()]
        with self.step("pixels", len(calls), len(left)) as step:
            step.run_calls(writer, left, lambda stats: (sum(stats[split] for split in SPLITS), "images"))
