"""More of the same is normal, other text is drift, long answers are slow, and little data gives no verdict."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tiny_run import copy_run, make_documents, released_run

from raysl.errors import StageError
from raysl.monitor.checks import MonitorResult, judge, monitor, table
from raysl.monitor.config import MonitorConfig
from raysl.monitor.recorder import Label, Record, Recorder
from raysl.monitor.window import Window, reference_window
from raysl.release.bundle import CLASSIFIER, REFERENCE, Bundle, open_bundle
from raysl.release.model_registry import production
from raysl.release.reference import Answers, answer
from raysl.release.runtime import Runner, softmax
from raysl.run_config import RunConfig
from raysl.serve.config import ServeConfig

CONFIG = MonitorConfig(min_rows=50, num_null_windows=500)
OTHER = {"cooking": "onion butter garlic flour simmer bake oven", "garden": "rose soil tulip prune seed lawn compost"}


def make_window(rows: int, seed: int, **changes: object) -> Window:
    rng = np.random.default_rng(seed)
    predictions = [str(label) for label in rng.choice(["a", "b", "c"], rows)]
    window = Window(
        embeddings=rng.normal(size=(rows, 16)),
        text_lengths=np.round(rng.lognormal(5, 1, rows)),
        predictions=list(predictions),
        confidences=rng.beta(5, 2, rows).tolist(),
        latencies_ms=rng.lognormal(1, 0.3, rows).tolist(),
        labels=[p if rng.random() < 0.8 else "a" for p in predictions],
    )
    return replace(window, **changes)  # type: ignore[arg-type]


def judged(window: Window, reference_rows: int = 300) -> MonitorResult:
    return judge(make_window(reference_rows, seed=1000), window, CONFIG, version=1, task="classify")


def test_more_of_the_same_is_normal() -> None:
    result = judged(make_window(150, seed=1))
    assert (result.verdict, result.reasons) == ("normal", ())
    assert [check.name for check in result.checks] == ["inputs", "text length", "confidence", "predictions", "accuracy"]


def test_few_windows_without_drift_alarm() -> None:
    reference_and_windows = ((make_window(200, seed=seed), make_window(80, seed=10_000 + seed)) for seed in range(100))
    verdicts = [judge(reference, window, CONFIG, 1, "classify").verdict for reference, window in reference_and_windows]
    assert verdicts.count("drift") <= 3  # 1 expected at false_alarm_rate=0.01; above 3 in 2 % of such draws


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("inputs", {"embeddings": np.random.default_rng(5).normal(0.25, 1, (150, 16))}),
        ("text length", {"text_lengths": np.full(150, 30.0)}),
        ("confidence", {"confidences": [0.4] * 150}),
        ("predictions", {"predictions": ["a"] * 150}),
        ("accuracy", {"labels": ["b"] * 75 + ["c"] * 75}),
    ],
)
def test_each_kind_of_drift_is_named(name: str, changes: dict[str, object]) -> None:
    result = judged(make_window(150, seed=2, **changes))
    assert result.verdict == "drift"
    assert name in [reason.split(":")[0] for reason in result.reasons]


def test_a_sure_model_whose_reference_holds_floats_is_no_drift() -> None:
    """1 - 1e-9 is 1 as a float: beside it what the service recorded looked less sure in every row."""
    sure = [1 - 10.0**-power for power in np.random.default_rng(0).uniform(8, 14, 450)]
    reference = make_window(300, seed=1000, confidences=[float(np.float32(value)) for value in sure[:300]])
    result = judge(reference, make_window(150, seed=1, confidences=sure[300:]), CONFIG, version=1, task="classify")
    assert (result.verdict, result.reasons) == ("normal", ())


def test_the_window_kept_at_release_is_as_sure_as_the_service() -> None:
    assert Answers(np.zeros((1, 2)), np.array([[20.0, 0.0]], np.float32)).confidences(1.0) == [
        pytest.approx(1 - 2.06e-9, abs=1e-11)
    ]


def test_a_small_rate_of_false_alarms_is_said_as_it_is() -> None:
    config = MonitorConfig(false_alarm_rate=0.0005, num_null_windows=10_000)
    last = table(judged(make_window(150, seed=1)), config)[-1]
    assert last == "verdict: normal  (alarm at p <= 0.0001: 0.05% false alarms over all tests)"


def test_slow_answers_are_called_slow_and_fast_ones_on_a_fast_model_are_not() -> None:
    assert judged(make_window(150, seed=3, latencies_ms=[400.0] * 150)).verdict == "slow"
    assert judged(make_window(150, seed=3, latencies_ms=[50.0] * 150)).verdict == "normal"


def test_little_data_gives_no_verdict() -> None:
    result = judged(make_window(49, seed=4))
    assert result.verdict == "not enough data"
    assert result.reasons == ("49 recorded classify requests to version 1, needed are 50",)


def test_a_handful_of_rows_kept_at_release_gives_no_verdict() -> None:
    """Beside it even other traffic was called normal."""
    other = make_window(150, seed=4, embeddings=np.random.default_rng(5).normal(0.25, 1, (150, 16)))
    result = judged(other, reference_rows=5)
    assert result.verdict == "not enough data"
    assert result.reasons[0].startswith("5 rows kept at release, needed are 20: give prepare.split.validation")
    assert judged(other, reference_rows=100).verdict == "drift"


def test_too_few_null_windows_are_refused() -> None:
    with pytest.raises(Exception, match="num_null_windows must be at least 500"):
        MonitorConfig(num_null_windows=100)


@pytest.fixture
def released(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> RunConfig:
    return copy_run(released_run(tmp_path_factory.getbasetemp()), tmp_path / "run")


def serve_texts(
    config: RunConfig, rows: list[tuple[str, str]], start: int, with_embedding: bool = True, max_text_chars: int = 10_000
) -> None:
    """Answers texts with the bundle in production and records them as the service does."""
    version, folder = production(config.folder)
    bundle = open_bundle(folder)
    answers = answer(Runner.of(bundle), [text for text, _ in rows], classifies=True)
    assert answers.logits is not None
    predictions = answers.predictions(bundle.classes)
    confidences = softmax(answers.logits, bundle.manifest["temperature"]).max(1)
    recorder = Recorder(config.folder, f"writer-{start}", flush_seconds=60, max_text_chars=max_text_chars)
    for number, (text, label) in enumerate(rows):
        request = f"{start}-{number}"
        embedding = answers.embeddings[number].tolist() if with_embedding else None
        recorder.record(
            Record(request, start + number, "classify", text, 2.0, 1.0, version, predictions[number],
                   float(confidences[number]), embedding)
        )  # fmt: skip
        recorder.record(Label(request, start + number + 0.5, label))
    recorder.record(Record(f"{start}-search", start + 999, "search", "how to open a file", 2.0, 1.0, version))
    recorder.close()


@pytest.mark.slow
def test_recorded_traffic_is_judged_end_to_end(released: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    assert monitor(released).verdict == "not enough data"
    serve_texts(released, make_documents(90, seed=7), start=1_000)
    assert monitor(released).verdict == "normal"
    serve_texts(released, make_documents(100, seed=8, topics=OTHER), start=10_000, with_embedding=False)
    result = monitor(released)
    assert result.verdict == "drift"
    assert result.rows == 100
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("verdict: drift")
    assert json.loads((released.folder / "monitor" / "latest.json").read_text())["verdict"] == "drift"
    history = (released.folder / "monitor" / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["verdict"] for line in history] == ["not enough data", "normal", "drift"]


@pytest.mark.slow
@pytest.mark.parametrize("kept", [0, 20])
def test_traffic_whose_texts_are_recorded_in_part_is_no_drift(released: RunConfig, kept: int) -> None:
    serve_texts(released, make_documents(90, seed=7), start=1_000, max_text_chars=kept)
    serve = ServeConfig.model_validate({"tasks": ["classify"], "record": {"max_text_chars": kept}})
    result = monitor(released.model_copy(update={"serve": serve}))
    assert (result.verdict, result.rows) == ("normal", 90)


@pytest.mark.slow
def test_embeddings_of_texts_that_were_recorded_in_part_are_compared_with_such(
    released: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = open_bundle(production(released.folder)[1])
    whole = reference_window(bundle, 10_000)
    assert np.array_equal(reference_window(bundle, 20).embeddings, whole.embeddings)
    monkeypatch.setattr(Bundle, "has", lambda self, name: name != CLASSIFIER)  # `embed` is monitored, which records none
    cut = reference_window(bundle, 20)
    texts = [text[:20] for text in pq.read_table(bundle.path(REFERENCE))["text"].to_pylist()]
    assert cut.text_lengths.tolist() == [len(text) for text in texts]
    assert np.allclose(cut.embeddings, answer(Runner.of(bundle), texts, False).embeddings, atol=1e-5)
    assert not np.allclose(cut.embeddings, whole.embeddings, atol=1e-3)


@pytest.mark.slow
def test_a_run_without_a_release_names_the_command(tmp_path: Path, released: RunConfig) -> None:
    with pytest.raises(StageError, match="raysl release"):
        monitor(released.model_copy(update={"run_dir": str(tmp_path / "none")}))
