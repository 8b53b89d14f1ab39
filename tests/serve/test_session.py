"""Texts in, arrays out, in a process without torch."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from raysl.errors import BundleError
from raysl.release.runtime import softmax
from raysl.serve.session import BundleSession
from tests.tiny_bundle import VOCABULARY, make_bundle


def test_rows_are_padded_to_the_longest_of_the_batch_and_end_with_a_separator(session: BundleSession) -> None:
    apple, saw = VOCABULARY.index("apple"), VOCABULARY.index("saw")
    assert session.tokenize(["apple", "saw saw apple"]).tolist() == [[apple, 3, 0, 0], [saw, saw, apple, 3]]


@pytest.mark.parametrize("num_words", [15, 16, 17, 400, 50_000])
def test_long_texts_are_cut_to_max_tokens(session: BundleSession, num_words: int) -> None:
    row = session.tokenize(["apple " * num_words])[0]
    apple = VOCABULARY.index("apple")
    assert row.tolist() == [apple] * 15 + [3] if num_words == 15 else [apple] * 16


def test_cutting_a_long_text_before_tokenizing_changes_no_token_that_is_read(session: BundleSession) -> None:
    text = " ".join(np.random.default_rng(0).choice(VOCABULARY[5:], 5000))
    whole = session.tokenizer.encode(text, add_special_tokens=False).ids[: session.max_tokens]
    assert session.token_ids(text)[: session.max_tokens] == whole


def test_a_word_longer_than_the_head_is_read_whole(session: BundleSession) -> None:
    text = "apple" * 1000 + " banana"  # one unknown word, far longer than what is tokenized first
    assert session.token_ids(text) == [VOCABULARY.index("[UNK]"), VOCABULARY.index("banana")]


def test_answers_do_not_depend_on_the_neighbours_in_the_batch(session: BundleSession) -> None:
    texts = ["apple", "hammer saw drill cat", "dog"]
    alone = np.concatenate([session.classify([text]).logits for text in texts])
    np.testing.assert_allclose(session.classify(texts).logits, alone, atol=1e-6)


def test_embeddings_have_length_one(session: BundleSession) -> None:
    np.testing.assert_allclose(np.linalg.norm(session.embed(["apple", "cat saw"]), axis=1), 1, atol=1e-6)


def test_softmax_with_a_temperature_by_hand() -> None:
    logits = np.log(np.array([[1, 2, 1]], np.float32))
    np.testing.assert_allclose(softmax(logits), [[0.25, 0.5, 0.25]], atol=1e-6)
    roots = np.sqrt([1, 2, 1])
    np.testing.assert_allclose(softmax(logits, 2.0), [roots / roots.sum()], atol=1e-6)
    assert softmax(np.array([[1e4, 0]], np.float32)).tolist() == [[1.0, 0.0]]


def test_a_bundle_that_was_cut_off_does_not_open(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle")
    path = folder / "classifier.onnx"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(BundleError, match=r"classifier\.onnx"):
        BundleSession.open(folder)


def test_what_a_replica_imports_and_runs_is_free_of_torch(bundle_folder: Path) -> None:
    script = (
        "import sys; import raysl.serve.deployment, raysl.serve.app, raysl.serve.edge\n"
        "from pathlib import Path\n"
        "from raysl.serve.config import ServeConfig; from raysl.serve.service import Service, Settings\n"
        f"config = ServeConfig(tasks=('classify', 'embed', 'search', 'generate'), record={{'enabled': False}})\n"
        f"Service(Settings('x', Path('.'), 1, Path({str(bundle_folder)!r}), config), 'w').warm_up()\n"
        "assert not {'torch', 'sklearn', 'datasketch'} & set(sys.modules), 'torch came in'\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
