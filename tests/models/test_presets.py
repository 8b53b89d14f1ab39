"""Known sizes by name: what they are, that keys win over them, and that they are the sizes of the originals."""

import importlib.util

import pytest
import torch
from pydantic import ValidationError

from raysl.models.config import BertConfig, GptConfig
from raysl.models.text import Bert, Gpt

MODELS = {"gpt": (Gpt, GptConfig), "bert": (Bert, BertConfig)}


def count(kind: str, vocab_size: int, **settings: object) -> int:
    """Parameters without the pooling weights, which the originals lack; nothing is allocated."""
    model, config = MODELS[kind]
    with torch.device("meta"):
        encoder = model(config(**settings), vocab_size)
    return sum(p.numel() for name, p in encoder.named_parameters() if name != "pool_weight.weight")


def test_keys_win_over_the_preset() -> None:
    config = GptConfig(preset="gpt2", num_layers=3)
    assert (config.num_layers, config.width, config.context_length) == (3, 768, 1024)
    assert GptConfig.model_validate(config.model_dump()) == config


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ValidationError, match=r"unknown preset 'bert-bas'. Did you mean 'bert-base'\? Choose from"):
        BertConfig(preset="bert-bas")


@pytest.mark.parametrize("kind", ["gpt", "bert"])
def test_every_preset_is_valid(kind: str) -> None:
    config = MODELS[kind][1]
    assert all(config(preset=name).width >= 64 for name in config.PRESETS)


@pytest.mark.slow  # the first tensor on the meta device loads much of torch
def test_sizes_are_those_of_the_papers() -> None:
    assert count("gpt", 50257, preset="gpt2") == 124_439_808
    types = 2 * 768  # segments, which our rows do not have
    assert count("bert", 30522, preset="bert-base") + types == 109_514_298
    assert GptConfig(preset="gpt2").matrix_weights(50257) == pytest.approx(124_439_808, rel=0.001)


@pytest.mark.slow  # importing transformers takes seconds
@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed (raysl[test])")
def test_sizes_are_those_of_transformers() -> None:
    import transformers

    import tests.torchvision_operators  # noqa: F401

    with torch.device("meta"):
        gpt = transformers.GPT2LMHeadModel(transformers.GPT2Config())
        bert = transformers.BertForMaskedLM(transformers.BertConfig())
    assert count("gpt", 50257, preset="gpt2") == gpt.num_parameters()
    types = bert.bert.embeddings.token_type_embeddings.weight.numel()
    assert count("bert", 30522, preset="bert-base") + types == bert.num_parameters()
