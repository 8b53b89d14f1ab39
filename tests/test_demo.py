"""What `raysl demo` refuses before the first stage, and what its last lines say."""

import shlex
from pathlib import Path

import pytest

from raysl import demo, run, run_config
from raysl.errors import ConfigError


def test_tasks_that_it_will_ask_are_needed_before_the_first_stage(
    smallest_yaml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "run", lambda *_: pytest.fail("stages were made"))
    with pytest.raises(ConfigError, match=r"asks classify, embed, search; add embed, search to serve\.tasks"):
        demo.demo(run_config.load(smallest_yaml))


def test_pictures_are_not_asked_about(smallest_yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "run", lambda *_: pytest.fail("stages were made"))
    given = ["prepare.source=digits", "pretrain={objective: simclr, model: resnet}"]
    with pytest.raises(ConfigError, match="asks about documents, and this run reads images"):
        demo.demo(run_config.load(smallest_yaml, given))


def test_what_it_says_to_type_next_can_be_typed(smallest_yaml: Path) -> None:
    folder = smallest_yaml.parent / "my runs"
    _, line, _ = demo._next_steps(run_config.load(smallest_yaml, [f"run_dir={folder}", "serve.host=0.0.0.0"]))
    command, _, address = line.partition("     answers at ")
    assert shlex.split(command) == ["next:", "raysl", "serve", f"{folder}/config.yaml"]
    assert address == "http://127.0.0.1:8000"
