"""The protocol: same draws and test rows for all methods, and yardsticks that are real ones."""

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from sklearn.feature_extraction.text import TfidfVectorizer

from raysl.errors import DataError
from raysl.evaluation import baselines, few_label
from raysl.evaluation.config import EvaluateConfig
from raysl.objectives.config import ContrastiveTextConfig
from raysl.run_config import RunConfig
from tests.tiny_image_run import make_image_run
from tests.tiny_run import copy_run, make_documents, make_run


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    settings = {"labels_per_class": [2, 4], "num_draws": 3, "lsa_width": 6, "max_test_rows": 40, "scratch_epochs": 2}
    return make_run(tmp_path_factory.mktemp("tiny"), evaluate=settings, finetune={"num_classes": 3, "epochs": 2})


def test_jobs_cover_every_method_budget_and_draw_once(config: RunConfig) -> None:
    protocol = few_label.build_protocol(config)
    rows = [row for job in few_label.jobs(config) for row in few_label.run_job(protocol, job)]
    seen = [(row["method"], row["labels_per_class"], row["draw"]) for row in rows]
    assert len(seen) == len(set(seen)) == few_label.num_scores(config) == 5 * 2 * 3
    assert all(0 <= row["macro_f1"] <= 1 for row in rows)


def test_draws_differ_but_are_the_same_for_every_method(config: RunConfig) -> None:
    first, second = few_label.build_protocol(config), few_label.build_protocol(config)
    assert first.draw(4, 0).tolist() == second.draw(4, 0).tolist()
    assert first.draw(4, 0).tolist() != first.draw(4, 1).tolist()
    assert np.bincount(first.targets[first.draw(4, 0)]).tolist() == [4, 4, 4]
    assert first.test.ids == second.test.ids


def test_no_test_row_is_in_the_labelled_pool(config: RunConfig) -> None:
    protocol = few_label.build_protocol(config)
    assert not set(protocol.pool.ids) & set(protocol.test.ids)


