"""Settings of `pretrain`, `tune` and `finetune`."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from raysl.catalog import MODELS, OBJECTIVES
from raysl.config import AnyModel, AnyObjective, AnyPath, AnySource, Config
from raysl.objectives.config import ObjectiveConfig
from raysl.objectives.image_config import AugmentConfig

Decay = Annotated[float, Field(ge=0, lt=1)]
MORE_IS_BETTER = ("embedding_spread", "effective_rank", "knn_accuracy")
"""What an evaluation measures besides losses."""


class OptimizerConfig(Config):
    """Optimizer with linear warm-up and cosine decay, counted in optimizer steps."""

    type: Literal["adamw", "lars", "muon"] = "adamw"
    """`adamw` (Loshchilov & Hutter, 2019); `lars` (You et al., 2017) for SimCLR with large batches; `muon` (Jordan et al.,
    2024) for matrices and filters inside the network, with AdamW for the rest."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak rate, before `scale`."""
    scale: Literal["none", "linear", "sqrt"] = "none"
    """How the rate grows with global_batch_size / reference_batch_size (Goyal et al., 2017)."""
    reference_batch_size: int = Field(256, ge=1)
    """Rows of the global batch for which `learning_rate` is meant when `scale` is not none."""
    min_learning_rate_share: float = Field(0.05, ge=0, le=1)
    """Rate at the last step over the peak rate."""
    warmup_share: float = Field(0.05, ge=0, lt=1)
    """Share of the steps over which the rate rises."""
    weight_decay: float = Field(0.01, ge=0)
    """For matrices and filters only; norms, biases, positions, CLS and mask tokens have none."""
    betas: tuple[Decay, Decay] = (0.9, 0.99)
    """AdamW: decay of the running mean and of the running square of gradients."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """LARS and Muon: decay of the running sum of gradients."""
    trust_coefficient: float = Field(0.001, gt=0)
    """LARS: step on a tensor over its norm, before the learning rate."""
    max_gradient_norm: float = Field(1.0, gt=0)
    """Global norm above which gradients are scaled down."""

    @model_validator(mode="after")
    def _every_value_has_an_effect(self) -> "OptimizerConfig":
        used = {"betas": ("adamw", "muon"), "momentum": ("lars", "muon"), "trust_coefficient": ("lars",)}
        for name, types in used.items():
            if self.type not in types and getattr(self, name) != OptimizerConfig.model_fields[name].default:
                raise ValueError(f"{name} has no effect with type={self.type}; it belongs to {' and '.join(types)}")
        if (
            self.scale == "none"
            and self.reference_batch_size != OptimizerConfig.model_fields["reference_batch_size"].default
        ):
            raise ValueError("reference_batch_size has no effect with scale=none; set scale to linear or sqrt")
        return self


class CheckpointConfig(Config):
    """Resumable states of a run."""

    limits: ClassVar[frozenset[str]] = frozenset({"every_steps", "keep_last"})

    every_steps: int = Field(200, ge=1)
    """Optimizer steps between two checkpoints."""
    keep_last: int = Field(2, ge=1)
    """Checkpoints kept, the newest ones; the best one is kept besides."""
    best_by: Literal["held_out_loss", "knn_accuracy"] = "held_out_loss"
    """What makes a checkpoint the best one."""
    save_model: Literal["last", "best"] = "last"
    """Whose weights the stage ends with; it reports the metrics of these."""


class ProbeConfig(Config):
    """kNN accuracy of the embeddings on labelled rows (Wu et al., 2018): measured beside the training, never trained on."""

    source: AnySource | None = None
    """Labelled rows, as in prepare.source; null takes the validation split, where it has labels."""
    max_rows: int = Field(1000, ge=2)
    """Labelled rows at most; each is classified by the others."""
    k: int = Field(20, ge=1)
    """Neighbours that vote."""
    temperature: float = Field(0.07, gt=0)
    """Sharpness of the votes: lower weighs the nearest more."""


class HealthConfig(Config):
    """When a run stops instead of wasting the rest of its steps."""

    min_embedding_spread: float = Field(0.01, ge=0)
    """Spread of held-out embeddings (0 one point, 1 an even sphere) below which they count as collapsed."""
    min_effective_rank: float = Field(1.5, ge=0)
    """Directions that held-out embeddings use; below it they count as collapsed."""
    patience: int = Field(3, ge=0)
    """Collapsed evaluations in a row after which the run stops; 0 never stops."""
    max_data_wait: float = Field(0.5, gt=0, le=1)
    """Share of the time spent waiting for rows above which a run counts as starved."""
    starved_after_s: float = Field(300, ge=0)
    """Seconds of starving in a row after which the run stops."""


class WorkerRange(Config):
    """Workers that may come and go; a change goes on from the newest checkpoint."""

    min: int = Field(1, ge=1)
    """Fewest workers the run goes on with."""
    max: int = Field(2, ge=1)
    """Most workers it takes."""

    @model_validator(mode="after")
    def _in_order(self) -> "WorkerRange":
        if self.min > self.max:
            raise ValueError(f"min must be at most max, got min {self.min} and max {self.max}")
        return self


def anchored(path: str | None) -> str | None:
    """A path of this machine as an absolute one; a URI, and nothing, as it is."""
    return path if not path or "://" in path else str(Path(path).absolute())


def anchored_tracking(uri: str | None) -> str | None:
    """An MLflow tracking URI with its local path (FOLDER, file:FOLDER, sqlite:///FILE) as an absolute one."""
    local = re.fullmatch(r"(file:(?!//)|sqlite:///(?!/))(.+)", uri or "")
    if local is not None:
        return f"{local[1]}{anchored(local[2])}"
    return uri if re.match(r"databricks|[a-z][a-z0-9+-]*:", uri or "") else anchored(uri)


class FeedConfig(Config):
    """Where prepared shards lie and how they reach a node. It changes no row and no order, so it may differ on resuming."""

    shards: AnyPath = ""
    """Prepared outputs to train on: a folder, s3://bucket/folder or gs://bucket/folder; default: those of the run itself."""
    cache_dir: AnyPath = ""
    """Folder on each node's own disk for shards fetched or decoded; default: raysl-shards-<uid> in the temporary
    folder."""
    decode: Literal["cluster", "trainer"] = "cluster"
    """Who decodes stored pictures: Ray tasks on CPUs that the training leaves, or threads of the training processes."""
    decode_cpus: float = Field(0.5, gt=0)
    """CPUs that one decoding task books."""

    @field_validator("shards")
    @classmethod
    def _absolute(cls, shards: str) -> str:
        """Workers have another current folder."""
        return anchored(shards) or ""


class PretrainConfig(Config):
    """One self-supervised run."""

    how: ClassVar[frozenset[str]] = frozenset(
        {"num_workers", "device", "max_failures", "log_every_steps", "tensorboard", "mlflow", "record_rows", "feed"}
    )
    limits: ClassVar[frozenset[str]] = frozenset({"health"})
    later: ClassVar[frozenset[str]] = frozenset({"window_shards"})

    objective: AnyObjective
    """The pretext task."""
    model: AnyModel
    """The network."""
    init_from: AnyPath | None = None
    """Folder with weights to start from, in Hugging Face's layout (config.json, model.safetensors, tokenizer.json for text),
    or, for `resnet`, model.safetensors in torchvision's."""
    optimizer: OptimizerConfig = OptimizerConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    probe: ProbeConfig | None = ProbeConfig()
    health: HealthConfig = HealthConfig()
    global_batch_size: int = Field(256, ge=1)
    """Rows of one optimizer step over all workers together."""
    accumulation_steps: int = Field(1, ge=1)
    """Micro-batches that one optimizer step adds up."""
    max_steps: int = Field(1000, ge=1)
    """Optimizer steps of the run."""
    ema_decay: float = Field(0.0, ge=0, lt=1)
    """Decay of the running mean of the weights, which is then what is evaluated and saved; 0 leaves it out."""
    window_shards: int | None = Field(None, ge=1)
    """Shards whose rows are mixed with each other; a node has two windows on its disk at most. Default: all shards."""
    feed: FeedConfig = FeedConfig()
    num_workers: PositiveInt | WorkerRange = 2
    """Training processes, one device each (CPU: one core each): a number, or `{min: 1, max: 4}` as the cluster has room."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Autocast type; auto is bf16 where the device multiplies it fast, else fp32."""
    compile: bool = False
    """Whether torch.compile builds the step; pays on GPUs."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where it trains; auto takes the GPU where Ray has one to give."""
    log_every_steps: int = Field(20, ge=1)
    """Optimizer steps between two lines of metrics.jsonl."""
    evaluate_every_steps: int = Field(200, ge=1)
    """Optimizer steps between two evaluations: held-out loss, kNN probe, embedding spread and rank."""
    max_failures: int = Field(3, ge=0)
    """Restarts from the last checkpoint after a worker or node dies; counted anew where the training has got on since."""
    tensorboard: bool = True
    """Whether the logged numbers also go to <run>/tensorboard."""
    mlflow: str | None = None
    """Tracking URI that the logged numbers also go to (`pip install 'raysl[mlflow]'`); null leaves it out."""
    record_rows: bool = False
    """Whether each worker writes the numbers of the rows of every step to <run>/pretrain/rows, for audits."""

    @property
    def max_workers(self) -> int:
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers.max

    def anchored(self) -> "PretrainConfig":
        """The same with the paths that workers read and write as absolute ones."""
        feed, probe = self.feed.model_copy(update={"cache_dir": anchored(self.feed.cache_dir)}), self.probe
        source = None if probe is None else probe.source
        if probe is not None and source is not None and hasattr(source, "path"):
            probe = probe.model_copy(update={"source": source.model_copy(update={"path": anchored(source.path)})})
        changed = {"init_from": anchored(self.init_from), "mlflow": anchored_tracking(self.mlflow)}
        return self.model_copy(update={**changed, "feed": feed, "probe": probe})

    @field_validator("num_workers", mode="before")
    @classmethod
    def _a_number_or_a_range(cls, value: Any) -> Any:
        """Of a union, pydantic would tell what is wrong with each of its kinds."""
        if isinstance(value, Mapping):
            return WorkerRange.model_validate(value)
        if not isinstance(value, WorkerRange) and (type(value) is not int or value < 1):
            raise ValueError(f"give a whole number from 1, or a mapping of `min` and `max`, got {value!r}")
        return value

    @model_validator(mode="after")
    def _the_best_is_measured(self) -> "PretrainConfig":
        if self.checkpoint.best_by == "knn_accuracy" and self.probe is None:
            raise ValueError("checkpoint.best_by=knn_accuracy needs the probe that measures it; leave `probe: null` out")
        return self

    @model_validator(mode="after")
    def _every_worker_has_a_row(self) -> "PretrainConfig":
        if self.global_batch_size < self.max_workers * self.accumulation_steps:
            raise ValueError(
                f"global_batch_size={self.global_batch_size} leaves some of {self.max_workers} workers x "
                f"{self.accumulation_steps} accumulation_steps without a row; raise it or lower those"
            )
        return self

    @model_validator(mode="after")
    def _objective_trains_the_model(self) -> "PretrainConfig":
        if isinstance(self.objective, ObjectiveConfig):
            self.objective.check_model(self.model.type)
        if ":" in f"{self.objective.type}{self.model.type}":  # the class has been imported, and torch with it
            task, network = OBJECTIVES.load(self.objective.type), MODELS.load(self.model.type)
            wanted = getattr(task, "encoder_class", object)
            if isinstance(network, type) and not issubclass(network, wanted):
                raise ValueError(
                    f"objective '{self.objective.type}' trains a model of class {wanted.__name__} ({wanted.__module__}), "
                    f"and model '{self.model.type}' is none. Choose another model"
                )
        return self

    @model_validator(mode="after")
    def _rows_to_compare(self) -> "PretrainConfig":
        if isinstance(self.objective, ObjectiveConfig) and self.objective.compares_rows:
            said = f"objective '{self.objective.type}' compares the rows of a batch with each other"
            if self.accumulation_steps > 1:
                raise ValueError(
                    f"{said}, so a part of it has another loss. Use accumulation_steps=1, and more workers for larger "
                    f"batches, got {self.accumulation_steps}"
                )
            if self.global_batch_size < 2:
                raise ValueError(f"{said}: global_batch_size must be at least 2, got {self.global_batch_size}")
        return self

    @model_validator(mode="after")
    def _probe_reads_text(self) -> "PretrainConfig":
        source = None if self.probe is None else self.probe.source
        if source is not None and (self.objective.modality != "text" or source.modality != "text"):
            other = source.modality if source.modality != "text" else self.objective.modality
            raise ValueError(f"probe.source is for text, not for {other}; leave it out: the labels come from `prepare`")
        return self


class FinetuneConfig(Config):
    """A classifier on the pretrained encoder: linear probe first, then all weights at a low rate (Kumar et al., 2022)."""

    how: ClassVar[frozenset[str]] = frozenset({"device"})

    num_classes: int = Field(16, ge=2)
    """The largest labels of the train split; rows of others are left out."""
    labels_per_class: int | None = Field(20, ge=1)
    """Labelled rows of each class; null takes all."""
    epochs: int = Field(20, ge=0)
    """Passes over the labelled rows; 0 leaves the probe on the frozen encoder."""
    batch_size: int = Field(32, ge=1)
    """Labelled rows of one step; a network with BatchNorm gets two at least."""
    learning_rate: float = Field(2e-4, gt=0)
    """Low, so that what was learned without labels is kept."""
    weight_decay: float = Field(0.01, ge=0)
    """Of AdamW, for matrices only."""
    probe_strength: float = Field(10.0, gt=0)
    """Inverse regularization (C) of the logistic regression the head starts from."""
    max_tokens: int = Field(256, ge=8)
    """Tokens of a document that are read while it trains and by `evaluate`; longer ones are cut. A service reads up to
    `release.max_tokens`, and `release` measures it on as many."""
    augment: AugmentConfig | None = None
    """How labelled images change from pass to pass (crop, flip, ...); null leaves them as they are. Not for text."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where it trains, and the networks of `evaluate` do; auto takes a GPU where there is one."""


class SpaceConfig(Config):
    """Values of one key to try; exactly one of these."""

    log_uniform: tuple[float, float] | None = None
    """Lowest and highest value, drawn evenly in its logarithm: for rates."""
    uniform: tuple[float, float] | None = None
    """Lowest and highest value, drawn evenly."""
    integer: tuple[int, int] | None = None
    """Lowest and highest whole number, both drawn too."""
    choice: list[Any] | None = Field(None, min_length=1)
    """Values of which one is drawn."""
    grid: list[Any] | None = Field(None, min_length=1)
    """Values that are all tried, with all of other grids."""

    @model_validator(mode="after")
    def _one_kind_in_order(self) -> "SpaceConfig":
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(type(self).model_fields)}, got {', '.join(given) or 'none'}")
        ends = self.log_uniform or self.uniform or self.integer
        if ends is not None and ends[0] >= ends[1]:
            raise ValueError(f"{given[0]} goes from the lower to the higher value, got {list(ends)}")
        if self.log_uniform is not None and self.log_uniform[0] <= 0:
            raise ValueError(f"log_uniform needs values above 0, got {list(self.log_uniform)}")
        return self


