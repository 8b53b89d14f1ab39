"""Weights go to transformers and come back: same logits, same loss, same gradients, on both sides."""

import importlib.util
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from raysl import storage
from raysl.errors import DataError
from raysl.models import layouts
from raysl.models.config import BertConfig, GptConfig
from raysl.models.text import Bert, Gpt

needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed (raysl[test])"
)
VOCAB = 61
SIZES = {"num_layers": 2, "width": 32, "num_heads": 4, "context_length": 24, "feedforward_ratio": 3.0}
KINDS = {"gpt": (Gpt, GptConfig), "bert": (Bert, BertConfig)}


def ours(kind: str, seed: int = 0) -> nn.Module:
    """A model whose biases and norms are random too, so that none can be forgotten."""
    torch.manual_seed(seed)
    model, config = KINDS[kind]
    encoder = model(config(**SIZES), VOCAB)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return encoder.eval()


def theirs(kind: str) -> nn.Module:
    import transformers

    import tests.torchvision_operators  # noqa: F401

    torch.manual_seed(1)
    if kind == "gpt":
        config = transformers.GPT2Config(vocab_size=VOCAB, n_positions=24, n_embd=32, n_layer=2, n_head=4, n_inner=96)
        model = transformers.GPT2LMHeadModel(config)
    else:
        config = transformers.BertConfig(
            vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96,
            max_position_embeddings=24,
        )  # fmt: skip
        model = transformers.BertForMaskedLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def auto(kind: str, folder: Path) -> nn.Module:
    import transformers

    import tests.torchvision_operators  # noqa: F401

    auto_class = transformers.AutoModelForCausalLM if kind == "gpt" else transformers.AutoModelForMaskedLM
    model, notes = auto_class.from_pretrained(folder, output_loading_info=True)
    assert {name: found for name, found in notes.items() if found} == {}
    return model.eval()


def imported(kind: str, folder: Path) -> nn.Module:
    model, config = KINDS[kind]
    encoder = model(config(**layouts.read_sizes(folder, kind)), VOCAB)
    missing, unexpected = encoder.load_state_dict(layouts.read_weights(folder, kind), strict=False)
    assert (missing, unexpected) == (["pool_weight.weight"], [])
    return encoder.eval()


