"""`raysl run` over all stages: made once, skipped after that, continued after SIGKILL with the same prepared bytes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from small_corpus import small_run

from raysl import run_config
from raysl.run_config import STAGES
from raysl.stage import read_manifest

pytestmark = pytest.mark.ray


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "raysl.cli", *map(str, arguments)]


def raysl(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=500)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(small_run(folder), sort_keys=False))
    return path


def content(folder: Path, stage: str) -> str | None:
    manifest = read_manifest(folder, stage)
    return manifest.content_hash if manifest else None


def kill_when(ready: Callable[[], bool], *arguments: str | Path) -> None:
    """Starts raysl, waits, and kills it with all it started: what a power cut leaves behind."""
    process = subprocess.Popen(
        command(*arguments), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until = time.monotonic() + 300
    while not ready() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    assert process.poll() is None, "it ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_run_makes_every_stage_then_skips_them_all(small: Path) -> None:
    done = raysl("run", small)
    assert done.returncode == 0, done.stderr
    folder = small.parent / "run"
    assert all(content(folder, stage) for stage in STAGES)
    page = (folder / "report.html").read_text(encoding="utf-8")
    for heading in ("Documents", "Loss: pretrain", "Few labels", "Confusion on the test split", "Release"):
        assert f"<h2>{heading}</h2>" in page
    assert "next:   raysl serve" in done.stdout
    assert "Traceback" not in done.stderr

    written = {stage: (folder / stage / "manifest.json").stat().st_mtime_ns for stage in STAGES}
    again = raysl("run", small)
    assert again.returncode == 0, again.stderr
    assert written == {stage: (folder / stage / "manifest.json").stat().st_mtime_ns for stage in STAGES}
    assert run_config.load(folder / "config.yaml") == run_config.load(small)


def test_later_stage_is_made_again_without_the_earlier_ones(small: Path) -> None:
    folder = small.parent / "run"
    prepared = (folder / "prepare" / "manifest.json").stat().st_mtime_ns
    refused = raysl("finetune", small, "finetune.epochs=1")
    assert refused.returncode == 2
    assert "finetune.epochs: 2 -> 1" in refused.stderr
    assert raysl("finetune", small, "finetune.epochs=1", "--redo").returncode == 0
    assert (folder / "prepare" / "manifest.json").stat().st_mtime_ns == prepared


def test_killed_run_goes_on_and_ends_with_the_same_bytes(small: Path) -> None:
    whole, folder = small.parent / "run", small.parent / "killed"
    arguments = ("run", small, f"run_dir={folder}", "finetune=null", "evaluate=null", "release=null", "serve=null")
    kill_when(lambda: any((folder / "prepare" / "work").glob("clean-*")), *arguments)
    assert content(folder, "prepare") is None
    kill_when(lambda: any((folder / "pretrain" / "checkpoints").glob("step-*")), *arguments)
    assert content(folder, "prepare") == content(whole, "prepare")
    assert content(folder, "pretrain") is None
    done = raysl(*arguments)
    assert done.returncode == 0, done.stderr
    assert content(folder, "prepare") == content(whole, "prepare")
    assert content(folder, "pretrain") == content(whole, "pretrain")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["prepare.source.path={}/absent"], "{}/absent"),
        (["prepare.source.path={}/empty"], "{}/empty"),
        (["prepare.filters.0.min_chars=100000"], "nothing is left of 660 documents; most were dropped as 'too_short'"),
    ],
)
def test_source_that_gives_nothing_is_one_clear_error(small: Path, overrides: list[str], message: str) -> None:
    (small.parent / "empty").mkdir(exist_ok=True)
    filled = [override.format(small.parent) for override in overrides]
    done = raysl("prepare", small, f"run_dir={small.parent / 'nothing'}", *filled)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message.format(small.parent) in errors[0]
