"""Settings of `serve`."""

from typing import Literal

from pydantic import Field, model_validator

from raysl.config import AnyTask, Config


class RecordConfig(Config):
    """What the service keeps of its traffic, for `monitor` and `update`."""

    enabled: bool = True
    """Whether requests and answers are recorded at all."""
    max_rows: int = Field(100_000, ge=1)
    """Newest requests kept on disk, at least `monitor.min_rows`; older ones go."""
    flush_seconds: float = Field(2.0, gt=0)
    """Longest time a request waits in memory before it is written."""
    queue_rows: int = Field(10_000, ge=1)
    """Requests waiting in memory at most; above it records are dropped and counted, requests are not slowed."""
    max_text_chars: int = Field(10_000, ge=0)
    """Characters of a text that are kept; 0 keeps none. Of a picture never more than its embedding is kept."""


class ServeConfig(Config):
    """The HTTP service of the production version."""

    tasks: tuple[AnyTask, ...]
    """What the service answers, each at /v1/<task>."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 opens it to the network."""
    port: int = Field(8000, ge=1, le=65535)
    """Port to listen on; one that is taken is refused."""
    ingress: Literal["auto", "direct", "proxy"] = "auto"
    """Who listens: `direct` the replicas themselves, which share the port of this machine; `proxy` Ray Serve's proxy on
    every node that has a replica, at many times the CPU per request. auto is direct on a local cluster, proxy on a joined
    one."""
    min_replicas: int = Field(1, ge=1)
    """Replicas that always run."""
    max_replicas: int = Field(1, ge=1)
    """Replicas at most; Ray Serve scales between the two by requests in flight."""
    target_ongoing_requests: float = Field(16.0, gt=0)
    """Requests in flight per replica that autoscaling aims at."""
    cpus_per_replica: float = Field(1.0, gt=0)
    """CPU cores reserved for a replica."""
    max_ongoing_requests: int = Field(200, ge=1)
    """Requests a replica works on at once; more wait in line."""
    max_queued_requests: int = Field(400, ge=-1)
    """Requests waiting at most before new ones are answered 503; -1 never."""
    max_batch_size: int = Field(32, ge=1)
    """Requests that one call of the model answers; waiting ones are taken at once, none is waited for."""
    request_timeout_s: float = Field(30.0, gt=0)
    """Longest time a request may take, in seconds; then it is answered 503."""
    max_body_bytes: int | None = Field(None, ge=1024)
    """Largest request body; above it 413. Default: 262,144 for texts, 8,388,608 for pictures."""
    max_text_chars: int = Field(100_000, ge=1)
    """Longest text of a request; above it 422."""
    record: RecordConfig = RecordConfig()

    @model_validator(mode="after")
    def _ordered_replicas(self) -> "ServeConfig":
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas must be at least min_replicas, got {self.max_replicas} < {self.min_replicas}")
        return self
