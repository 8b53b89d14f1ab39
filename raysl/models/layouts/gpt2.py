"""Hugging Face's layout of GPT-2 (`GPT2LMHeadModel`): same tensors, the linear layers stored (in, out)."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from raysl.errors import DataError
from raysl.models.layouts.files import Shapes
from raysl.models.text import PAD, SEP, TextEncoder

MODEL_TYPE = "gpt2"
OUTER = {
    "tokens.weight": "wte.weight",
    "positions.weight": "wpe.weight",
    "norm.weight": "ln_f.weight",
    "norm.bias": "ln_f.bias",
}
LINEAR = {"attention.qkv": "attn.c_attn", "attention.out": "attn.c_proj", "up": "mlp.c_fc", "down": "mlp.c_proj"}
NORMS = {"norm1": "ln_1", "norm2": "ln_2"}
PREFIX = "transformer."


def sizes(config: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """Keys of our `gpt` model; DataError where the network computes something else."""
    if config.get("activation_function", "gelu_new") not in ("gelu_new", "gelu_pytorch_tanh"):
        raise DataError(f"GPT-2 with activation_function '{config['activation_function']}' is not supported, only gelu_new.")
    if config.get("layer_norm_epsilon", 1e-5) != 1e-5 or config.get("scale_attn_by_inverse_layer_idx", False):
        raise DataError("GPT-2 is read with layer_norm_epsilon 1e-5 and without scale_attn_by_inverse_layer_idx only.")
    if not config.get("scale_attn_weights", True):
        raise DataError("GPT-2 is read with scale_attn_weights only.")
    if not config.get("tie_word_embeddings", True) and "lm_head.weight" in shapes:
        raise DataError("GPT-2 is read with its output tied to the token embeddings (tie_word_embeddings) only.")
    return {
        "num_layers": config["n_layer"], "width": config["n_embd"], "num_heads": config["n_head"],
        "context_length": config["n_positions"],
        "feedforward_ratio": (config.get("n_inner") or 4 * config["n_embd"]) / config["n_embd"],
    }  # fmt: skip


def description(encoder: TextEncoder) -> dict[str, Any]:
    """config.json of `encoder`."""
    config = encoder.config
    return {
        "architectures": ["GPT2LMHeadModel"], "model_type": MODEL_TYPE, "vocab_size": encoder.vocab_size,
        "n_layer": config.num_layers, "n_embd": config.width, "n_head": config.num_heads,
        "n_positions": config.context_length, "n_inner": config.feedforward_width,
        "activation_function": "gelu_new", "layer_norm_epsilon": encoder.style.norm_eps,
        "resid_pdrop": config.dropout, "attn_pdrop": config.dropout, "embd_pdrop": 0.0,
        "bos_token_id": SEP, "eos_token_id": SEP, "pad_token_id": PAD,
        "tie_word_embeddings": True, "dtype": "float32",
    }  # fmt: skip


def _names(num_layers: int) -> dict[str, str]:
    names = dict(OUTER)
    for layer in range(num_layers):
        for ours, theirs in {**NORMS, **LINEAR}.items():
            for kind in ("weight", "bias"):
                names[f"blocks.{layer}.{ours}.{kind}"] = f"h.{layer}.{theirs}.{kind}"
    return names


def _turned(name: str, tensor: Tensor) -> Tensor:
    """Linear layers lie there as (in, out), here as (out, in)."""
    return tensor.T if tensor.ndim == 2 and name.startswith("blocks.") else tensor


def to_theirs(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The head is tied to the embeddings and does not stand twice."""
    names = _names(_num_layers(state, "blocks."))
    return {PREFIX + theirs: _turned(ours, state[ours]) for ours, theirs in names.items()}


def to_ours(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """From `GPT2LMHeadModel` or the bare `GPT2Model`."""
    bare = {name.removeprefix(PREFIX): tensor for name, tensor in state.items()}
    names = _names(_num_layers(bare, "h."))
    return {ours: _turned(ours, bare[theirs]) for ours, theirs in names.items()}


def _num_layers(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix)})
