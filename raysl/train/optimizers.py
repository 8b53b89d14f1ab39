"""AdamW with the weight-decay groups and the schedule that the field uses."""

import math

import torch
from torch import nn

from raysl.train.config import OptimizerConfig


def adamw(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """AdamW; weights of two or more dimensions decay, biases, norms and one-column embeddings do not."""
    return torch.optim.AdamW(
        decay_groups(model, config.weight_decay), lr=config.learning_rate, betas=config.betas, fused=True
    )


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Each trainable parameter in exactly one group; tied weights count once."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    decays = [p for p in parameters if p.ndim >= 2 and p.shape[-1] > 1]
    kept = {id(p) for p in decays}
    return [
        {"params": decays, "weight_decay": weight_decay},
        {"params": [p for p in parameters if id(p) not in kept], "weight_decay": 0.0},
    ]


def rate_share(step: int, max_steps: int, config: OptimizerConfig) -> float:
    """Share of the peak rate at optimizer step 0..max_steps-1: linear warm-up, then cosine to its minimum at the last."""
    warmup = round(max_steps * config.warmup_share)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, max_steps - 1 - warmup)
    low = config.min_learning_rate_share
    return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
