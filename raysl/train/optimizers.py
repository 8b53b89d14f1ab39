"""AdamW, LARS and Muon with the weight-decay groups and the schedule that the field uses."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from raysl.errors import ConfigError
from raysl.train.config import OptimizerConfig, PretrainConfig
from raysl.train.eager import AdamW
from raysl.train.lars import LARS
from raysl.train.muon import Muon

MARKERS = {"positions", "position", "pos_embed", "cls_token", "class_token", "mask_token"}
"""Parts of a parameter's name that make it a learned place or a learned token: such tensors never decay."""
EDGES = {"head", "heads", "classifier", "projection", "patches", "patch_embed", "enter", "leave"}
"""Parts of a name that make a weight an input or an output of the network: Muon leaves those to AdamW."""

LEAST_REACH = 0.1
"""Way of a matrix in a whole run, as a share of its norm, below which LARS leaves it about as it was drawn."""

Group = dict[str, Any]


def build(model: nn.Module, config: OptimizerConfig) -> "Optimizers":
    """The optimizer of a config over all trainable parameters of `model`, each of them in exactly one group."""
    if config.type == "lars":
        matrices, others = decay_groups(model, config.weight_decay)
        groups = [{**matrices, "adapt": True}, {**others, "adapt": False}]
        return Optimizers([LARS(groups, config.learning_rate, config.momentum, config.trust_coefficient)])
    if config.type == "muon":
        hidden = hidden_matrices(model)
        if not hidden:
            raise ConfigError(
                "pretrain.optimizer.type: 'muon' is for the linear layers and filters inside a network, and this one has "
                "none. Use adamw or lars."
            )
        muon = Muon(
            hidden, lr=config.learning_rate, weight_decay=config.weight_decay, momentum=config.momentum,
            adjust_lr_fn="match_rms_adamw",  # steps of AdamW's size, so that one learning rate suits both
        )  # fmt: skip
        return Optimizers([muon, _adamw(decay_groups(model, config.weight_decay, hidden), config)])
    return Optimizers([_adamw(decay_groups(model, config.weight_decay), config)])


def adamw(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter, 2019) over all trainable parameters."""
    return _adamw(decay_groups(model, config.weight_decay), config)


def _adamw(groups: list[Group], config: OptimizerConfig) -> torch.optim.Optimizer:
    return AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)


class Optimizers:
    """One or two torch optimizers that step together and share a schedule; in a checkpoint they are one state."""

    def __init__(self, parts: list[torch.optim.Optimizer]) -> None:
        self.parts = parts

    @property
    def param_groups(self) -> list[Group]:
        return [group for part in self.parts for group in part.param_groups]

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for part, saved in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(saved)


def decay_groups(model: nn.Module, weight_decay: float, leave_out: Iterable[Tensor] = ()) -> list[Group]:
    """The parameters that decay and those that do not, each trainable one in exactly one of the two.

    Matrices and filters decay. Norms, biases, scalars of a table, positions, CLS and mask tokens do not. Tied weights are
    one parameter and count once.
    """
    taken = {id(parameter) for parameter in leave_out}
    groups: list[Group] = [{"params": [], "weight_decay": weight_decay}, {"params": [], "weight_decay": 0.0}]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and id(parameter) not in taken:
            groups[0 if _decays(name, parameter) else 1]["params"].append(parameter)
    return groups


def _decays(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim >= 2 and parameter[0].numel() > 1 and not MARKERS & set(name.split("."))


def hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """Weights of linear layers and filters inside a network (Jordan et al., 2024): no embeddings, no first or last layer."""
    return list(dict.fromkeys(_hidden(model)))


def _hidden(model: nn.Module) -> Iterator[nn.Parameter]:
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    first_filters = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)  # those read the picture
    for name, module in model.named_modules():
        layer = isinstance(module, nn.Linear | nn.Conv2d) and module is not first_filters
        if layer and not EDGES & set(name.split(".")) and module.weight.requires_grad and id(module.weight) not in tables:
            yield module.weight


def peak_rate(config: OptimizerConfig, global_batch_size: int) -> float:
    """Learning rate at the end of the warm-up: scaled with the global batch over 256 as the config says."""
    share = global_batch_size / config.reference_batch_size
    factor = {"none": 1.0, "linear": share, "sqrt": math.sqrt(share)}[config.scale]
    return config.learning_rate * factor


def too_slow(config: PretrainConfig) -> list[str]:
    """What LARS cannot reach, in words: a step is rate x trust x norm, whatever the gradient, and momentum adds steps up."""
    chosen, rate = config.optimizer, peak_rate(config.optimizer, config.global_batch_size)
    reach = rate * chosen.trust_coefficient / (1 - chosen.momentum) * config.max_steps
    if chosen.type != "lars" or reach >= LEAST_REACH:
        return []
    return [
        f"lars moves a matrix by {reach:.2g} of its norm in {config.max_steps:,} steps at a peak rate of {rate:.3g}, "
        f"too little to learn. Raise pretrain.optimizer.learning_rate (SimCLR: 0.3 with scale=linear)."
    ]


def rate_share(step: int, max_steps: int, config: OptimizerConfig) -> float:
    """Share of the peak rate at optimizer step 0..max_steps-1: linear warm-up, then cosine to its minimum at the last."""
    warmup = round(max_steps * config.warmup_share)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, max_steps - 1 - warmup)
    low = config.min_learning_rate_share
    return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def set_rate(optimizer: "torch.optim.Optimizer | Optimizers", rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
