"""Weights a run starts from, where the user has some: a folder in Hugging Face's layout, or in torchvision's (ResNet).

Vocabulary rows are matched by the tokens' text, because `prepare` moves special tokens to ids of ours.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from raysl import storage
from raysl.config import PluginConfig
from raysl.data.config import ImagesConfig
from raysl.data.prepared import TOKENIZER, Prepared
from raysl.errors import ConfigError, DataError
from raysl.models import layouts
from raysl.models import load as models
from raysl.models.encoder import Encoder
from raysl.models.layouts.files import WEIGHTS, read_object, reading
from raysl.models.text import TextEncoder
from raysl.models.vision import ImageFormat

NUM_SPECIAL = 5
BY_TOKEN = ("tokens.weight", "head_bias")
"""Weights with one row per token."""
OPTIONAL = ("pool_weight.weight", "head.weight", "head.bias", "head_norm.weight", "head_norm.bias", "head_bias")
"""Weights that stay as they were drawn where the folder lacks them: our pooling, and the head of a bare BERT."""


def check(folder: Path, model: PluginConfig, prepared: Prepared) -> dict[str, str]:
    """Content hash of the weights in `folder`, which `pretrain.init_from` names; ConfigError where they do not fit.

    Reads no weights, so that a mistake shows before anything starts.
    """
    try:
        _compare(folder, "pretrain.model", layouts.read_sizes(folder, model.type), vars(model))
        state = layouts.read_names(folder, model.type)
        data: int | ImageFormat
        if model.modality == "text":
            places(folder / TOKENIZER, prepared.file(TOKENIZER), _num_rows(state))
            data = len(vocabulary(prepared.file(TOKENIZER)))
        else:
            images = ImagesConfig.model_validate(prepared.manifest.config["prepare"].get("images") or {})
            _compare(folder, "prepare.images", layouts.read_image(folder, model.type), vars(images))
            data = ImageFormat(images.size, images.channels, images.size, (0.0,) * images.channels, (1.0,) * images.channels)
        with torch.device("meta"):
            own = models.build(model, data).state_dict()
        _check_shapes(folder / WEIGHTS, own, state)
    except DataError as error:
        raise ConfigError(f"pretrain.init_from: {error}") from error
    return {"init_from": storage.hash_file(folder / WEIGHTS)}


def _compare(folder: Path, section: str, asked: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    wrong = [f"{name}: {value}" for name, value in asked.items() if given[name] != value]
    if wrong:
        raise DataError(f"{folder} has other sizes. Write {section} with {', '.join(wrong)}.")


def _num_rows(state: Mapping[str, Tensor]) -> int:
    """Tokens that the weights have numbers of; their tokenizer may have more."""
    return min(len(state[name]) for name in BY_TOKEN if name in state)


def places(theirs: Path, ours: Path, num_rows: int) -> list[int]:
    """Where each of our tokens stands among the `num_rows` of their weights, -1 for special tokens that they lack."""
    if not theirs.is_file():
        raise DataError(f"{theirs} is missing. Save the fast tokenizer beside the weights (`save_pretrained`).")
    known, wanted = vocabulary(theirs), vocabulary(ours)
    unknown = [token for token, number in wanted.items() if token not in known and number >= NUM_SPECIAL]
    if unknown:
        raise DataError(
            f"its tokenizer lacks {len(unknown):,} of the run's {len(wanted):,} tokens. "
            f"Prepare with its own: prepare.tokenizer.path={theirs}."
        )
    beyond = [token for token, number in wanted.items() if number >= NUM_SPECIAL and known[token] >= num_rows]
    if beyond:
        raise DataError(
            f"its tokenizer has {len(beyond):,} tokens ('{beyond[0]}' first) beyond the {num_rows:,} rows of its weights. "
            f"Call `model.resize_token_embeddings(len(tokenizer))` and save both again."
        )
    found = [known.get(token, -1) for token in sorted(wanted, key=wanted.__getitem__)]
    return [place if place < num_rows else -1 for place in found]


def vocabulary(path: Path) -> dict[str, int]:
    """Token -> id, special tokens included."""
    given = read_object(path)
    with reading(path):
        return {**given["model"]["vocab"], **{token["content"]: token["id"] for token in given.get("added_tokens", ())}}


def load_weights(encoder: Encoder, folder: Path, tokenizer: Path | None) -> None:
    """Puts the weights of `folder` into `encoder`; a head and a pooling that it lacks stay as they were drawn."""
    state, own = layouts.read_weights(folder, encoder.config.type), encoder.state_dict()
    _check_shapes(folder / WEIGHTS, own, state)
    if tokenizer is not None:
        found = torch.tensor(places(folder / TOKENIZER, tokenizer, _num_rows(state)))
        state |= {name: _moved(own[name], state[name], found) for name in BY_TOKEN if name in state}
    encoder.load_state_dict(state, strict=False)


def _check_shapes(path: Path, own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """DataError where weights are missing, have other shapes, or would be left out without a word."""

    def shape(name: str, weight: Tensor) -> tuple[int, ...]:
        return tuple(weight.shape[1:] if name in BY_TOKEN else weight.shape)  # the rows of tokens are moved

    missing = [name for name in own if name not in state and name not in OPTIONAL]
    wrong = [name for name, w in own.items() if name in state and shape(name, state[name]) != shape(name, w)]
    left = [name for name in state if name not in own]
    for names, said in ((missing, "lacks weights of"), (wrong, "has other shapes than"), (left, "has weights beyond")):
        if names:
            listed = ", ".join(names[:3])
            raise DataError(f"{path} {said} this run's model: {listed}. Its sizes (config.json) and its weights do not fit.")


def _moved(own: Tensor, theirs: Tensor, found: Tensor) -> Tensor:
    """Their rows in our order. A token that they lack starts at their mean, about as probable as the others: scores of GPT-2
    are all far below 0, and a row as it was drawn, whose score is about 0, would get all the probability.
    """
    known = theirs[found[found >= 0]].to(own)
    rows = known.mean(0).expand_as(own).clone()
    rows[found >= 0] = known
    return rows


def export(encoder: Encoder, folder: Path, tokenizer: Path | None) -> None:
    """Writes `encoder` and its tokenizer as others read them; nothing where the model is ours alone."""
    if not layouts.export(encoder, folder) or tokenizer is None:
        return
    storage.write_text(folder / TOKENIZER, tokenizer.read_text(encoding="utf-8"))
    names = sorted(vocabulary(folder / TOKENIZER).items(), key=lambda item: item[1])[:NUM_SPECIAL]
    roles = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), (n for n, _ in names), strict=True))
    more: dict[str, Any] = {
        "eos_token": roles["sep_token"],
        "model_max_length": cast(TextEncoder, encoder).config.context_length,
    }
    storage.write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **roles, **more})
