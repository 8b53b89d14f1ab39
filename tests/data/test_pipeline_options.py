"""Everything that is off by default, on at once, through a YAML and Ray."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from raysl import storage
from raysl.data.pipeline import prepare
from raysl.data.shards import TokenRows
from raysl.data.tokenizer_file import load_tokenizer
from raysl.schema import SEPARATOR
from tests.data.corpus import make_config, make_rows

pytestmark = pytest.mark.ray


def test_redaction_decontamination_and_lists_are_counted(ray_cluster: Path) -> None:
    folder = ray_cluster / "options"
    questions, words = folder / "questions.jsonl", folder / "words.txt"
    make = {
        "redact": {"kinds": ["email"]},
        "filters": ["length", {"type": "word_list", "path": str(words)}],
        "decontaminate": {"source": {"type": "files", "path": str(questions)}},
    }
    folder.mkdir()
    rows = {row["id"]: str(row["text"]) for row in make_rows()}
    words.write_text(rows["base50"].split()[0])
    listed = {name for name, text in rows.items() if words.read_text() in text.split()}
    questions.write_text(json.dumps({"text": " ".join(rows["base60"].split()[10:30])}))
    make_config(folder)  # writes the corpus
    with open(folder / "corpus" / "part0.jsonl", "a") as file:
        file.write(json.dumps({"id": "mail", "text": "Write to somebody@example.org about it."}) + "\n")
    manifest = prepare(make_config(folder, **make))
    assert manifest.counts["redacted"] == {"email": 1}
    assert manifest.counts["dropped"]["listed_word"] == len(listed)
    assert manifest.counts["dropped"]["contaminated"] == 1
    removed = pq.read_table(folder / "run" / "prepare" / "removed.parquet").to_pylist()
    assert [row["id"] for row in removed if row["reason"] == "contaminated"] == ["base60"]
    texts = [
        text
        for part in (folder / "run" / "prepare" / "documents").glob("*.parquet")
        for text in pq.read_table(part)["text"].to_pylist()
    ]
    assert "Write to [EMAIL] about it." in texts
    assert storage.read_json(folder / "run" / "prepare" / "report.json")["redacted"] == {"email": 1}
    words.write_text("nothing")
    assert "listed_word" not in prepare(make_config(folder, **make)).counts["dropped"]


def test_titles_are_known_in_the_shards(ray_cluster: Path) -> None:
    folder = ray_cluster / "titles"
    make_config(folder)  # writes a corpus
    rows = [{"text": f"{row['text']}\nEnd.", "name": str(row["id"])} for row in make_rows()[:60]]
    rows += [{"text": f"{row['text']}\nEnd.", "name": None} for row in make_rows()[60:90]]
    (folder / "titled.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = {"type": "files", "path": str(folder / "titled.jsonl"), "title_column": "name"}
    config = make_config(folder, source=source)
    prepare(config)
    prepared = folder / "run" / "prepare"
    tokenizer = load_tokenizer(prepared / "tokenizer.json")
    found = TokenRows(prepared / "tokens" / "train", "titled", 64)
    titles = [row[: row.tolist().index(SEPARATOR)].tolist() for row in map(found.row, range(len(found)))]
    assert len(titles) > 50
    said = [tokenizer.decode(title).strip() for title in titles]
    untitled = [text for text in said if text.endswith("end.")]  # up to the [SEP] behind the whole document
    assert 10 < len(untitled) < 31
    assert {*said} - {*untitled} <= {row["name"] for row in rows}
