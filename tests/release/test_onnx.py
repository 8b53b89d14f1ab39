"""Exports read any batch and any length, and a file that differs from its model is refused."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tiny_run import released_gpt_run, released_run

from raysl.errors import BundleError
from raysl.models.heads import Classifier
from raysl.models.load import load_classifier, load_encoder
from raysl.models.text import Gpt, TextEncoder
from raysl.release import onnx as export
from raysl.release.onnx import EmbedGraph

pytestmark = pytest.mark.slow

VOCABULARY = 400
ROWS = [np.random.default_rng(n).integers(5, VOCABULARY, n).astype(np.int64) for n in (1, 3, 4, 9, 9, 17, 30)]


@dataclass(frozen=True)
class Exported:
    """Models and the files that a release made of them."""

    encoder: TextEncoder
    classifier: Classifier
    gpt: Gpt
    encoder_file: Path
    classifier_file: Path
    generator_file: Path


@pytest.fixture
def made(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    base = tmp_path_factory.getbasetemp()
    run, gpt_run = released_run(base).folder, released_gpt_run(base).folder
    gpt, _ = load_encoder(gpt_run / "pretrain")
    assert isinstance(gpt, Gpt)
    bundle = run / "release" / "bundle"
    return Exported(
        load_encoder(run / "pretrain")[0], load_classifier(run / "finetune")[0], gpt,
        bundle / "encoder.onnx", bundle / "classifier.onnx", gpt_run / "release" / "bundle" / "generator.onnx",
    )  # fmt: skip


def test_an_encoder_is_one_file_with_free_batch_and_length(made: Exported) -> None:
    assert [file.name for file in made.encoder_file.parent.glob("encoder*")] == ["encoder.onnx"]
    graph = onnx.load(str(made.encoder_file)).graph
    assert [d.dim_param for d in graph.input[0].type.tensor_type.shape.dim] == ["batch", "length"]
    assert [value.name for value in graph.output] == ["embedding"]
    parity = export.check_parity(EmbedGraph(made.encoder), made.encoder_file, export.token_cases(ROWS, 40), tolerance=1e-5)
    assert parity.longest == 40
    assert parity.max_difference < 1e-5


def test_a_classifier_gives_logits_and_the_embedding(made: Exported) -> None:
    export.check_parity(made.classifier, made.classifier_file, export.token_cases(ROWS, 40), tolerance=1e-4)
    session = onnxruntime.InferenceSession(str(made.classifier_file))
    assert [output.name for output in session.get_outputs()] == ["logits", "embedding"]


def test_padding_does_not_change_an_embedding(made: Exported) -> None:
    session = onnxruntime.InferenceSession(str(made.encoder_file))
    alone = session.run(None, {"tokens": ROWS[1][None]})[0]
    beside = session.run(None, {"tokens": export.padded([ROWS[1], ROWS[-1]])})[0]
    np.testing.assert_allclose(beside[0], alone[0], atol=1e-6)


def test_a_file_of_other_weights_is_refused(made: Exported) -> None:
    torch.nn.init.normal_(made.encoder.tokens.weight)
    with pytest.raises(BundleError, match=r"differs from PyTorch by .*nothing is released"):
        export.check_parity(EmbedGraph(made.encoder), made.encoder_file, export.token_cases(ROWS, 40), tolerance=1e-4)


def test_not_a_number_is_refused(made: Exported) -> None:
    torch.nn.init.constant_(made.encoder.norm.weight, float("nan"))
    with pytest.raises(BundleError, match="differs from PyTorch by nan"):
        export.check_parity(EmbedGraph(made.encoder), made.encoder_file, export.token_cases(ROWS, 40), tolerance=1e-4)


def test_a_head_of_zeros_proves_nothing(made: Exported) -> None:
    torch.nn.init.zeros_(made.classifier.head.weight)
    with pytest.raises(BundleError, match="proves nothing"):
        export.check_parity(made.classifier, made.classifier_file, export.token_cases(ROWS, 40), tolerance=1e9)


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


@pytest.mark.parametrize("rows", [[ROWS[3]], [ROWS[3], ROWS[3], ROWS[3][:0]], [ROWS[6], np.append(ROWS[6], 9)]])
def test_one_document_alone_is_no_fault_of_the_model(rows: list[np.ndarray]) -> None:
    with pytest.raises(BundleError, match=r"two different ones are needed. Give prepare.split.validation a larger share"):
        export.token_cases(rows, max_tokens=30)
    assert export.token_cases([*rows, ROWS[1]], max_tokens=30)


def test_the_largest_model_is_the_largest_that_torch_writes_as_one_file() -> None:
    from torch.onnx._internal.exporter import _onnx_program

    assert export.MOST_MB * 2**20 == _onnx_program._LARGE_MODEL_THRESHOLD


def test_a_generator_reads_in_steps_what_it_reads_at_once(made: Exported) -> None:
    parity = export.check_generator_parity(made.gpt, made.generator_file, ROWS, tolerance=1e-5)
    assert parity.max_difference < 1e-5
    inputs = onnx.load(str(made.generator_file)).graph.input
    assert [value.name for value in inputs] == ["tokens", "past_keys", "past_values"]


def test_a_generator_whose_cache_is_wrong_is_refused(made: Exported) -> None:
    torch.nn.init.normal_(made.gpt.positions.weight)
    with pytest.raises(BundleError, match=r"generator.onnx differs"):
        export.check_generator_parity(made.gpt, made.generator_file, ROWS, tolerance=1e-4)