def test_a_split_without_a_row_to_score_is_refused(config: RunConfig, tmp_path: Path) -> None:
    bare = copy_run(config, tmp_path / "bare")
    for path in (bare.folder / "prepare" / "documents").glob("*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.filter(pc.not_equal(table["split"], "test")), path)
    with pytest.raises(DataError, match=r"The test split has no row of the 3 labels.*prepare\.split\.test"):
        few_label.build_protocol(bare)


@pytest.mark.parametrize("budgets", [[], [0], [-1], [5, 5]])
def test_budgets_are_numbers_of_rows_each_once(budgets: list[int]) -> None:
    with pytest.raises(ValidationError, match="labels_per_class"):
        EvaluateConfig.model_validate({"labels_per_class": budgets})


@pytest.mark.parametrize("features", [baselines.tfidf, lambda *texts: baselines.lsa(*texts, width=10, seed=0)])
def test_yardsticks_learn_topics_from_a_few_labels(features: object, tmp_path: Path) -> None:
    train, test = make_documents(200, seed=1), make_documents(90, seed=2)
    names = sorted({label for _, label in train})
    targets = np.array([names.index(label) for _, label in train])
    truth = np.array([names.index(label) for _, label in test])
    texts = [text for text, _ in train]
    predict = baselines.regression_predict(*features(texts, texts, [text for text, _ in test]))  # type: ignore[operator]
    assert (predict(np.arange(30), targets[:30]) == truth).mean() > 0.8


@pytest.mark.parametrize("text", ["Read a file, and e_2 of it", "Ärzte и дом", "x y", "AI2 机器", "机器学习 ok", "ไทย"])
def test_words_are_those_of_scikit_learn_but_in_scripts_without_spaces(text: str) -> None:
    expected = {"AI2 机器": ["AI2", "机", "器", "机器"], "机器学习 ok": [*"机器学习", "机器", "器学", "学习", "ok"],
                "ไทย": [*"ไทย", "ไท", "ทย"]}  # fmt: skip
    assert baselines.words(text) == expected.get(text, TfidfVectorizer().build_tokenizer()(text))


def predicted(train: list[tuple[str, str]], test: list[tuple[str, str]]) -> float:
    """Accuracy of TF-IDF with the first 20 labels."""
    names = sorted({label for _, label in train})
    targets = np.array([names.index(label) for _, label in train])
    texts = [text for text, _ in train]
    predict = baselines.regression_predict(*baselines.tfidf(texts, texts, [text for text, _ in test]))
    return float((predict(np.arange(20), targets[:20]) == [names.index(label) for _, label in test]).mean())


@pytest.mark.parametrize("topics", [("我们学习机器和模型的方法", "今天天气晴朗适合出门散步"), ("+-*/=<>", "()[]{};")])
def test_a_yardstick_reads_texts_without_words_between_blanks(topics: tuple[str, str]) -> None:
    """Each Chinese sentence was one word, known from no other text; of signs alone the fit failed."""
    rng = np.random.default_rng(0)
    rows = [("".join(rng.choice([*topics[n % 2]], 30)), str(n % 2)) for n in range(240)]
    assert predicted(rows[:160], rows[160:]) > 0.9


def test_labelled_rows_without_a_known_word_are_no_fault() -> None:
    rows = [("alpha beta gamma", "0"), ("alpha beta delta", "1")] * 80
    texts = [text for text, _ in rows]
    labelled = ["what nobody else says", "or ever said"]
    predict = baselines.regression_predict(*baselines.tfidf(texts, labelled, texts))
    assert len(predict(np.arange(2), np.arange(2))) == 160


def test_pixels_of_many_rows_take_little_more_memory_than_what_comes_out() -> None:
    rows = list(np.random.default_rng(0).integers(0, 256, (40, 3 * 128 * 128), np.uint8))
    tracemalloc.start()
    found = baselines.pixels(rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(found, (np.stack(rows) / 255 - 0.5).astype(np.float32))
    assert peak < 1.2 * found.nbytes


def test_images_go_through_the_same_protocol(tmp_path: Path) -> None:
    """Frozen, fine-tuned, from scratch and pixels; three kinds of images are easy to tell apart."""
    config = make_image_run(tmp_path)
    protocol = few_label.build_protocol(config)
    rows = [row for job in few_label.jobs(config) for row in few_label.run_job(protocol, job)]
    assert {row["method"] for row in rows} == {
        few_label.FROZEN, few_label.FINETUNED, few_label.SCRATCH, few_label.PIXELS,
    }  # fmt: skip
    assert len(rows) == few_label.num_scores(config) == 4 * 1 * 2
    assert np.mean([row["accuracy"] for row in rows if row["method"] == few_label.PIXELS]) > 0.6
    assert not set(protocol.pool.ids) & set(protocol.test.ids)


def test_a_yardstick_of_the_other_modality_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"'tfidf' is not for images\. Choose from pixels"):
        make_image_run(tmp_path, evaluate={"baselines": ["tfidf"]})


def test_titles_as_views_need_a_source_that_has_them(tmp_path: Path) -> None:
    sections = {"pretrain": {"objective": {"type": "contrastive_text", "views": "title"}, "model": "bert"}}
    prepared = {"source": {"type": "files", "path": "x"}}
    with pytest.raises(ValueError, match=r"views=title needs titles.*Set prepare\.source\.title_column"):
        RunConfig.model_validate({"name": "x", "prepare": prepared, **sections})
    prepared["source"]["title_column"] = "name"
    config = RunConfig.model_validate({"name": "x", "prepare": prepared, **sections})
    assert config.training.objective.model_dump()["views"] == "title"
    assert "views" not in ContrastiveTextConfig().model_dump()


def test_a_stage_that_a_modality_does_not_have_is_refused() -> None:
    columns = {"user_column": "u", "item_column": "i", "time_column": "t"}
    prepare = {"source": {"type": "interactions", "path": "events.parquet", **columns}}
    with pytest.raises(ValidationError, match=r"`finetune` is not for .*interactions: prepare, pretrain, tune"):
        RunConfig.model_validate({"name": "shop", "prepare": prepare, "finetune": {"num_classes": 3}})