class TuneConfig(Config):
    """A search for better keys of `pretrain`: many short runs over the same prepared rows."""

    search: dict[str, SpaceConfig] = Field(min_length=1)
    """Full path of a key -> the values to try: `pretrain.optimizer.learning_rate: {log_uniform: [1e-4, 1e-2]}`."""
    num_trials: int = Field(8, ge=1)
    """Draws; with grids, draws for each place of the grid."""
    max_steps: int | None = Field(None, ge=1)
    """Optimizer steps of a trial; null takes pretrain.max_steps."""
    metric: str = "held_out_loss"
    """What is compared at each evaluation: held_out_loss, held_out_ and a part of the loss, knn_accuracy,
    embedding_spread or effective_rank."""
    mode: Literal["min", "max"] | None = None
    """Whether less or more is better; null takes min for held-out numbers and max for the others. Only a held-out number of
    an objective of your own may say otherwise."""
    scheduler: Literal["none", "asha"] = "none"
    """`asha` (Li et al., 2020) stops the worse half of the trials after 1, 2, 4, ... evaluations."""
    max_concurrent: int | None = Field(None, ge=1)
    """Trials at a time, one core or GPU each; null takes as many as the cluster has."""

    @property
    def direction(self) -> Literal["min", "max"]:
        """`mode`, or what the metric says of itself."""
        return self.mode or ("max" if self.metric in MORE_IS_BETTER else "min")

    @field_validator("search")
    @classmethod
    def _keys_of_pretrain(cls, search: dict[str, SpaceConfig]) -> dict[str, SpaceConfig]:
        wrong = [key for key in search if not key.startswith("pretrain.")]
        if wrong:
            raise ValueError(f"trials share what `prepare` made with its seed; search keys of pretrain, got '{wrong[0]}'")
        return search
