"""A run starts from weights of others and leaves weights that others read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from raysl import catalog, storage
from raysl.data.given_tokenizer import renumbered
from raysl.data.prepared import Prepared
from raysl.errors import ConfigError, DataError
from raysl.models import layouts, load
from raysl.models.config import BertConfig, GptConfig
from raysl.models.layouts.files import WEIGHTS
from raysl.models.text import Bert, Gpt
from raysl.models.vision import ImageFormat
from raysl.run_config import RunConfig
from raysl.stage import Stage
from raysl.train import start
from tests.data.test_given_tokenizer import bert_like, gpt2_like

PICTURES = ImageFormat(8, 3, 4, (0.5,) * 3, (0.5,) * 3)
SIZES = {"num_layers": 1, "width": 16, "num_heads": 2, "context_length": 16}
KINDS = {"bert": (Bert, BertConfig, bert_like), "gpt": (Gpt, GptConfig, gpt2_like)}


def theirs(kind: str, folder: Path) -> torch.nn.Module:
    """Weights and tokenizer in `folder`, numbered as in the originals."""
    model, config, tokenizer = KINDS[kind]
    torch.manual_seed(1)
    encoder = model(config(**SIZES), len(start_vocabulary(tokenizer()))).eval()
    if kind == "bert":
        torch.nn.init.normal_(encoder.head_bias)
    layouts.export(encoder, folder)
    storage.write_json(folder / start.TOKENIZER, tokenizer())
    return encoder


def check(config: RunConfig) -> dict[str, str]:
    return start.check(Path(str(config.training.init_from)), config.training.model, Prepared.of(config))


def start_vocabulary(given: dict[str, Any]) -> dict[str, int]:
    return {**given["model"]["vocab"], **{token["content"]: token["id"] for token in given["added_tokens"]}}


def run_config(kind: str, folder: Path, given: Path, **model: object) -> RunConfig:
    """A run whose `prepare` has used the given tokenizer."""
    (folder / "prepare").mkdir(parents=True, exist_ok=True)
    storage.write_json(folder / "prepare" / start.TOKENIZER, renumbered(storage.read_json(given / start.TOKENIZER)))
    return RunConfig.model_validate({
        "name": "start", "run_dir": str(folder), "prepare": {"source": "python_docs"},
        "pretrain": {"objective": kind, "model": {"type": kind, **SIZES, **model}, "init_from": str(given)},
    })  # fmt: skip


@pytest.mark.parametrize("kind", ["bert", "gpt"])
def test_the_same_text_has_the_same_scores_under_both_numberings(kind: str, tmp_path: Path) -> None:
    old = theirs(kind, tmp_path / "given")
    config = run_config(kind, tmp_path / "run", tmp_path / "given")
    assert set(check(config)) == {"init_from"}
    ours = tmp_path / "run" / "prepare" / start.TOKENIZER
    model, settings, given = KINDS[kind]
    encoder = model(settings(**SIZES), len(start.vocabulary(ours))).eval()
    start.load_weights(encoder, tmp_path / "given", ours)
    text = "the unhappy files" if kind == "bert" else "here"
    left, right = (Tokenizer.from_str(json.dumps(t)).encode(text).ids for t in (given(), renumbered(given())))
    assert left != right
    places = torch.tensor(start.places(tmp_path / "given" / start.TOKENIZER, ours, len(old.tokens.weight)))
    with torch.no_grad():
        expected, found = (
            m.vocabulary_logits(m.encode(torch.tensor([ids]), torch.zeros(1, len(ids), dtype=torch.long)))
            for m, ids in ((old, left), (encoder, right))
        )
    known = places >= 0
    torch.testing.assert_close(found[..., known], expected[..., places[known]], atol=1e-6, rtol=1e-5)


def test_a_bert_without_head_starts_with_a_fresh_one(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    theirs("bert", tmp_path / "given")
    path = tmp_path / "given" / WEIGHTS
    save_file({name: w for name, w in load_file(path).items() if name.startswith("bert.")}, path)
    config = run_config("bert", tmp_path / "run", tmp_path / "given")
    ours = tmp_path / "run" / "prepare" / start.TOKENIZER
    encoder = Bert(BertConfig(**SIZES), len(start.vocabulary(ours)))
    fresh = encoder.head.weight.clone()
    start.load_weights(encoder, Path(config.training.init_from or ""), ours)
    assert torch.equal(encoder.head.weight, fresh)


def test_what_a_run_leaves_starts_the_next_one(tmp_path: Path) -> None:
    old = theirs("gpt", tmp_path / "given")
    config = run_config("gpt", tmp_path / "run", tmp_path / "given")
    ours = tmp_path / "run" / "prepare" / start.TOKENIZER
    encoder = Gpt(GptConfig(**SIZES), len(start.vocabulary(ours)))
    start.load_weights(encoder, tmp_path / "given", ours)
    start.export(encoder, tmp_path / "export", ours)
    again = Gpt(GptConfig(**SIZES), len(start.vocabulary(ours)))
    start.load_weights(again, tmp_path / "export", ours)
    assert all(torch.equal(w, again.state_dict()[name]) for name, w in encoder.state_dict().items())
    assert storage.read_json(tmp_path / "export" / "tokenizer_config.json")["eos_token"] == "<|endoftext|>"
    assert old.config == config.training.model


def test_tokens_that_the_weights_lack_are_not_what_they_predict(tmp_path: Path) -> None:
    """GPT-2's scores are all far below 0, where the row of a token as it was drawn would get all the probability."""
    given, ours = tmp_path / "given", tmp_path / "run" / "prepare" / start.TOKENIZER
    old = theirs("gpt", given)
    with torch.no_grad():
        old.tokens.weight += 1
        old.norm.bias.fill_(-2)
    layouts.export(old, given)
    run_config("gpt", tmp_path / "run", given)
    encoder = Gpt(GptConfig(**SIZES), len(start.vocabulary(ours)))
    start.load_weights(encoder, given, ours)
    with torch.no_grad():
        scores = encoder.vocabulary_logits(encoder.encode(torch.tensor([[5, 6, 7]])))[0, -1]
    lacking = torch.tensor(start.places(given / start.TOKENIZER, ours, len(old.tokens.weight))) < 0
    assert scores.max() < -25
    assert scores.softmax(0)[lacking].sum() < lacking.float().mean()


