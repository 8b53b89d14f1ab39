"""Settings of `pretrain` and `finetune`."""

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer

from raysl.config import AnyModel, AnyObjective, Config


class OptimizerConfig(Config):
    """AdamW (Loshchilov & Hutter, 2019) with linear warm-up and cosine decay, counted in optimizer steps."""

    learning_rate: float = Field(1e-3, gt=0)
    """Peak rate."""
    min_learning_rate_share: float = Field(0.05, ge=0, le=1)
    """Rate at the last step over the peak rate."""
    warmup_share: float = Field(0.05, ge=0, lt=1)
    """Share of the steps over which the rate rises."""
    weight_decay: float = Field(0.01, ge=0)
    """For matrices only; biases, norms and embeddings of one dimension have none."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Decay of the running mean and of the running square of gradients."""
    max_gradient_norm: float = Field(1.0, gt=0)
    """Global norm above which gradients are scaled down."""


class CheckpointConfig(Config):
    """Resumable states of a run."""

    every_steps: int = Field(200, ge=1)
    """Optimizer steps between two checkpoints."""
    keep_last: int = Field(2, ge=1)
    """Checkpoints kept, the newest ones."""


class FeedConfig(Config):
    """Where prepared shards lie and how they reach a node. It changes no row and no order, so it may differ on resuming."""

    shards: str = ""
    """Prepared outputs to train on: a folder, s3://bucket/folder or gs://bucket/folder; default: those of the run itself."""
    cache_dir: str = ""
    """Folder on each node's own disk for shards fetched or decoded; default: raysl-shards in the temporary folder."""
    decode: Literal["cluster", "trainer"] = "cluster"
    """Who decodes stored pictures: Ray tasks on CPUs that the training leaves, or threads of the training processes."""
    decode_cpus: float = Field(0.5, gt=0)
    """CPUs that one decoding task books."""

    @field_validator("shards")
    @classmethod
    def _absolute(cls, shards: str) -> str:
        """Workers have another current folder."""
        return shards if not shards or "://" in shards else str(Path(shards).absolute())


class PretrainConfig(Config):
    """One self-supervised run."""

    how: ClassVar[frozenset[str]] = frozenset({"feed"})

    objective: AnyObjective
    """The pretext task."""
    model: AnyModel
    """The network."""
    optimizer: OptimizerConfig = OptimizerConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    global_batch_size: int = Field(256, ge=1)
    """Rows of one optimizer step over all workers together."""
    accumulation_steps: int = Field(1, ge=1)
    """Micro-batches that one optimizer step adds up."""
    max_steps: int = Field(1000, ge=1)
    """Optimizer steps of the run."""
    window_shards: int | None = Field(None, ge=1)
    """Shards whose rows are mixed with each other; a node has two windows on its disk at most. Default: all shards."""
    feed: FeedConfig = FeedConfig()
    num_workers: int = Field(2, ge=1)
    """Training processes, one device each (CPU: one core each)."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Autocast type; auto is bf16 where the device multiplies it fast, else fp32."""
    compile: bool = False
    """Whether torch.compile builds the step; pays on GPUs."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where it trains; auto takes the GPU where Ray has one to give."""
    log_every_steps: int = Field(20, ge=1)
    """Optimizer steps between two lines of metrics.jsonl."""
    evaluate_every_steps: int = Field(200, ge=1)
    """Optimizer steps between two held-out losses."""
    max_failures: int = Field(3, ge=0)
    """Restarts from the last checkpoint after a worker or node dies."""

    @model_serializer(mode="wrap")
    def _leave_out_what_is_off(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """One window over all shards leaves no mark, so that runs made before there were windows go on."""
        return {key: value for key, value in handler(self).items() if (key, value) != ("window_shards", None)}


class FinetuneConfig(Config):
    """A classifier on the pretrained encoder: linear probe first, then all weights at a low rate (Kumar et al., 2022)."""

    num_classes: int = Field(16, ge=2)
    """The largest labels of the train split; rows of others are left out."""
    labels_per_class: int | None = Field(20, ge=1)
    """Labelled rows of each class; null takes all."""
    epochs: int = Field(20, ge=0)
    """Passes over the labelled rows; 0 leaves the probe on the frozen encoder."""
    batch_size: int = Field(32, ge=1)
    """Labelled rows of one step."""
    learning_rate: float = Field(2e-4, gt=0)
    """Low, so that what was learned without labels is kept."""
    weight_decay: float = Field(0.01, ge=0)
    """Of AdamW, for matrices only."""
    probe_strength: float = Field(10.0, gt=0)
    """Inverse regularization (C) of the logistic regression the head starts from."""
    max_tokens: int = Field(256, ge=8)
    """Tokens of a document that are read; longer ones are cut."""
