"""A command that is stopped, by Ctrl-C or by SIGTERM, says so, ends with a code of its own and loses nothing it has made."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from raysl import cli
from tests.test_cli import broken


@pytest.mark.parametrize(
    ("number", "deaf", "code"), [(signal.SIGINT, False, 130), (signal.SIGTERM, False, 143), (signal.SIGTERM, True, 143)]
)
def test_a_command_that_is_stopped_says_so(smallest_yaml: Path, number: signal.Signals, deaf: bool, code: int) -> None:
    arguments = broken(smallest_yaml)
    arguments[-1] = "prepare.source={type: 'broken:Broken', wait: true}"
    process = started(smallest_yaml, arguments, deaf)
    log = smallest_yaml.parent / "run" / "raysl.log"
    wait_until(lambda: log.is_file() and "chatter" in log.read_text())
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert said.splitlines() == ["log: run/raysl.log", "stopped; the same command goes on from here"]


def started(smallest_yaml: Path, arguments: list[str], deaf: bool) -> subprocess.Popen[str]:
    """A command in the folder of the YAML; `deaf` to Ctrl-C, as a shell's background jobs are, or not."""
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    return subprocess.Popen(
        [sys.executable, "-m", "raysl.cli", *arguments], cwd=smallest_yaml.parent, env=environment,
        stderr=subprocess.PIPE, text=True, process_group=0,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN if deaf else signal.SIG_DFL),
    )  # fmt: skip


def wait_until(there: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not there() and time.monotonic() < until:
        time.sleep(0.05)


HALF = """
import time
from pathlib import Path
from raysl.config import PluginConfig
from raysl.data.sources import Source

class Half(Source):
    class Config(PluginConfig):
        begun: str

    def partitions(self, partition_mb):
        return [[("one", 0, -1)], [("two", 0, -1)]]

    def fingerprint(self):
        return "half"

    def rows(self, partition, bad):
        yield partition[0][0], "the text of a document", None
        while partition[0][0] == "two":
            Path(self.config.begun).touch()
            time.sleep(0.05)
"""


@pytest.mark.ray
def test_sigterm_while_ray_data_is_at_work_keeps_what_is_made(smallest_yaml: Path) -> None:
    """Sent to the whole command, as `timeout` does. Ray's core took it for itself, and the process ended without a word."""
    (smallest_yaml.parent / "half.py").write_text(HALF)
    begun, clean = smallest_yaml.parent / "begun", smallest_yaml.parent / "run" / "prepare" / "work" / "clean-00000"
    source = f"prepare.source={{type: 'half:Half', begun: {begun}}}"
    process = started(smallest_yaml, ["prepare", str(smallest_yaml), source], deaf=False)
    wait_until(lambda: begun.is_file() and clean.is_dir())
    os.killpg(process.pid, signal.SIGTERM)
    _, said = process.communicate(timeout=50)
    assert process.returncode == 143
    assert said.splitlines()[-1] == "stopped; the same command goes on from here"
    assert clean.is_dir()


def test_the_end_of_ctrl_c_in_ray_train_is_no_success(
    smallest_yaml: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """On a cluster that was joined its handler ends the process with 0."""

    def end(*_: object) -> None:
        raise SystemExit(0)

    monkeypatch.setattr(cli, "_function", lambda _: end)
    monkeypatch.setattr(cli, "_disconnect", lambda: said.append(capfd.readouterr().err.splitlines()[-1]))
    said: list[str] = []
    assert cli.main(["report", str(smallest_yaml)]) == 130
    assert said == [cli.STOPPED], "told after the cluster was left, which may take longer than a job system waits"