def check_equal(kind: str, encoder: nn.Module, other: nn.Module) -> None:
    """Logits and loss to 1e-5, every gradient to 1e-4."""
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(5, VOCAB, (3, 24), generator=generator)
    labels = torch.where(torch.rand(3, 24, generator=generator) < 0.5, tokens, -100)
    logits = encoder.vocabulary_logits(encoder.encode(tokens))
    expected = other(input_ids=tokens, labels=labels)
    torch.testing.assert_close(logits, expected.logits, atol=1e-5, rtol=1e-5)
    left, right = (logits[:, :-1], labels[:, 1:]) if kind == "gpt" else (logits, labels)
    loss = F.cross_entropy(left.flatten(0, 1), right.flatten())
    torch.testing.assert_close(loss, expected.loss, atol=1e-5, rtol=1e-5)
    loss.backward()
    expected.loss.backward()
    for name, gradient in gradients(kind, encoder, other).items():
        torch.testing.assert_close(gradient[0], gradient[1], atol=1e-4, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def gradients(kind: str, encoder: nn.Module, other: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """Gradients of both under their names; the layouts are linear, so gradients travel as weights do."""
    layout = layouts.layout_of(kind)
    mine = layout.to_theirs({name: p.grad for name, p in encoder.named_parameters() if p.grad is not None})
    found = {name: p.grad for name, p in other.named_parameters()}
    left_out = {layout.TYPES} if kind == "bert" else set()  # we have no segments: not trained, added to the positions
    assert set(found) == set(mine)
    return {name: (mine[name], found[name]) for name in set(found) - left_out}


@pytest.mark.slow  # importing transformers takes seconds
@needs_transformers
@pytest.mark.parametrize("kind", ["gpt", "bert"])
def test_our_weights_compute_the_same_in_transformers(kind: str, tmp_path: Path) -> None:
    encoder = ours(kind)
    assert layouts.export(encoder, tmp_path)
    check_equal(kind, encoder, auto(kind, tmp_path))


@pytest.mark.slow  # importing transformers takes seconds
@needs_transformers
@pytest.mark.parametrize("kind", ["gpt", "bert"])
def test_their_weights_compute_the_same_here(kind: str, tmp_path: Path) -> None:
    model = theirs(kind)
    model.save_pretrained(tmp_path)
    check_equal(kind, imported(kind, tmp_path), model)


@pytest.mark.parametrize("kind", ["gpt", "bert"])
def test_weights_come_back_as_they_went(kind: str, tmp_path: Path) -> None:
    encoder = ours(kind)
    layouts.export(encoder, tmp_path)
    assert layouts.read_sizes(tmp_path, kind) == {k: v for k, v in encoder.config.model_dump().items() if k in SIZES}
    back, state = layouts.read_weights(tmp_path, kind), encoder.state_dict()
    assert set(state) - set(back) == {"pool_weight.weight"}
    for name, tensor in back.items():
        assert torch.equal(tensor, state[name]), name


def test_bare_and_old_bert_files_are_read_too(tmp_path: Path) -> None:
    """`BertModel` has no prefix and no head; the oldest files call the norms' parameters gamma and beta."""
    encoder = ours("bert")
    layout = layouts.layout_of("bert")
    old = {}
    for name, tensor in layout.to_theirs(encoder.state_dict()).items():
        if name.startswith("bert."):
            gamma = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
            old[gamma.removeprefix("bert.")] = tensor
    back = layout.to_ours(old)
    assert set(layout.HEADS) & set(back) == set()
    assert torch.equal(back["blocks.1.norm2.bias"], encoder.state_dict()["blocks.1.norm2.bias"])


def test_weights_of_another_network_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"needs config.json and model.safetensors"):
        layouts.read_sizes(tmp_path, "bert")
    layouts.export(ours("gpt"), tmp_path)
    with pytest.raises(DataError, match="model_type 'gpt2'; model 'bert' reads 'bert'"):
        layouts.read_sizes(tmp_path, "bert")
    config = storage.read_json(tmp_path / "config.json")
    storage.write_json(tmp_path / "config.json", config | {"activation_function": "relu"})
    with pytest.raises(DataError, match="'relu' is not supported, only gelu_new"):
        layouts.read_sizes(tmp_path, "gpt")


@pytest.mark.parametrize(
    ("kind", "said"), [("gpt", {"scale_attn_weights": False}), ("bert", {"is_decoder": True})], ids=["gpt", "bert"]
)
def test_weights_that_another_attention_was_trained_with_are_refused(
    kind: str, said: dict[str, bool], tmp_path: Path
) -> None:
    layouts.export(ours(kind), tmp_path)
    config = tmp_path / "config.json"
    storage.write_json(config, storage.read_json(config) | {name: not value for name, value in said.items()})
    layouts.read_sizes(tmp_path, kind)
    storage.write_json(config, storage.read_json(config) | said)
    with pytest.raises(DataError, match=next(iter(said))):
        layouts.read_sizes(tmp_path, kind)


def test_weights_in_several_files_are_told_with_the_way_to_one(tmp_path: Path) -> None:
    layouts.export(ours("bert"), tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "model-00001-of-00002.safetensors")
    storage.write_json(tmp_path / "model.safetensors.index.json", {"weight_map": {}})
    with pytest.raises(DataError, match=r"weights in several files.*max_shard_size"):
        layouts.read_sizes(tmp_path, "bert")


def test_positions_and_token_types_in_half_precision_are_added_in_full(tmp_path: Path) -> None:
    layout = layouts.layout_of("bert")
    theirs = {name: w.bfloat16() for name, w in layout.to_theirs(ours("bert").state_dict()).items()}
    theirs[layout.TYPES] = torch.full_like(theirs[layout.TYPES], 0.013)
    expected = theirs[layout.OUTER["positions.weight"]].float() + theirs[layout.TYPES][0].float()
    assert torch.equal(layout.to_ours(theirs)["positions.weight"], expected)


@pytest.mark.parametrize(("kind", "output"), [("gpt", "lm_head.weight"), ("bert", "cls.predictions.decoder.weight")])
def test_an_output_of_its_own_is_refused(kind: str, output: str, tmp_path: Path) -> None:
    """Ours is tied to the token embeddings: theirs would be left out without a word."""
    layouts.export(ours(kind), tmp_path)
    config, weights = tmp_path / "config.json", tmp_path / "model.safetensors"
    storage.write_json(config, storage.read_json(config) | {"tie_word_embeddings": False})
    layouts.read_sizes(tmp_path, kind)  # a bare model has none
    save_file({**load_file(weights), output: torch.zeros(VOCAB, SIZES["width"])}, weights)
    with pytest.raises(DataError, match="output tied to the token embeddings"):
        layouts.read_sizes(tmp_path, kind)