def test_tokens_that_were_added_without_rows_start_at_the_mean_or_are_refused(tmp_path: Path) -> None:
    """`tokenizer.add_special_tokens` does not lengthen the weights."""
    given, ours = tmp_path / "given", tmp_path / "run" / "prepare" / start.TOKENIZER
    theirs("gpt", given)
    tokenizer = storage.read_json(given / start.TOKENIZER)
    one, beyond = tokenizer["added_tokens"][0], len(start.vocabulary(given / start.TOKENIZER))
    tokenizer["added_tokens"].append({**one, "content": "[PAD]", "id": beyond})
    storage.write_json(given / start.TOKENIZER, tokenizer)
    check(run_config("gpt", tmp_path / "run", given))
    encoder = Gpt(GptConfig(**SIZES), len(start.vocabulary(ours)))
    given_rows = layouts.read_weights(given, "gpt")["tokens.weight"]
    start.load_weights(encoder, given, ours)
    torch.testing.assert_close(encoder.tokens.weight[0], given_rows.mean(0))
    tokenizer["added_tokens"].append({**one, "content": "<speaker>", "id": beyond + 1})
    storage.write_json(given / start.TOKENIZER, tokenizer)
    with pytest.raises(ConfigError, match=rf"1 tokens \('<speaker>' first\) beyond the {beyond} rows.*resize_token_emb"):
        check(run_config("gpt", tmp_path / "run", given))


def test_mistakes_are_named_before_anything_starts(tmp_path: Path) -> None:
    theirs("bert", tmp_path / "given")
    with pytest.raises(ConfigError, match=r"has other sizes. Write pretrain.model with num_layers: 1, width: 16"):
        check(run_config("bert", tmp_path / "run", tmp_path / "given", num_layers=2, width=32))
    config = run_config("bert", tmp_path / "run", tmp_path / "given")
    storage.write_json(tmp_path / "run" / "prepare" / start.TOKENIZER, gpt2_like())
    with pytest.raises(
        ConfigError, match=r"lacks 25\d of the run's 25\d tokens. Prepare with its own: prepare.tokenizer.path="
    ):
        check(config)
    with pytest.raises(ConfigError, match=r"pretrain.init_from: .*missing needs config.json and model.safetensors"):
        check(run_config("gpt", tmp_path / "run", tmp_path / "given").model_copy(
            update={"pretrain": config.training.model_copy(update={"init_from": str(tmp_path / "missing")})}
        ))  # fmt: skip


POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 440449768\n"


