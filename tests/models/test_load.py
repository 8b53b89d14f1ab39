from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from raysl import storage
from raysl.errors import DataError, StageError
from raysl.models import load
from raysl.models.config import BertConfig, GptConfig
from raysl.models.heads import Classifier
from raysl.models.text import Bert, Gpt

TOKENS = torch.tensor([[7, 8, 9, 3], [10, 3, 0, 0]])


@pytest.mark.parametrize(("kind", "config"), [(Bert, BertConfig), (Gpt, GptConfig)])
def test_an_encoder_comes_back_as_it_was(kind: type, config: type, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = kind(config(width=16, num_heads=2), 30).eval()
    load.save(model, tmp_path, load.describe(model, objective={"type": "bert"}))
    loaded, description = load.load_encoder(tmp_path)
    assert torch.equal(loaded.embed(TOKENS), model.embed(TOKENS))
    assert description["objective"] == {"type": "bert"}


def test_a_classifier_comes_back_and_its_encoder_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    classifier = Classifier(Bert(BertConfig(width=16, num_heads=2), 30), 2).eval()
    load.save(classifier, tmp_path, load.describe(classifier.encoder))
    storage.write_json(tmp_path / load.CLASSES, {"classes": ["no", "yes"]})
    loaded, classes = load.load_classifier(tmp_path)
    assert classes == ["no", "yes"]
    assert torch.equal(loaded(TOKENS)[0], classifier(TOKENS)[0])
    assert torch.equal(load.load_encoder(tmp_path)[0].embed(TOKENS), classifier.encoder.embed(TOKENS))


def test_tied_weights_of_an_encoder_of_ones_own_come_back_tied(tmp_path: Path) -> None:
    class Tied(Bert):
        def __init__(self, config: BertConfig, vocab_size: int) -> None:
            super().__init__(config, vocab_size)
            self.out = torch.nn.Linear(config.width, vocab_size, bias=False)
            self.out.weight = self.tokens.weight

    torch.manual_seed(0)
    model, other = (Tied(BertConfig(width=16, num_heads=2), 30) for _ in range(2))
    load.save(model, tmp_path, load.describe(model))
    other.load_state_dict(load_file(tmp_path / load.WEIGHTS))
    assert other.out.weight is other.tokens.weight
    assert all(torch.equal(weight, other.state_dict()[name]) for name, weight in model.state_dict().items())


def test_an_empty_folder_names_the_command_that_fills_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="raysl pretrain"):
        load.load_encoder(tmp_path)
    with pytest.raises(StageError, match="raysl finetune"):
        load.load_classifier(tmp_path)
