"""report.html from small files: what it shows, what it leaves out, and that nothing in it can act."""

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysl import storage
from raysl.report import build, contents
from raysl.run_config import RunConfig
from raysl.schema import REMOVED
from raysl.stage import Stage, log_metrics

HOSTILE = "<script>alert('document')</script> $x^2$"


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    (tmp_path / "text").mkdir()
    data = {
        "name": "small",
        "run_dir": str(tmp_path / "run"),
        "prepare": {"source": {"type": "files", "path": str(tmp_path / "text")}},
        "pretrain": {"objective": "bert", "model": "bert"},
    }
    (tmp_path / "run").mkdir()
    return RunConfig.model_validate(data)


def fill(folder: Path) -> None:
    stage = Stage(folder, "prepare", {"a": 1}, {})
    examples = [{"id": f"copy {i}", "text": HOSTILE} for i in range(12)]
    storage.write_json(stage.begin() / "report.json", {
        "rows_name": "events", "documents_in": 1000, "kept": 985, "dropped": {"too_short": 3, "duplicate": 12},
        "examples": {"duplicate": examples}, "labels": {"json": 3, HOSTILE: 1}, "vocab_size": 400,
        "token_statistics": {"bytes_per_token": 3.5, "splits": {"train": {"documents": 900, "tokens": 12345, "bytes": 1}}},
        "usage": {"clean": {"seconds": 2.0, "cpu_seconds": 3.0, "peak_mb": 250.0}},
    })  # fmt: skip
    removed = [{"id": "copy 3", "reason": "duplicate", "kept_id": "the original", "jaccard": 0.9}]
    pq.write_table(pa.Table.from_pylist(removed, schema=REMOVED), stage.folder / "removed.parquet")
    stage.finish({}, {}, {})
    for step in (20, 40, 60, 40, 60):  # killed after 60, started again from the checkpoint at 20
        log_metrics(folder, "pretrain", step=step, loss=5 - step / 20)
    log_metrics(folder, "pretrain", step=60, validation_loss=2.5)
    storage.write_json(folder / "evaluate" / "report.json", {
        "few_label": [
            {"method": "tfidf", "labels_per_class": 5, "macro_f1": [0.4, 0.6], "accuracy": [0.5, 0.7]},
            {"method": "pretrained", "labels_per_class": 5, "macro_f1": [0.7, 0.7], "accuracy": [0.8, 0.8]},
        ],
        "confusion": {"classes": ["json", HOSTILE], "matrix": [[9, 1], [4, 6]]},
    })  # fmt: skip
    parity = {"encoder.onnx": {"max_difference": 1.5e-6, "num_cases": 8, "longest": 64}}
    said = {"parity": parity, "metrics": {"macro_f1": 0.75}, "latency": {"p50_ms": 2.5}}
    storage.write_json(folder / "release" / "bundle" / "bundle.json", said)


