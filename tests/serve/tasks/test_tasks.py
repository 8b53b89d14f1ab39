"""Each task is called without HTTP; its answers are worked out by hand from the tiny bundle."""

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from raysl.data.text import normalize
from raysl.errors import BundleError
from raysl.serve.session import BundleSession
from raysl.serve.tasks.base import TextRequest
from raysl.serve.tasks.classify import Classify, ClassifyConfig
from raysl.serve.tasks.embed import Embed, EmbedConfig
from raysl.serve.tasks.generate import Generate, GenerateConfig, GenerateRequest, choose
from raysl.serve.tasks.search import Search, SearchConfig, SearchRequest
from tests.tiny_bundle import CLASSES, make_bundle


def _classify(session: BundleSession, text: str, **config: int) -> object:
    return Classify(session, ClassifyConfig(**config)).predict([TextRequest(text=text)])[0]


def test_classify_names_the_class_and_how_sure_it_is(session: BundleSession) -> None:
    response = _classify(session, "hammer saw")
    expected = np.exp(4) / (np.exp(4) + 2)  # logits 4, 0, 0
    assert response.label == "tool"
    assert response.confidence == pytest.approx(expected, abs=1e-3)
    assert [score.label for score in response.scores] == ["tool", "fruit", "animal"]
    assert sum(score.score for score in response.scores) == pytest.approx(1)


def test_classify_lists_as_many_scores_as_asked_for(session: BundleSession) -> None:
    assert len(_classify(session, "apple", num_scores=2).scores) == 2
    assert len(_classify(session, "apple", num_scores=50).scores) == len(CLASSES)


def test_the_temperature_of_the_release_calibrates_confidence(tmp_path: Path) -> None:
    session = BundleSession.open(make_bundle(tmp_path / "bundle", temperature=2.0))
    assert _classify(session, "apple").confidence == pytest.approx(np.exp(2) / (np.exp(2) + 2), abs=1e-3)


def test_what_is_recorded_of_a_classification_has_its_embedding(session: BundleSession) -> None:
    task, request = Classify(session, ClassifyConfig()), TextRequest(text="cat")
    answer = task.answer(request, task.predict([request])[0])
    assert (answer.text, answer.prediction) == ("cat", "animal")
    np.testing.assert_allclose(answer.embedding, session.embed(["cat"])[0], atol=1e-6)


def test_embed_gives_a_vector_of_length_one(session: BundleSession) -> None:
    (response,) = Embed(session, EmbedConfig()).predict([TextRequest(text="apple saw")])
    assert response.embedding == pytest.approx([2**-0.5, 2**-0.5, 0, 0], abs=1e-2)


def test_search_ranks_documents_by_meaning(session: BundleSession) -> None:
    task = Search(session, SearchConfig(snippet_chars=9))
    near, tool = task.predict([SearchRequest(text="cherry", limit=2), SearchRequest(text="saw", limit=1)])
    assert [(hit.id, hit.label) for hit in near.documents] == [("a", "fruit"), ("d", "fruit")]
    assert near.documents[0].score == pytest.approx(1, abs=1e-3)
    assert near.documents[1].score == pytest.approx(2**-0.5, abs=1e-2)
    assert (tool.documents[0].id, tool.documents[0].snippet) == ("b", "hammer sa")


def test_texts_come_to_the_model_as_prepare_writes_them() -> None:
    """Windows line ends, tabs and odd blanks are other tokens than those it was trained on."""
    typed = "\ufeffdef f():\r\n\treturn\u00a01  \r\n"
    assert TextRequest(text=typed).text == normalize(typed) == "def f():\n    return 1"
    assert GenerateRequest(text=typed).text == "def f():\n    return 1\n"
    assert GenerateRequest(text="Return the ").text == "Return the "
    assert GenerateRequest(text=".").text == "."
    for blank in ("\u200b\n", " \u3000"):
        for kind in (TextRequest, GenerateRequest):
            with pytest.raises(ValidationError, match="blank"):
                kind(text=blank)


def test_generate_counts_on_until_the_end_of_the_document(session: BundleSession) -> None:
    task = Generate(session, GenerateConfig())
    (response,) = task.predict([GenerateRequest(text="apple", temperature=0, max_tokens=12)])
    assert response.text == "banana cherry hammer saw drill cat"  # [SEP] wins once seven tokens lie in the cache
    assert response.num_tokens == 6


def test_generate_adds_no_more_tokens_than_asked_for(session: BundleSession) -> None:
    (response,) = Generate(session, GenerateConfig()).predict([GenerateRequest(text="apple", temperature=0, max_tokens=2)])
    assert response.text == "banana cherry"


def test_generate_reads_the_end_of_a_text_longer_than_its_context(tmp_path: Path) -> None:
    session = BundleSession.open(make_bundle(tmp_path / "bundle", context_length=12))
    request = GenerateRequest(text="cat " * 500 + "apple", temperature=0, max_tokens=15)
    assert Generate(session, GenerateConfig()).predict([request])[0].text.startswith("banana")


def test_generate_stays_within_the_context_where_longer_texts_are_read(tmp_path: Path) -> None:
    session = BundleSession.open(make_bundle(tmp_path / "bundle", context_length=6))
    longest = {"apple": "banana cherry hammer saw drill", "cat " * 500 + "apple": "banana cherry hammer"}  # five; three
    for text, expected in longest.items():
        (response,) = Generate(session, GenerateConfig()).predict([GenerateRequest(text=text, temperature=0, max_tokens=12)])
        assert response.text == expected
    assert session.tokenize(["apple " * 500]).shape == (1, session.max_tokens)


def test_equal_seeds_generate_equal_texts(session: BundleSession) -> None:
    task = Generate(session, GenerateConfig())
    texts = {seed: task.predict([GenerateRequest(text="apple", temperature=9, seed=seed)])[0].text for seed in range(6)}
    again = {seed: task.predict([GenerateRequest(text="apple", temperature=9, seed=seed)])[0].text for seed in range(6)}
    assert texts == again
    assert len(set(texts.values())) > 1


def test_top_k_leaves_out_all_but_the_most_probable() -> None:
    logits, random = np.array([0.0, 3.0, 2.0, 1.0], np.float32), np.random.default_rng(0)
    assert {choose(logits, 5.0, 2, random) for _ in range(200)} == {1, 2}
    assert {choose(logits, 5.0, 0, random) for _ in range(200)} == {0, 1, 2, 3}
    assert choose(logits, 0.0, 0, random) == 1
    assert choose(logits, 1e-9, 0, random) == 1


def test_a_bundle_without_a_generator_cannot_generate(tmp_path: Path) -> None:
    session = BundleSession.open(make_bundle(tmp_path / "bundle", generates=False))
    with pytest.raises(BundleError, match=r"generator\.onnx; it answers classify, embed, search"):
        Generate(session, GenerateConfig())


def test_a_task_derived_from_one_of_ours_keeps_its_own_request(session: BundleSession) -> None:
    class Pair(Embed):
        Request = SearchRequest

    assert Pair(session, EmbedConfig()).Request is SearchRequest
    assert Embed(session, EmbedConfig()).Request is TextRequest
