"""The whole YAML: one section per stage, one run folder."""

import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from raysl import config as base
from raysl.config import AnyPath, Config
from raysl.data.config import ImagesConfig, PrepareConfig
from raysl.errors import ConfigError
from raysl.evaluation.config import EvaluateConfig
from raysl.models.config import TransformerConfig
from raysl.models.vision_config import VitConfig
from raysl.monitor.config import MonitorConfig, UpdateConfig
from raysl.objectives.config import ObjectiveConfig
from raysl.objectives.image_config import MaeConfig
from raysl.release.config import MOST_MB, ReleaseConfig
from raysl.serve.config import ServeConfig
from raysl.train.config import MORE_IS_BETTER, FinetuneConfig, PretrainConfig, TuneConfig

STAGES = ("prepare", "pretrain", "finetune", "evaluate", "release")
"""Stages that leave a folder behind, in the order in which the data travels."""

SECTIONS = ("prepare", "pretrain", "tune", "finetune", "evaluate", "release", "serve")

TRAINS_AS = {"interactions": "text"}
"""Item sequences are token sequences: objectives and models of text read them unchanged."""
YARDSTICKS = {"text": ("tfidf", "lsa", "scratch"), "images": ("pixels", "scratch")}
"""Modality -> baselines of `evaluate` that fit it; item sequences have no classes to compare."""


MISSING = {"interactions": ("finetune", "evaluate", "release", "serve")}
"""Modality -> sections of stages that it does not have."""