def without(*names: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        storage.write_json(path, {key: value for key, value in storage.read_json(path).items() if key not in names})

    return change


def one_tensor(path: Path) -> None:
    save_file({"encoder.weight": torch.zeros(1)}, path)


@pytest.mark.parametrize(("name", "change", "said"), [
    ("model.safetensors", lambda path: path.write_text(POINTER), r"model\.safetensors is a Git LFS pointer.*`git lfs pull`"),
    ("config.json", lambda path: path.write_text(POINTER), r"config\.json is a Git LFS pointer.*`git lfs pull`"),
    ("tokenizer.json", lambda path: path.write_text(POINTER), r"tokenizer\.json is a Git LFS pointer.*`git lfs pull`"),
    ("model.safetensors", lambda path: path.write_bytes(b"\x80\x02}" * 99), r"model\.safetensors is no safetensors file"),
    ("config.json", lambda path: path.write_text("{"), r"config\.json is no JSON"),
    ("config.json", lambda path: path.write_text("[]"), r"config\.json is no JSON object"),
    ("config.json", without("hidden_size"), r"config\.json lacks 'hidden_size'"),
    ("tokenizer.json", without("model"), r"tokenizer\.json lacks 'model'"),
    ("model.safetensors", one_tensor, r"model\.safetensors lacks 'bert\.embeddings\.word_embeddings\.weight'"),
])  # fmt: skip
def test_files_that_cannot_be_read_are_named_before_anything_starts(
    name: str, change: Callable[[Path], object], said: str, tmp_path: Path
) -> None:
    theirs("bert", tmp_path / "given")
    config = run_config("bert", tmp_path / "run", tmp_path / "given")
    change(tmp_path / "given" / name)
    with pytest.raises(ConfigError, match=rf"^pretrain\.init_from: .*{said}"):
        check(config)


def image_run(folder: Path, given: Path, model: dict[str, object], images: dict[str, object] | None) -> RunConfig:
    """A run whose `prepare` is done."""
    prepare = {"source": {"type": "images", "path": str(folder)}, **({"images": images} if images else {})}
    (folder / "prepare").mkdir(parents=True, exist_ok=True)
    Stage(folder, "prepare", {"prepare": prepare}, {}).finish({}, {}, {})
    return RunConfig.model_validate({
        "name": "pictures", "run_dir": str(folder), "prepare": prepare,
        "pretrain": {"objective": "simclr", "model": model, "init_from": str(given)},
    })  # fmt: skip


def test_pictures_and_networks_of_other_sizes_are_named_before_anything_starts(tmp_path: Path) -> None:
    resnet, vit = ({"type": "resnet", "width": 8}, {"type": "vit", "width": 16, "num_heads": 2, "num_layers": 1})
    for model in (resnet, vit):
        config = catalog.MODELS.config(str(model["type"])).model_validate(model)
        layouts.export(load.build(config, PICTURES), tmp_path / config.type)
    small, grey = {"size": 8, "channels": 3}, {"size": 8, "channels": 1}
    assert set(check(image_run(tmp_path / "a", tmp_path / "resnet", resnet, None))) == {"init_from"}
    assert set(check(image_run(tmp_path / "b", tmp_path / "vit", vit, small))) == {"init_from"}
    wrong = {
        r"Write prepare.images with channels: 3\.": (tmp_path / "resnet", resnet, grey),
        r"Write pretrain.model with width: 8\.": (tmp_path / "resnet", {**resnet, "width": 16}, small),
        r"Write prepare.images with size: 8\.": (tmp_path / "vit", vit, None),
        r"missing needs model.safetensors: `safetensors": (tmp_path / "missing", resnet, small),
    }
    for number, (said, given) in enumerate(wrong.items()):
        with pytest.raises(ConfigError, match=rf"pretrain.init_from: .*{said}"):
            check(image_run(tmp_path / f"{number}", *given))


def test_weights_of_other_shapes_are_refused(tmp_path: Path) -> None:
    theirs("bert", tmp_path / "given")
    run_config("bert", tmp_path / "run", tmp_path / "given")
    ours = tmp_path / "run" / "prepare" / start.TOKENIZER
    with pytest.raises(DataError, match=r"has other shapes than this run's model: positions.weight"):
        start.load_weights(Bert(BertConfig(**{**SIZES, "context_length": 32}), 13), tmp_path / "given", ours)


def test_weights_that_the_sizes_do_not_name_are_refused_before_anything_starts(tmp_path: Path) -> None:
    """Layers beyond those of config.json would be left out without a word, others would be missing on the workers."""
    model, settings, _ = KINDS["bert"]
    for layers, said in (
        (0, r"lacks weights of this run's model: blocks\.0\."),
        (2, r"has weights beyond this run's model: blocks\.1\."),
    ):
        given = tmp_path / f"{layers}"
        theirs("bert", given)
        described = (given / "config.json").read_text()
        layouts.export(model(settings(**{**SIZES, "num_layers": layers}), len(start_vocabulary(bert_like()))), given)
        (given / "config.json").write_text(described)
        with pytest.raises(ConfigError, match=rf"^pretrain\.init_from: .*model\.safetensors {said}"):
            check(run_config("bert", tmp_path / f"run-{layers}", given))
    wider = model(settings(**{**SIZES, "width": 32}), len(start_vocabulary(bert_like())))
    layouts.export(wider, given)
    (given / "config.json").write_text(described)
    with pytest.raises(ConfigError, match=r"has other shapes than this run's model: tokens\.weight"):
        check(run_config("bert", tmp_path / "wider", given))
