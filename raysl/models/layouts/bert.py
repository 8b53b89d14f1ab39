"""Hugging Face's layout of BERT (`BertForMaskedLM`).

Our rows are one segment, so the vector of token type 0 is added to the positions when weights come in; type 1 is left out
and is zero when they go. There is no pooler on either side.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from raysl.errors import DataError
from raysl.models.layouts.files import Shapes
from raysl.models.text import PAD, TextEncoder

MODEL_TYPE = "bert"
EMBEDDINGS, HEAD = "bert.embeddings.", "cls.predictions."
TYPES = f"{EMBEDDINGS}token_type_embeddings.weight"
OUTER = {
    "tokens.weight": f"{EMBEDDINGS}word_embeddings.weight", "positions.weight": f"{EMBEDDINGS}position_embeddings.weight",
    "norm.weight": f"{EMBEDDINGS}LayerNorm.weight", "norm.bias": f"{EMBEDDINGS}LayerNorm.bias",
}  # fmt: skip
HEADS = {
    "head.weight": f"{HEAD}transform.dense.weight", "head.bias": f"{HEAD}transform.dense.bias",
    "head_norm.weight": f"{HEAD}transform.LayerNorm.weight", "head_norm.bias": f"{HEAD}transform.LayerNorm.bias",
    "head_bias": f"{HEAD}bias",
}  # fmt: skip
BLOCK = {
    "attention.out": "attention.output.dense", "norm1": "attention.output.LayerNorm", "up": "intermediate.dense",
    "down": "output.dense", "norm2": "output.LayerNorm",
}  # fmt: skip
QKV = ("query", "key", "value")
KINDS = ("weight", "bias")


def sizes(config: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """Keys of our `bert` model; DataError where the network computes something else."""
    if config.get("hidden_act", "gelu") != "gelu" or config.get("layer_norm_eps", 1e-12) != 1e-12:
        raise DataError("BERT is read with hidden_act gelu and layer_norm_eps 1e-12 only.")
    if config.get("is_decoder", False):
        raise DataError("BERT is read as an encoder, whose tokens see both sides, not with is_decoder.")
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise DataError(f"BERT with {config['position_embedding_type']} positions is not supported, only absolute ones.")
    if not config.get("tie_word_embeddings", True) and f"{HEAD}decoder.weight" in shapes:
        raise DataError("BERT is read with its output tied to the token embeddings (tie_word_embeddings) only.")
    return {
        "num_layers": config["num_hidden_layers"], "width": config["hidden_size"],
        "num_heads": config["num_attention_heads"], "context_length": config["max_position_embeddings"],
        "feedforward_ratio": config["intermediate_size"] / config["hidden_size"],
    }  # fmt: skip


def description(encoder: TextEncoder) -> dict[str, Any]:
    """config.json of `encoder`."""
    config = encoder.config
    return {
        "architectures": ["BertForMaskedLM"], "model_type": MODEL_TYPE, "vocab_size": encoder.vocab_size,
        "num_hidden_layers": config.num_layers, "hidden_size": config.width, "num_attention_heads": config.num_heads,
        "max_position_embeddings": config.context_length, "intermediate_size": config.feedforward_width,
        "hidden_act": "gelu", "layer_norm_eps": encoder.style.norm_eps, "type_vocab_size": 2,
        "hidden_dropout_prob": config.dropout, "attention_probs_dropout_prob": config.dropout,
        "pad_token_id": PAD, "tie_word_embeddings": True, "dtype": "float32",
    }  # fmt: skip


def _names(layer: int) -> dict[str, str]:
    theirs = f"bert.encoder.layer.{layer}."
    return {f"blocks.{layer}.{a}.{kind}": f"{theirs}{b}.{kind}" for a, b in BLOCK.items() for kind in KINDS}


def _qkv_names(layer: int, kind: str) -> list[str]:
    return [f"bert.encoder.layer.{layer}.attention.self.{part}.{kind}" for part in QKV]


def to_theirs(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The output layer is tied to the embeddings and does not stand twice; queries, keys and values are taken apart."""
    theirs = {new: state[old] for old, new in {**OUTER, **HEADS}.items()}
    theirs[TYPES] = torch.zeros(2, state["tokens.weight"].shape[1])
    for layer in range(_num_layers(state, "blocks.")):
        theirs |= {new: state[old] for old, new in _names(layer).items()}
        for kind in KINDS:
            parts = state[f"blocks.{layer}.attention.qkv.{kind}"].chunk(3)
            theirs |= dict(zip(_qkv_names(layer, kind), parts, strict=True))
    return theirs


def to_ours(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """From `BertForMaskedLM`, `BertForPreTraining` or the bare `BertModel`, whose head is then missing in the result."""
    full = {_full_name(name): tensor for name, tensor in state.items()}
    ours = {old: full[new] for old, new in OUTER.items()} | {old: full[new] for old, new in HEADS.items() if new in full}
    ours["positions.weight"] = ours["positions.weight"].float() + full[TYPES][0].float()  # half precision would round it
    for layer in range(_num_layers(full, "bert.encoder.layer.")):
        ours |= {old: full[new] for old, new in _names(layer).items()}
        for kind in KINDS:
            ours[f"blocks.{layer}.attention.qkv.{kind}"] = torch.cat([full[name] for name in _qkv_names(layer, kind)])
    return ours


def _full_name(name: str) -> str:
    """Names of the bare model get their prefix; the oldest files call the norms' weights gamma and beta."""
    name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
    return f"bert.{name}" if name.startswith(("embeddings.", "encoder.")) else name


def _num_layers(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix)})
