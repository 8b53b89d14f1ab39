"""Progress where nobody can draw a bar, and quiet around what others write."""

import io
import logging
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from raysl import cluster, progress
from raysl.progress import Progress


@pytest.fixture
def said() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    progress.set_user_stream(stream)
    yield stream
    progress.set_user_stream(None)


def test_lines_come_at_the_start_now_and_then_and_at_the_end(said: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with Progress("prepare: clean", total=40, unit="partitions") as bar:
        for _ in range(20):
            clock[0] += 1
            bar.advance(1, note="12 documents")
    lines = said.getvalue().splitlines()
    assert lines[0] == "prepare: clean"
    assert lines[1] == "prepare: clean  5/40 partitions  1.0/s  12 documents  35 s left"
    assert lines[-1] == "prepare: clean  20/40 partitions  1.0/s  12 documents  20.0 s"
    assert len(lines) == 2 + 20 // int(progress.LINE_EVERY_S)


def test_work_of_an_earlier_start_and_the_time_to_get_ready_are_no_speed(
    said: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with Progress("pretrain", total=1000, unit="steps") as bar:
        clock[0] += 60  # workers start
        bar.start_at(900)
        clock[0] += 10
        bar.set(950)
    assert "950/1,000 steps  5.0/s  10 s left" in said.getvalue()


def test_a_line_that_is_told_comes_at_once_and_stays(said: io.StringIO) -> None:
    with Progress("train", total=10) as progress:
        progress.set(1, "loss 3")
        progress.tell("step 1  held-out loss 2")
        progress.set(2, "loss 2")
    assert "\nstep 1  held-out loss 2\n" in said.getvalue()


def test_stage_that_fails_has_no_closing_line(said: io.StringIO) -> None:
    with pytest.raises(RuntimeError), Progress("pretrain", total=10):
        raise RuntimeError("stopped")
    assert said.getvalue().splitlines() == ["pretrain"]


def test_terminal_gets_a_bar_with_rate_and_time_left() -> None:
    script = "from raysl.progress import Progress\nwith Progress('clean', total=4, unit='parts') as p:\n    p.advance(2)"
    ours, theirs = pty.openpty()
    subprocess.run(
        [sys.executable, "-c", script], stderr=theirs, check=True, env={**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    )
    os.close(theirs)
    drawn = os.read(ours, 100_000).decode()
    os.close(ours)
    assert "━" in drawn
    assert "2/4 parts" in drawn
    assert "/s" in drawn


def test_quiet_keeps_chatter_in_the_log_and_our_lines_visible(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with cluster.quiet(tmp_path / "run" / "raysl.log"):
        os.write(1, b"from C, stdout\n")
        os.write(2, b"from C, stderr\n")
        sys.stderr.write("from a warning\n")
        logging.getLogger("a.library").info("from a logger")
        subprocess.run(["echo", "from a child"], check=True)
        print("from a print")
        progress.say("a line of progress")
    os.write(1, b"afterwards\n")
    shown = capfd.readouterr()
    assert shown.out == "afterwards\n"
    assert shown.err == "a line of progress\n"
    log = (tmp_path / "run" / "raysl.log").read_text()
    for line in (
        "from a print",
        "from C, stdout",
        "from C, stderr",
        "from a warning",
        "INFO a.library: from a logger",
        "from a child",
    ):
        assert line in log


def test_quiet_gives_the_streams_back_after_an_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    with pytest.raises(RuntimeError), cluster.quiet(tmp_path / "raysl.log"):
        raise RuntimeError("stopped")
    assert (sys.stdout, sys.stderr) == before
    progress.say("still here")
    assert capfd.readouterr().err == "still here\n"
