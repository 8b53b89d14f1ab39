"""Exports read any batch and any length, and a file that differs from its model is refused."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from raysl.errors import BundleError
from raysl.models.config import BertConfig, GptConfig
from raysl.models.heads import Classifier
from raysl.models.text import Bert, Gpt
from raysl.release import onnx as export
from raysl.release.onnx import EmbedGraph

VOCABULARY = 60
ROWS = [np.random.default_rng(n).integers(5, VOCABULARY, n).astype(np.int64) for n in (1, 3, 4, 9, 9, 17, 30)]
OPSET = 20


@pytest.fixture(scope="module")
def bert() -> Bert:
    torch.manual_seed(0)
    return Bert(BertConfig(num_layers=1, width=16, num_heads=2, context_length=16), VOCABULARY).eval()


@pytest.fixture(scope="module")
def gpt() -> Gpt:
    torch.manual_seed(0)
    return Gpt(GptConfig(num_layers=2, width=16, num_heads=2, context_length=16), VOCABULARY).eval()


@pytest.fixture(scope="module")
def encoder_file(bert: Bert, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("encoder") / "encoder.onnx"
    export.export_on_tokens(EmbedGraph(bert), ["embedding"], path, OPSET)
    return path


@pytest.fixture(scope="module")
def generator_file(gpt: Gpt, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("generator") / "generator.onnx"
    export.export_generator(gpt, path, OPSET)
    return path


def test_an_encoder_is_one_file_with_free_batch_and_length(bert: Bert, encoder_file: Path) -> None:
    assert [file.name for file in encoder_file.parent.iterdir()] == ["encoder.onnx"]
    graph = onnx.load(str(encoder_file)).graph
    assert [d.dim_param for d in graph.input[0].type.tensor_type.shape.dim] == ["batch", "length"]
    assert [value.name for value in graph.output] == ["embedding"]
    parity = export.check_parity(EmbedGraph(bert), encoder_file, ROWS, max_tokens=40, tolerance=1e-5)
    assert parity.longest == 40
    assert parity.max_difference < 1e-5


def test_a_classifier_gives_logits_and_the_embedding(bert: Bert, tmp_path: Path) -> None:
    classifier = Classifier(bert, 3).eval()
    export.export_on_tokens(classifier, ["logits", "embedding"], tmp_path / "classifier.onnx", OPSET)
    export.check_parity(classifier, tmp_path / "classifier.onnx", ROWS, max_tokens=40, tolerance=1e-5)
    session = onnxruntime.InferenceSession(str(tmp_path / "classifier.onnx"))
    assert [output.name for output in session.get_outputs()] == ["logits", "embedding"]


def test_padding_does_not_change_an_embedding(encoder_file: Path) -> None:
    session = onnxruntime.InferenceSession(str(encoder_file))
    alone = session.run(None, {"tokens": ROWS[1][None]})[0]
    beside = session.run(None, {"tokens": export.padded([ROWS[1], ROWS[-1]])})[0]
    np.testing.assert_allclose(beside[0], alone[0], atol=1e-6)


def test_a_file_of_other_weights_is_refused(bert: Bert, encoder_file: Path) -> None:
    torch.manual_seed(1)
    other = EmbedGraph(Bert(bert.config, VOCABULARY)).eval()  # type: ignore[arg-type]
    with pytest.raises(BundleError, match=r"differs from PyTorch by .*nothing is released"):
        export.check_parity(other, encoder_file, ROWS, max_tokens=40, tolerance=1e-4)


def test_not_a_number_is_refused(bert: Bert, encoder_file: Path) -> None:
    broken = Bert(bert.config, VOCABULARY).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        broken.norm.weight.fill_(float("nan"))
    with pytest.raises(BundleError, match="differs from PyTorch by nan"):
        export.check_parity(EmbedGraph(broken), encoder_file, ROWS, max_tokens=40, tolerance=1e-4)


def test_a_head_of_zeros_proves_nothing(bert: Bert, tmp_path: Path) -> None:
    classifier = Classifier(bert, 3).eval()
    torch.nn.init.zeros_(classifier.head.weight)
    export.export_on_tokens(classifier, ["logits", "embedding"], tmp_path / "classifier.onnx", OPSET)
    with pytest.raises(BundleError, match="proves nothing"):
        export.check_parity(classifier, tmp_path / "classifier.onnx", ROWS, max_tokens=40, tolerance=1e-4)


def test_a_fixed_batch_is_found(tmp_path: Path) -> None:
    value = onnx.helper.make_tensor_value_info("tokens", onnx.TensorProto.INT64, [1, "length"])
    out = onnx.helper.make_tensor_value_info("embedding", onnx.TensorProto.INT64, [1, "length"])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["tokens"], ["embedding"])], "g", [value], [out])
    onnx.save(onnx.helper.make_model(graph), str(tmp_path / "encoder.onnx"))
    with pytest.raises(BundleError, match=r"encoder.onnx fixes the batch of input tokens at 1"):
        export.check_free_axes(tmp_path / "encoder.onnx", export.TOKEN_AXES)


def test_the_cases_hold_every_batch_size_the_longest_input_and_mixed_paddings() -> None:
    cases = export.token_cases(ROWS, max_tokens=20)
    assert {len(case) for case in cases} == {1, 2, 7}
    assert max(case.shape[1] for case in cases) == 20
    assert len({int((row != 0).sum()) for row in cases[-1]}) > 3


def test_a_generator_reads_in_steps_what_it_reads_at_once(gpt: Gpt, generator_file: Path) -> None:
    parity = export.check_generator_parity(gpt, generator_file, ROWS, tolerance=1e-5)
    assert parity.max_difference < 1e-5
    inputs = onnx.load(str(generator_file)).graph.input
    assert [value.name for value in inputs] == ["tokens", "past_keys", "past_values"]


def test_a_generator_whose_cache_is_wrong_is_refused(gpt: Gpt, generator_file: Path) -> None:
    torch.manual_seed(1)
    with pytest.raises(BundleError, match=r"generator.onnx differs"):
        export.check_generator_parity(Gpt(gpt.config, VOCABULARY).eval(), generator_file, ROWS, tolerance=1e-4)  # type: ignore[arg-type]