class RunConfig(Config):
    """What one YAML says. A section that is absent is a stage the run does not have, or, with defaults, all of them."""

    name: str
    """Name of the run; its folder is runs/<name> unless run_dir says otherwise."""
    run_dir: AnyPath = ""
    """Run folder."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of everything random: splits, permutations, weights, label draws."""
    prepare: PrepareConfig
    pretrain: PretrainConfig | None = None
    tune: TuneConfig | None = None
    finetune: FinetuneConfig | None = None
    evaluate: EvaluateConfig | None = None
    release: ReleaseConfig | None = None
    serve: ServeConfig | None = None
    monitor: MonitorConfig = MonitorConfig()
    update: UpdateConfig = UpdateConfig()

    @model_validator(mode="after")
    def _one_modality(self) -> "RunConfig":
        if self.pretrain is not None:
            parts = {"prepare.source": self.prepare.source, "pretrain.objective": self.pretrain.objective}
            parts["pretrain.model"] = self.pretrain.model
            if len({TRAINS_AS.get(part.modality, part.modality) for part in parts.values()}) > 1:
                said = ", ".join(f"{key} '{part.type}' is for {part.modality}" for key, part in parts.items())
                raise ValueError(f"source, objective and model have to fit: {said}")
        return self

    @model_validator(mode="after")
    def _baselines_fit_the_data(self) -> "RunConfig":
        modality = self.prepare.source.modality
        wrong = [name for name in self.yardsticks if name not in YARDSTICKS.get(modality, ())]
        if wrong:
            fit = ", ".join(YARDSTICKS.get(modality, ())) or "none"
            raise ValueError(f"evaluate.baselines: '{wrong[0]}' is not for {modality}. Choose from {fit}")
        return self

    @model_validator(mode="after")
    def _stages_of_its_modality(self) -> "RunConfig":
        modality = self.prepare.source.modality
        for name in MISSING.get(modality, ()):
            if getattr(self, name) is not None:
                raise ValueError(
                    f"`{name}` is not for {modality}, which source '{self.prepare.source.type}' yields; leave it out. "
                    f"Sections for {modality}: {', '.join(s for s in SECTIONS if s not in MISSING[modality])}"
                )
        return self

    @model_validator(mode="after")
    def _only_images_are_augmented(self) -> "RunConfig":
        modality = self.prepare.source.modality
        if modality != "images" and self.finetune is not None and self.finetune.augment is not None:
            raise ValueError(f"finetune.augment is for images, not for {modality}; leave it out")
        return self

    @model_validator(mode="after")
    def _patches_fit_the_images(self) -> "RunConfig":
        """Shards that lie elsewhere have a size of their own, which is known when they are opened."""
        if self.pretrain is None or self.pretrain.feed.shards or not isinstance(self.pretrain.model, VitConfig):
            return self
        images, objective = self.prepare.images or ImagesConfig(), self.pretrain.objective
        size, patch = images.size, self.pretrain.model.patch_size
        if size % patch:
            raise ValueError(f"pretrain.model.patch_size must divide prepare.images.size={size}, got {patch}")
        if not isinstance(objective, MaeConfig):
            return self
        if patch**2 * images.channels == 1 and objective.normalize_target:
            raise ValueError(
                "objective 'mae' predicts a patch up to its own mean and deviation, and one grey pixel has none: use "
                "pretrain.objective.normalize_target=false, or a pretrain.model.patch_size above 1"
            )
        if size == patch:
            raise ValueError(
                f"objective 'mae' hides some patches of an image and shows the others: pretrain.model.patch_size must be "
                f"smaller than prepare.images.size={size}, got {patch}"
            )
        return self

    @model_validator(mode="after")
    def _the_model_can_be_released(self) -> "RunConfig":
        """Before it is trained; how large one from outside the catalog is, `release` sees."""
        if self.release is None or self.pretrain is None or not isinstance(self.pretrain.model, TransformerConfig):
            return self
        tokenizer = self.prepare.tokenizer
        weights = self.pretrain.model.matrix_weights(tokenizer.vocab_size if tokenizer.path is None else 0)
        most = MOST_MB * 2**20 // 4
        if weights > most:
            raise ValueError(
                f"pretrain.model has {weights // 10**6:,} million weights, and at most {most // 10**6} million "
                f"can be released. Choose a smaller one, or leave the section `release:` out to train it"
            )
        return self

    @model_validator(mode="after")
    def _search_compares_what_is_measured(self) -> "RunConfig":
        if self.tune is None or self.pretrain is None:
            return self
        metric, objective = self.tune.metric, self.pretrain.objective
        parts = _logged_parts(self.tune, objective) if isinstance(objective, ObjectiveConfig) else ()
        known = [*(f"held_out_{name}" for name in ("loss", *parts)), *MORE_IS_BETTER]
        if metric not in known and (parts or not metric.startswith("held_out_")):
            raise ValueError(
                f"tune.metric: '{metric}' is not measured with objective '{objective.type}'. Choose from {', '.join(known)}"
            )
        if metric == "knn_accuracy" and self.pretrain.probe is None:
            raise ValueError("tune.metric=knn_accuracy needs the probe that measures it; leave `pretrain.probe: null` out")
        if metric in known and self.tune.direction != (usual := "max" if metric in MORE_IS_BETTER else "min"):
            better = "more" if usual == "max" else "less"
            raise ValueError(f"tune.mode: {better} is better of {metric}, got {self.tune.mode}; leave it out")
        return self

    @model_validator(mode="after")
    def _records_are_enough_to_monitor(self) -> "RunConfig":
        if self.serve is not None and (record := self.serve.record).enabled and record.max_rows < self.monitor.min_rows:
            raise ValueError(
                f"serve.record.max_rows must be at least monitor.min_rows, got {record.max_rows} < {self.monitor.min_rows}: "
                f"no window would get a verdict. To keep no requests set serve.record.enabled=false"
            )
        return self

    @model_validator(mode="after")
    def _rows_to_hold_out(self) -> "RunConfig":
        """Of item sequences the cuts may be points in time; shards that lie elsewhere have splits of their own."""
        elsewhere = self.pretrain is None or self.pretrain.feed.shards
        if not elsewhere and self.prepare.source.modality != "interactions" and not self.prepare.split.validation:
            raise ValueError(
                "prepare.split.validation must be above 0, got 0.0: `pretrain` measures its held-out loss on these rows"
            )
        return self

    @model_validator(mode="after")
    def _titles_to_view(self) -> "RunConfig":
        if self.pretrain is not None and getattr(self.pretrain.objective, "views", None) == "title":
            source = self.prepare.source
            if not self.prepare.yields_titles and not self.pretrain.feed.shards:
                raise ValueError(
                    f"pretrain.objective.views=title needs titles, and source '{source.type}' yields none. "
                    f"Set prepare.source.title_column (source 'files'), or use views=spans"
                )
        return self

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ValueError(f"a name is letters, digits, '.', '_' and '-', got {name!r}")
        return name

    def anchored(self) -> "RunConfig":
        """The same run with absolute paths: what travels to workers, whose current folder is another."""
        pretrain = None if self.pretrain is None else self.pretrain.anchored()
        return self.model_copy(update={"run_dir": str(self.folder), "pretrain": pretrain})

    @property
    def free_stages(self) -> tuple[str, ...]:
        """Stages that are not made from the run's own outputs: `pretrain`, where it trains on shards that lie elsewhere."""
        return ("pretrain",) if self.pretrain is not None and self.pretrain.feed.shards else ()

    @property
    def yardsticks(self) -> tuple[str, ...]:
        """Baselines of `evaluate`: those that were asked for, or all that fit the data."""
        asked = self.evaluate.baselines if self.evaluate is not None else None
        return YARDSTICKS.get(self.prepare.source.modality, ()) if asked is None else asked

    @property
    def training(self) -> PretrainConfig:
        """The section `pretrain:`, which commands that train have checked for (`needed`)."""
        assert self.pretrain is not None
        return self.pretrain

    @property
    def folder(self) -> Path:
        return Path(self.run_dir or f"runs/{self.name}").absolute()


def _logged_parts(tune: TuneConfig, objective: ObjectiveConfig) -> tuple[str, ...]:
    """Parts of the loss that trials log; where a search changes the objective, those that they may log."""
    searched = any(key.startswith("pretrain.objective") for key in tune.search)
    return objective.parts if searched else objective.logged_parts


def load(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The validated config of a YAML; every mistake is one line of a ConfigError."""
    config = base.load(RunConfig, path, overrides)
    if not any(override.startswith("run_dir=") for override in overrides):
        _check_place(config, Path(path).absolute())
    return config


def _check_place(config: RunConfig, path: Path) -> None:
    """ConfigError for the config.yaml of a run folder that would begin another run in the current folder."""
    own, folder = Path(config.run_dir or f"runs/{config.name}"), path.parent
    named = path.name == "config.yaml" and not own.is_absolute() and folder.parts[-len(own.parts) :] == own.parts
    if named and folder.resolve() != config.folder.resolve():
        begin = folder.parents[len(own.parts) - 1]
        raise ConfigError(
            f"{path} belongs to the run folder {folder}, its relative paths begin at {begin}, not at the current folder, "
            f"{Path.cwd()}. Go there, or give run_dir={folder}."
        )


def needed(config: RunConfig, section: str) -> None:
    if getattr(config, section) is None:
        raise ConfigError(f"The config of run '{config.name}' has no section `{section}:`. Add one to use this command.")
