"""Signs that a run is wasted: a loss that is no number, embeddings that collapse, a trainer that waits for rows."""

from collections.abc import Mapping

import torch
from torch import Tensor

from raysl.errors import TrainingError
from raysl.train.config import HealthConfig


def spread_and_rank(embeddings: Tensor) -> tuple[float, float]:
    """Mean standard deviation over dimensions times sqrt(width), and the effective rank, of normalised rows (rows, width).

    Rows spread evenly over the sphere have a spread near 1 and a rank near their width; a collapsed encoder has 0 and 1.
    The rank is the exponential of the entropy of the singular values (Roy & Vetterli, 2007).
    """
    spread = float(embeddings.std(0).mean() * embeddings.shape[1] ** 0.5)
    if not spread < float("inf"):
        return spread, spread  # singular values of what is no number are an error
    centred = embeddings - embeddings.mean(0)
    values = torch.linalg.svdvals(centred)
    shares = values / values.sum().clamp_min(1e-12)
    entropy = -(shares * shares.clamp_min(1e-12).log()).sum()
    return spread, float(entropy.exp())


class Watch:
    """Raises TrainingError, with the key to change, when a run has gone wrong for as long as `config` allows.

    Fed with values that are equal on every rank, so that all ranks stop at the same step.
    """

    def __init__(self, config: HealthConfig, learning_rate: float) -> None:
        self.config, self.learning_rate = config, learning_rate
        self._collapsed, self._starved_s = 0, 0.0
        self._begun = False

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        if all(abs(value) < float("inf") for value in values.values()):
            return
        raise TrainingError(
            f"Loss or gradient is no number at step {step}. Lower pretrain.optimizer.learning_rate "
            f"(now {self.learning_rate:g}) or use pretrain.precision=fp32."
        )

    def embeddings(self, step: int, spread: float, effective_rank: float) -> None:
        limits = self.config
        bad = spread < limits.min_embedding_spread or effective_rank < limits.min_effective_rank
        self._collapsed = self._collapsed + 1 if bad else 0
        if limits.patience and self._collapsed >= limits.patience:
            raise TrainingError(
                f"Embeddings have collapsed: at step {step} their spread is {spread:.3g} and their effective rank "
                f"{effective_rank:.3g}, for {self._collapsed} evaluations in a row. Lower pretrain.optimizer.learning_rate "
                f"(now {self.learning_rate:g}) or change pretrain.objective; pretrain.health.patience=0 goes on anyway."
            )

    def data_wait(self, step: int, share: float, seconds: float) -> None:
        """`share` of the last `seconds` that the ranks waited for rows; a start's first window of them has to come first."""
        limits = self.config
        if not self._begun:
            self._begun = True
            return
        self._starved_s = self._starved_s + seconds if share > limits.max_data_wait else 0.0
        if self._starved_s > limits.starved_after_s:
            raise TrainingError(
                f"Training starves: for {self._starved_s:,.0f} s to step {step} it waited for rows {share:.0%} of the time. "
                f"Put run_dir on a faster disk, or give each worker more cores (fewer pretrain.num_workers a machine); "
                f"pretrain.health.max_data_wait=1 goes on anyway."
            )
