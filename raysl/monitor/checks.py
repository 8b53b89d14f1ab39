"""`raysl monitor`: is the traffic still what the model was released for, and is it answered as fast?"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from raysl import storage
from raysl.metrics import drift
from raysl.metrics.drift import Deals, TestResult
from raysl.metrics.latency import latency
from raysl.monitor.config import NUM_TESTS, MonitorConfig
from raysl.monitor.window import Window, monitored_task, newest_window, reference_window
from raysl.progress import say
from raysl.release.bundle import open_bundle
from raysl.release.model_registry import production
from raysl.run_config import RunConfig
from raysl.serve.config import RecordConfig

Verdict = Literal["normal", "drift", "slow", "not enough data"]
FEWEST_REFERENCE = 20
"""Rows kept at release below which hardly any drift would show."""
FEWEST_LABELS = 20
"""Rows with feedback below which accuracy is not judged."""

CONFIDENCE_DECIMALS = 6
"""Decimals of a confidence that are compared: references of earlier versions hold floats, records doubles."""


@dataclass(frozen=True)
class Check:
    """One comparison: what was measured, beside what it has to be for an alarm."""

    name: str
    statistic: str
    value: float
    p_value: float
    alarm: bool


@dataclass(frozen=True)
class Speed:
    """Median latency in ms, at release and now."""

    reference_ms: float
    window_ms: float
    p95_ms: float
    alarm: bool


@dataclass(frozen=True)
class MonitorResult:
    """The verdict on one window, with its reasons and numbers."""

    verdict: Verdict
    reasons: tuple[str, ...]
    version: int
    rows: int
    reference_rows: int
    checks: tuple[Check, ...] = ()
    speed: Speed | None = None
    time: float = field(default_factory=time.time)
    """Seconds since the epoch."""


def monitor(config: RunConfig) -> MonitorResult:
    """Compares the newest recorded window of the production version with the window kept at its release.

    Writes <run>/monitor/latest.json, appends to <run>/monitor/history.jsonl and prints a table that ends in the verdict.
    """
    version, folder = production(config.folder)
    bundle = open_bundle(folder)
    recorded = (config.serve.record if config.serve else RecordConfig()).max_text_chars
    window = newest_window(config.folder, bundle, version, config.monitor.window_rows, recorded)
    result = judge(reference_window(bundle, recorded), window, config.monitor, version, monitored_task(bundle))
    kept = config.folder / "monitor"
    storage.write_json(kept / "latest.json", asdict(result))
    storage.append_jsonl(kept / "history.jsonl", asdict(result))
    for line in table(result, config.monitor):
        say(line)
    return result


def judge(reference: Window, window: Window, config: MonitorConfig, version: int, task: str) -> MonitorResult:
    """The verdict on `window`. Drift goes before slowness; both are among the reasons."""
    counts = version, len(window), len(reference)
    if len(window) < config.min_rows:
        reason = f"{len(window):,} recorded {task} requests to version {version}, needed are {config.min_rows:,}"
        return MonitorResult("not enough data", (reason,), *counts)
    if len(reference) < FEWEST_REFERENCE:
        needed = f"needed are {FEWEST_REFERENCE}: give prepare.split.validation a larger share"
        reason = f"{len(reference)} rows kept at release, {needed}"
        return MonitorResult("not enough data", (reason,), *counts)
    checks, speed = compare(reference, window, config), compare_speed(reference, window, config)
    reasons = [
        f"{check.name}: {check.statistic} {check.value:.3f}, p = {check.p_value:.2g}" for check in checks if check.alarm
    ]
    verdict: Verdict = "drift" if reasons else "normal"
    if speed is not None and speed.alarm:
        reasons.append(f"speed: {speed.window_ms:.1f} ms, at release {speed.reference_ms:.1f} ms")
        verdict = verdict if verdict == "drift" else "slow"
    return MonitorResult(verdict, tuple(reasons), *counts, tuple(checks), speed)


def compare(reference: Window, window: Window, config: MonitorConfig) -> list[Check]:
    """All tests that the rows allow. Each alarms at its share of the false alarm rate (Bonferroni)."""
    level = config.false_alarm_rate / NUM_TESTS
    dealt = drift.deal(len(reference), len(window), config.num_null_windows, seed=0)

    def check(name: str, statistic: str, result: TestResult) -> Check:
        return Check(name, statistic, result.statistic, result.p_value, result.p_value <= level)

    checks = [
        check("inputs", "AUC of a classifier", drift.classifier_test(reference.embeddings, window.embeddings, dealt)),
    ]
    if reference.text_lengths is not None and window.text_lengths is not None:
        lengths = drift.distribution_test(reference.text_lengths, window.text_lengths, dealt)
        checks.append(check("text length", "KS distance", lengths))
    if _known(reference.confidences) and _known(window.confidences):
        before, now = (np.array(rows.confidences, float).round(CONFIDENCE_DECIMALS) for rows in (reference, window))
        checks.append(check("confidence", "KS distance", drift.distribution_test(before, now, dealt)))
        answers = [str(p) for p in reference.predictions], [str(p) for p in window.predictions]
        checks.append(check("predictions", "Cramer's V", drift.category_test(*answers, dealt)))
    accuracy = _accuracy_test(reference, window, lambda old, new: drift.deal(old, new, config.num_null_windows, seed=0))
    return checks if accuracy is None else [*checks, check("accuracy", "loss", accuracy)]


def _known(values: list[Any]) -> bool:
    return all(value is not None for value in values)


def _accuracy_test(reference: Window, window: Window, deal: Callable[[int, int], Deals]) -> TestResult | None:
    """Whether answers with feedback are right less often; only labels that the reference knows can be judged."""
    classes = {prediction for prediction in reference.predictions if prediction is not None}
    before, now = (_hits(rows, classes) for rows in (reference, window))
    if min(len(before), len(now)) < FEWEST_LABELS:
        return None
    return drift.mean_test(before, now, deal(len(before), len(now)))


def _hits(window: Window, classes: set[str]) -> drift.Matrix:
    pairs = zip(window.labels, window.predictions, strict=True)
    return np.array([label == prediction for label, prediction in pairs if label in classes], np.float64)


def compare_speed(reference: Window, window: Window, config: MonitorConfig) -> Speed | None:
    """Median latencies; None where the recorder kept none."""
    before, now = ([value for value in rows.latencies_ms if value is not None] for rows in (reference, window))
    if not before or not now:
        return None
    old, new = latency(before), latency(now)
    alarm = new.p50_ms > max(config.max_latency_ratio * old.p50_ms, config.min_slow_ms)
    return Speed(old.p50_ms, new.p50_ms, new.p95_ms, alarm)


def table(result: MonitorResult, config: MonitorConfig) -> list[str]:
    """What `raysl monitor` prints."""
    lines = [
        f"monitor: version {result.version}, {result.rows:,} requests beside {result.reference_rows:,} rows kept at release",
        f"  {'':12}  {'measured':>20}  {'':8}  {'p':>7}",
    ]
    for check in result.checks:
        mark = "DRIFT" if check.alarm else "ok"
        lines.append(f"  {check.name:12}  {check.statistic:>20}  {check.value:8.3f}  {check.p_value:7.3f}  {mark}")
    if result.speed is not None:
        mark = "SLOW" if result.speed.alarm else "ok"
        before = f"(at release {result.speed.reference_ms:.1f})"
        lines.append(f"  {'speed':12}  {'median ms':>20}  {result.speed.window_ms:8.1f}  {'':7}  {mark} {before}")
    lines += [f"  {reason}" for reason in result.reasons]
    lines.append(f"verdict: {result.verdict}" + _level(result, config))
    return lines


def _level(result: MonitorResult, config: MonitorConfig) -> str:
    rate = config.false_alarm_rate
    return f"  (alarm at p <= {rate / NUM_TESTS:.2g}: {100 * rate:g}% false alarms over all tests)" if result.checks else ""
