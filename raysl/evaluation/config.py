"""Settings of `evaluate`."""

from typing import Literal

from pydantic import Field

from raysl.config import Config


class EvaluateConfig(Config):
    """Few-label curves on the test split, with the baselines beside them."""

    labels_per_class: tuple[int, ...] = (5, 20)
    """Label budgets, each drawn `num_draws` times."""
    num_draws: int = Field(5, ge=1)
    """Independent draws of the labelled rows; mean and spread are over them."""
    baselines: tuple[Literal["tfidf", "lsa", "scratch"], ...] = ("tfidf", "lsa", "scratch")
    """Yardsticks: TF-IDF or LSA with logistic regression, and the same network without pretraining."""
    lsa_width: int = Field(100, ge=2)
    """Components of the LSA."""