class Page(HTMLParser):
    """Tags, addresses and visible text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "srcset", "data")]

    def handle_data(self, data: str) -> None:
        self.words.append(data.strip())


def test_report_shows_every_part_that_exists(config: RunConfig) -> None:
    fill(config.folder)
    page = Page(build(config).read_text(encoding="utf-8"))
    headings = (
        "Events",
        "Tokens",
        "Labels",
        "Time and memory of prepare",
        "Loss: pretrain",
        "Few labels",
        "Scores on the test split.",
        "Release",
        "Time",
    )
    for heading in (*headings, "Confusion on the test split"):
        assert heading in page.words
    assert page.tags.count("svg") == 5
    assert "kept: the original  jaccard 0.9" in page.words
    assert {"12,345", "3.5", "250"} <= set(page.words)
    assert "1.20%" in page.words  # 12 of 1,000
    assert "1.5e-06" in page.words
    assert "latency p50, ms" in page.words
    assert "copy 9" in page.words
    assert "copy 10" not in page.words  # ten examples a reason


@pytest.mark.parametrize(("said", "longest"), [({"max_tokens": 64}, "64 tokens"), ({"decoding": {"size": 64}}, "64 pixels")])
def test_the_longest_input_of_a_release_has_its_unit(config: RunConfig, said: dict[str, Any], longest: str) -> None:
    parity = {"encoder.onnx": {"max_difference": 1.5e-6, "num_cases": 5, "longest": 64}}
    path = config.folder / "release" / "bundle" / "bundle.json"
    storage.write_json(path, {"parity": parity, "metrics": {}, **said})
    assert longest in Page(build(config).read_text(encoding="utf-8")).words


def test_report_of_an_empty_folder_has_only_versions(config: RunConfig) -> None:
    page = Page(build(config).read_text(encoding="utf-8"))
    assert "Versions" in page.words
    assert "svg" not in page.tags
    assert "Documents" not in page.words


def test_text_of_documents_is_escaped_and_nothing_is_loaded(config: RunConfig) -> None:
    fill(config.folder)
    text = build(config).read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.tags
    assert HOSTILE in page.words  # shown as it was written
    assert "link" not in page.tags
    assert all(address.startswith("#") for address in page.addresses)
    assert "default-src 'none'" in text


def test_steps_that_ran_again_count_once(config: RunConfig) -> None:
    fill(config.folder)
    with open(config.folder / "metrics.jsonl", "a") as file:
        file.write('{"stage": "pretrain", "st')  # killed while writing
    curves = contents.loss_curves(config.folder)["pretrain"]
    assert curves == {"loss": [(20, 4.0), (40, 3.0), (60, 2.0)], "validation_loss": [(60, 2.5)]}


def test_the_probe_has_a_curve_of_its_own(config: RunConfig) -> None:
    fill(config.folder)
    with open(config.folder / "metrics.jsonl", "a") as file:
        file.write('{"stage": "pretrain", "step": 70, "knn_accuracy": 0.5, "knn_largest_class": 0.2, "knn_k": 20}\n')
    assert contents.probe_curves(config.folder)["pretrain"]["knn_accuracy"] == [(70, 0.5)]
    assert "kNN accuracy" in Page(build(config).read_text(encoding="utf-8")).words


def test_few_label_rows_hold_mean_and_spread(config: RunConfig) -> None:
    fill(config.folder)
    rows, _, split = contents.evaluation(config.folder)
    assert split == "test"
    assert [row.method for row in rows] == ["pretrained", "tfidf"]
    assert rows[1].macro_f1 == pytest.approx(0.5)
    assert rows[1].macro_f1_spread == pytest.approx(0.141421, abs=1e-5)
    assert rows[1].accuracy == pytest.approx(0.6)


def test_of_many_classes_the_largest_are_drawn(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[int, int]] = []
    monkeypatch.setattr(
        "raysl.report.figures.confusion_matrix",
        lambda classes, matrix: drawn.append((len(classes), len(matrix[0]))) or "<svg/>",
    )
    fill(config.folder)
    path = config.folder / "evaluate" / "report.json"
    matrix = [[row if row == column else 1 for column in range(300)] for row in range(300)]
    said = {"split": "validation", "confusion": {"classes": [f"c{n}" for n in range(300)], "matrix": matrix}}
    storage.write_json(path, {**storage.read_json(path), **said})
    shown = contents.largest_classes(said["confusion"])  # type: ignore[arg-type]
    assert shown["classes"] == [f"c{n}" for n in range(250, 300)]
    assert [shown["matrix"][2][column] for column in (1, 2, 3)] == [1, 252, 1]
    words = Page(build(config).read_text(encoding="utf-8")).words
    assert drawn == [(50, 50)]
    assert {"Confusion on the validation split", "The 50 largest of 300 classes."} <= set(words)


@pytest.mark.browser
def test_report_renders_in_a_browser_without_network(config: RunConfig) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs `pip install raysl[browser]`")
    fill(config.folder)
    seen = render(playwright, build(config))
    assert seen["errors"] == []
    assert seen["requests"] == []
    assert seen["headings"][0] == "small"
    assert all(box["width"] > 100 and box["height"] > 100 for box in seen["figures"])
    assert len(seen["figures"]) == 5


def render(playwright: Any, report: Path) -> dict[str, Any]:
    """What Chromium, offline, shows of the report; skips where no Chromium is installed."""
    with playwright.sync_playwright() as driver:
        try:
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"))
        except playwright.Error as error:
            pytest.skip(f"no Chromium: {str(error).splitlines()[0]}")
        page = browser.new_context(offline=True).new_page()
        seen: dict[str, Any] = {"errors": [], "requests": []}
        page.on("pageerror", lambda error: seen["errors"].append(str(error)))
        page.on("console", lambda line: seen["errors"].append(line.text))
        page.on("request", lambda request: seen["requests"].append(request.url))
        page.goto(report.as_uri())
        seen["requests"] = [url for url in seen["requests"] if url != report.as_uri()]
        seen["headings"] = page.locator("h1, h2").all_inner_texts()
        seen["figures"] = [figure.bounding_box() for figure in page.locator("svg").all()]
        browser.close()
    return json.loads(json.dumps(seen))  # type: ignore[no-any-return]
