"""Documents that share words with an evaluation set."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raysl.data.additions import prepare_additions
from raysl.data.clean import Cleaner
from raysl.data.config import DecontaminateConfig, PrepareConfig, RedactConfig
from raysl.data.decontaminate import Contaminated, ngrams, write_ngrams
from raysl.data.dedup import write_index_settings
from raysl.data.prints import PrintSettings
from raysl.data.redact import redact_column
from raysl.data.steps import Step
from raysl.data.text_recipe import TextRecipe, evaluation_read
from raysl.errors import DataError
from raysl.schema import RAW_DOCUMENT

WORDS = [f"w{number}" for number in range(40)]
QUESTION = " ".join(WORDS[:20])


def evaluation(folder: Path, *texts: str) -> DecontaminateConfig:
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps({"question": text}) + "\n" for text in texts))
    return DecontaminateConfig(source={"type": "files", "path": str(path), "text_column": "question"})


def kept(folder: Path, config: DecontaminateConfig, *texts: str) -> list[bool]:
    write_ngrams(config, 1.0, folder / "evaluation.npy")
    batch = pa.table({"id": [str(n) for n in range(len(texts))], "text": pa.chunked_array([list(texts)])})
    found: list[bool] = Contaminated(config, folder / "evaluation.npy").keep(batch)["contaminated"].tolist()
    return found


def test_thirteen_words_in_a_row_are_too_many(tmp_path: Path) -> None:
    twelve, thirteen = " ".join(WORDS[3:15]), " ".join(WORDS[3:16])
    texts = [f"so {twelve} it was", f"so {thirteen} it was", "", "W3, w4; w5 " + " ".join(WORDS[6:16]), "w39"]
    assert kept(tmp_path, evaluation(tmp_path, QUESTION, "another"), *texts) == [True, False, True, False, True]


def test_shorter_questions_count_when_all_words_are_the_same(tmp_path: Path) -> None:
    config = evaluation(tmp_path, "What is the time?")
    assert kept(tmp_path, config, "what is the time", "So what is the time?", "time") == [False, True, True]


def test_ngrams_of_many_chunks_name_their_texts() -> None:
    texts = pa.array([f"{'x ' * 5000}{number}" for number in range(300)])
    hashes, rows = ngrams(texts, 13)
    assert len(hashes) == len(rows) == 300 * (5001 - 12)
    assert np.unique(rows).tolist() == list(range(300))
    assert len(np.unique(hashes)) == 301


def test_an_empty_evaluation_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"decontaminate.source holds no text"):
        write_ngrams(evaluation(tmp_path), 1.0, tmp_path / "evaluation.npy")


def test_an_evaluation_set_is_redacted_as_the_documents_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    question = " ".join(f"{word} user{number}@mail.org" for number, word in enumerate(WORDS[:8]))
    config, redacted = evaluation(tmp_path, question), RedactConfig()
    monkeypatch.setattr(Step, "__enter__", lambda step: step)
    monkeypatch.setattr(Step, "__exit__", lambda step, *error: None)
    monkeypatch.setattr(Step, "run_calls", lambda step, function, calls, counted: [function(*call) for call in calls])
    prepare = PrepareConfig(source=config.source, decontaminate=config, redact=redacted)
    recipe = TextRecipe(tmp_path, prepare, 0)
    recipe.work.mkdir()
    recipe.read_evaluation()
    texts, _ = redact_column(pa.array([f"see {question}"]), redacted)
    batch = pa.table({"id": ["0"], "text": pa.chunked_array([texts])})
    assert not Contaminated(config, recipe.evaluation).keep(batch)["contaminated"].any()


def test_rows_of_an_evaluation_set_that_cannot_be_read_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = evaluation(tmp_path, QUESTION, "")
    with open(tmp_path / "questions.jsonl", "a") as file:
        file.write("no json\n[]\n")
    stats = write_ngrams(config, 1.0, tmp_path / "evaluation.npy")
    assert stats["bad"] == {"broken_line": 2, "missing_text": 1}
    assert evaluation_read(stats) == (stats["ngrams"], "n-grams")
    said = capsys.readouterr().err
    assert said == "prepare: 3 rows of the evaluation set cannot be used: broken_line 2, missing_text 1\n"


def test_a_clean_unit_counts_what_goes(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in (f"see {QUESTION}", " ".join(WORDS[20:]), "a@b.org"))
    )
    config = PrepareConfig(
        source={"type": "files", "path": str(corpus)}, decontaminate=evaluation(tmp_path, QUESTION), redact={},
    )  # fmt: skip
    assert config.decontaminate is not None
    write_ngrams(config.decontaminate, 1.0, tmp_path / "evaluation.npy")
    cleaner = Cleaner(config, PrintSettings.of(config.deduplicate), 0, False, tmp_path / "evaluation.npy")
    stats = cleaner([("corpus.jsonl", 0, -1)], tmp_path / "unit")
    assert stats["dropped"] == {"contaminated": 1}
    assert stats["redacted"] == {"email": 1}
    assert [name for _, name, _ in stats["examples"]["contaminated"]] == ["corpus.jsonl:0"]


def test_rows_that_come_later_are_compared_too(tmp_path: Path) -> None:
    """`raysl update` trains on them, and the evaluation set is what it is judged by."""
    config = PrepareConfig(source={"type": "files", "path": "x"}, decontaminate=evaluation(tmp_path, QUESTION))
    write_index_settings(tmp_path / "index", PrintSettings.of(config.deduplicate))
    rows = pa.table([["a", "b"], [f"so {QUESTION} it was", "another text"], ["x", "y"]], schema=RAW_DOCUMENT)
    found = prepare_additions(rows, RAW_DOCUMENT.empty_table(), tmp_path / "index", config)
    assert (found.rows["id"].to_pylist(), found.dropped) == (["b"], {"contaminated": 1})
