"""Settings of `monitor` and `update`."""

from pydantic import Field, model_validator

from raysl.config import AnySource, Config

NUM_TESTS = 5
"""Tests of one window at most: inputs, text length, confidence, predictions, accuracy."""


class MonitorConfig(Config):
    """When the recorded traffic counts as different from the window kept at release."""

    window_rows: int = Field(500, ge=50)
    """Newest recorded requests that are compared, at least `min_rows`."""
    min_rows: int = Field(100, ge=20)
    """Fewer recorded requests give no verdict."""
    false_alarm_rate: float = Field(0.01, gt=0, lt=0.5)
    """Share of windows without drift that may be called drift, over all tests together."""
    num_null_windows: int = Field(1000, ge=20)
    """Windows dealt at random from reference and window together; what happens to them sets the thresholds."""
    max_latency_ratio: float = Field(3.0, gt=1)
    """Median latency over the reference's from which speed counts as fallen."""
    min_slow_ms: float = Field(100.0, ge=0)
    """Median latency below which speed never counts as fallen, in ms: the reference knows no network and no queue."""

    @model_validator(mode="after")
    def _window_holds_enough_rows(self) -> "MonitorConfig":
        if self.window_rows < self.min_rows:
            raise ValueError(
                f"window_rows must be at least min_rows, got {self.window_rows} < {self.min_rows}: no window would get a "
                f"verdict"
            )
        return self

    @model_validator(mode="after")
    def _enough_null_windows(self) -> "MonitorConfig":
        needed = int(NUM_TESTS / self.false_alarm_rate)
        if self.num_null_windows < needed:
            raise ValueError(
                f"num_null_windows must be at least {needed} for a false_alarm_rate of {self.false_alarm_rate:g} over "
                f"{NUM_TESTS} tests, got {self.num_null_windows}"
            )
        return self


class UpdateConfig(Config):
    """The next version: new rows, prepared alone, fine-tuned, gated."""

    source: AnySource | None = None
    """Labelled new rows besides the recorded requests that got feedback; null takes only those."""
    min_new_rows: int = Field(50, ge=1)
    """Fewer labelled new rows make no update."""
    min_gain: float = Field(0.0, ge=-1, le=1)
    """Macro-F1 by which the candidate must beat production on the held-out rows, old and new together."""
    max_loss_on_old: float = Field(0.02, ge=0, le=1)
    """Macro-F1 the candidate may lose on the old test split at most: the guard against forgetting."""
    held_out_share: float = Field(0.3, gt=0, lt=1)
    """Share of the new rows that only the gate reads."""
