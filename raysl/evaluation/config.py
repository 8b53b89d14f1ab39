"""Settings of `evaluate`."""

from typing import Literal

from pydantic import Field, PositiveInt, field_validator

from raysl.config import Config


class EvaluateConfig(Config):
    """Few-label curves on held-out rows, with the baselines beside them."""

    split: Literal["test", "validation"] = "test"
    """Where the curve is measured: `validation` while settings are chosen, `test` for the figures that are reported."""
    labels_per_class: tuple[PositiveInt, ...] = Field((5, 20), min_length=1)
    """Label budgets, each drawn `num_draws` times."""
    num_draws: int = Field(5, ge=1)
    """Independent draws of the labelled rows; mean and spread are over them."""
    baselines: tuple[Literal["tfidf", "lsa", "pixels", "scratch"], ...] | None = None
    """Yardsticks: TF-IDF or LSA (text) or pixels (images) with logistic regression, and the same network without
    pretraining. Default: all that fit the data."""
    max_test_rows: int = Field(3000, ge=10)
    """Rows of that split the curve is measured on at most, drawn by the seed; the classifier is scored on all."""
    scratch_learning_rate: float = Field(2e-3, gt=0)
    """Peak rate of the network from scratch, which needs a higher one."""
    scratch_epochs: int = Field(30, ge=1)
    """Passes of the network from scratch over its labelled rows."""
    lsa_width: int = Field(100, ge=2)
    """Components of the LSA."""

    @field_validator("labels_per_class")
    @classmethod
    def _each_once(cls, budgets: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(budgets)) < len(budgets):
            raise ValueError(f"a budget stands once, got {list(budgets)}")
        return budgets
