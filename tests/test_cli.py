"""The command line as a user meets it: processes, their exit codes and what they print."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from raysl import cli, run, run_config
from raysl.errors import ConfigError, DataError, RayslError, StageError
from raysl.run_config import STAGES
from raysl.stage import Stage, alone, section
from raysl.train.config import FinetuneConfig

HEAVY = ("ray", "torch", "pandas", "matplotlib", "sklearn")


def raysl(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "raysl.cli", *map(str, arguments)]  # -P: as the installed `raysl`, without cwd
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=120)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """What a command says that ends with 2 before it starts anything; in this process, which saves its start."""
    try:
        code = cli.main([str(argument) for argument in arguments])
    except SystemExit as error:  # argparse
        code = int(error.code or 0)
    shown = capsys.readouterr()
    assert (code, shown.out) == (2, "")
    return shown.err


def imported(arguments: list[str]) -> tuple[int, list[str]]:
    """Exit code of `main(arguments)` in a fresh process, and which heavy modules it imported."""
    script = (
        "import json, sys; from raysl.cli import main; code = main(json.loads(sys.argv[1]));"
        f"print(json.dumps([code, [name for name in {HEAVY!r} if name in sys.modules]]))"
    )
    done = subprocess.run([sys.executable, "-c", script, json.dumps(arguments)], capture_output=True, text=True, check=True)
    code, heavy = json.loads(done.stdout.splitlines()[-1])
    return code, heavy


@pytest.mark.parametrize("arguments", [["--help"], [], ["--version"]])
def test_overview_imports_nothing_heavy(arguments: list[str]) -> None:
    script = "import sys; from raysl.cli import main; main(sys.argv[1:]); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    assert not {*HEAVY, "pydantic", "yaml", "numpy", "pyarrow"} & set(done.stdout.splitlines()[-1].split())


def test_help_lists_every_command() -> None:
    text = raysl("--help").stdout
    for name, command in cli.COMMANDS.items():
        assert f"{name:<9} {command.help}" in text


@pytest.mark.parametrize("command", ["prepare", "run", "serve"])
def test_wrong_key_is_refused_before_anything_heavy_is_imported(smallest_yaml: Path, command: str) -> None:
    code, heavy = imported([command, str(smallest_yaml), "pretrain.optimizer.learning_rat=1e-4"])
    assert (code, heavy) == (2, [])
    assert not (smallest_yaml.parent / "run").exists()


def test_mistake_is_one_message_without_traceback(smallest_yaml: Path) -> None:
    done = raysl("pretrain", smallest_yaml, "pretrain.max_step=1")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(
        f"error: {smallest_yaml}: pretrain.max_step: unknown key. Did you mean 'max_steps'? Allowed: "
    )
    assert len(done.stderr.splitlines()) == 1


def test_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "pretrian", "x.yaml")
    assert said.startswith("error: Unknown command 'pretrian'. Did you mean 'pretrain'? Choose from prepare, ")


def test_the_demo_outside_of_the_repository_says_where_its_yaml_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "`raysl demo` reads configs/smoke/bert.yaml of the repository. Start it there" in refused(
        capsys, "demo", "seed=1"
    )


def test_a_yaml_is_needed_and_overrides_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "prepare").endswith("error: the following arguments are required: yaml\n")


@pytest.mark.parametrize("arguments", [["--help"], ["report", "smallest.yaml"]])
def test_a_reader_that_has_gone_is_no_fault(arguments: list[str], smallest_yaml: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    with os.fdopen(writing, "w") as stdout:
        done = subprocess.run(
            [sys.executable, "-m", "raysl.cli", *arguments], stdout=stdout, stderr=subprocess.PIPE, text=True,
            cwd=smallest_yaml.parent, env=environment, timeout=120,
        )  # fmt: skip
    assert done.returncode == 141
    assert [line for line in done.stderr.splitlines() if not line.startswith("log: ")] == []


def test_unknown_option_is_refused(smallest_yaml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "unrecognized arguments: --redo" in refused(capsys, "monitor", smallest_yaml, "--redo")


def test_to_go_on_into_serving_needs_its_section_before_the_first_stage(
    smallest_yaml: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "run", lambda *_, **__: pytest.fail("stages were made"))
    assert "has no section `serve:`" in refused(capsys, "run", smallest_yaml, "serve=null", "--serve")


def test_missing_section_is_refused(smallest_yaml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "release", smallest_yaml, "release=null")
    assert said.startswith("error: The config of run 'smallest' has no section `release:`")


def test_command_writes_the_resolved_config_and_names_its_log_once(smallest_yaml: Path) -> None:
    done = raysl("report", smallest_yaml, "seed=5", cwd=smallest_yaml.parent)
    assert done.returncode == 0, done.stderr
    assert "seed: 5" in (smallest_yaml.parent / "run" / "config.yaml").read_text()
    assert done.stderr.splitlines() == ["log: run/raysl.log"]
    assert done.stdout.splitlines()[:2] == ["result: run", "report: run/report.html"]
    assert (smallest_yaml.parent / "run" / "report.html").is_file()


def finished(folder: Path, name: str, config: dict[str, object]) -> Path:
    """A stage that is done, with one file."""
    stage = Stage(folder, name, config, {})
    (stage.begin() / "result").write_text("made")
    stage.finish({"documents_in": 1, "kept": 1, "dropped": {}}, {}, {"result": "0"})
    return folder / name / "result"


def test_folder_of_another_config_is_refused_and_left_alone(smallest_yaml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = smallest_yaml.parent / "run"
    result = finished(folder, "prepare", {"seed": 0})
    (folder / "config.yaml").write_text("as it was")
    said = refused(capsys, "pretrain", smallest_yaml, "seed=5")
    assert "was made with another config (seed: 0 -> 5). Name another folder with run_dir=..., or add --redo" in said
    assert result.read_text() == "made"
    assert (folder / "config.yaml").read_text() == "as it was"


def test_redo_changes_the_stage_and_later_ones_never_earlier_ones(
    smallest_yaml: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(smallest_yaml.parent / "run", "pretrain", {"seed": 0})
    assert "seed: 0 -> 5" in refused(capsys, "finetune", smallest_yaml, "seed=5", "--redo")
    assert cli._remade("pretrain") == STAGES[1:]
    assert cli._remade("run") == STAGES
    assert cli._remade("serve") == ()


def test_redo_of_a_run_leaves_what_has_not_changed(smallest_yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = run_config.load(smallest_yaml, ["prepare.source.label_column=topic"])
    for name in STAGES:
        finished(config.folder, name, {"seed": 0, **section(config, name)})
    made: dict[str, bool] = {}
    monkeypatch.setattr(run, "make", lambda name, _, redo: made.update({name: redo}))
    run.run(config.model_copy(update={"seed": 0, "finetune": FinetuneConfig(epochs=1)}), redo=True)
    assert (made["prepare"], made["finetune"], made["release"]) == (False, True, False)
    run.run(config.model_copy(update={"seed": 5}), redo=True)
    assert all(made.values())
    run.run(config, redo=False)
    assert not any(made.values())


def test_sections_that_make_nothing_may_change(smallest_yaml: Path) -> None:
    finished(smallest_yaml.parent / "run", "prepare", {"seed": 0})
    config = run_config.load(smallest_yaml, ["serve.port=9000", "monitor.min_rows=50"])
    run.claim_folder(config, remade=(), redo=False)
    assert run_config.load(config.folder / "config.yaml") == config


def test_job_needs_a_folder_that_every_node_reaches(
    smallest_yaml: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert "run_dir=/shared/runs/smallest" in refused(capsys, "prepare", smallest_yaml, "run_dir=runs/x")


def test_mistake_inside_a_worker_is_found() -> None:
    class Wrapped(Exception):
        """As Ray wraps: the cause in an attribute, or in a mapping of ranks."""

    inner, outer, group = Wrapped(), Wrapped(), Wrapped()
    inner.cause = DataError("No files in /data.")  # type: ignore[attr-defined]
    outer.__cause__ = inner
    group.worker_failures = {0: outer}  # type: ignore[attr-defined]
    assert str(cli._find_mistake(group, RayslError)) == "No files in /data."
    assert cli._find_mistake(ValueError("ours"), RayslError) is None


def test_a_run_folder_that_cannot_be_written_is_named(smallest_yaml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = smallest_yaml.parent / "taken"
    taken.touch()
    for folder in (taken, taken / "run"):
        said = refused(capsys, "prepare", smallest_yaml, f"run_dir={folder}")
        assert said.startswith(f"error: run_dir={folder} cannot be written")
        assert said.count("\n") == 1


def test_two_commands_do_not_make_stages_in_one_run_folder(smallest_yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = run_config.load(smallest_yaml)
    monkeypatch.setattr(run, "load_function", lambda _: lambda *_: pytest.fail("the stage was made beside another command"))
    with alone(config.folder), pytest.raises(StageError, match=r"Another command is at work in .*run\. Wait for its end"):
        run.make("prepare", config)


PLUGIN = """
from raysl.config import PluginConfig
from raysl.data.sources import Source

class Broken(Source):
    class Config(PluginConfig):
        wait: bool = False

    def partitions(self, partition_mb):
        return self._fail()

    def fingerprint(self):
        return self._fail()

    def _fail(self):
        import time
        print("this is chatter of a library", file=__import__("sys").stderr)
        while self.config.wait:
            time.sleep(0.05)
        raise RuntimeError("the plug-in is broken")
"""


def broken(smallest_yaml: Path) -> list[str]:
    (smallest_yaml.parent / "broken.py").write_text(PLUGIN)
    return ["prepare", str(smallest_yaml), "prepare.source={type: 'broken:Broken'}"]


def test_fault_leaves_its_traceback_in_the_log(smallest_yaml: Path) -> None:
    done = raysl(*broken(smallest_yaml), cwd=smallest_yaml.parent)
    assert done.returncode == 1
    assert "fault: RuntimeError: the plug-in is broken" in done.stderr
    assert "run/raysl.log" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert "chatter" not in done.stderr
    log = (smallest_yaml.parent / "run" / "raysl.log").read_text()
    assert "Traceback" in log
    assert "chatter" in log


def test_fault_whose_log_cannot_be_written_is_told_whole(
    smallest_yaml: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fault(*_: object) -> None:
        log = smallest_yaml.parent / "run" / "raysl.log"
        log.unlink()
        log.mkdir()  # as a full disk: not even root can append to it
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cli, "_function", lambda _: fault)
    assert cli.main(["report", str(smallest_yaml)]) == 1
    said = capsys.readouterr().err
    assert "fault: OSError: [Errno 28] No space left on device\n" in said
    assert "raysl.log cannot be written" in said
    assert "Traceback" in said


def test_a_run_that_will_need_labels_is_refused_without_them(
    smallest_yaml: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "make", lambda name, *_: pytest.fail(f"{name} was made"))
    assert cli.main(["run", str(smallest_yaml)]) == 2
    said = capsys.readouterr().err
    assert "`finetune` needs labels, and source 'files' yields none. Set prepare.source.label_column; without" in said
    made: list[str] = []
    monkeypatch.setattr(run, "make", lambda name, *_: made.append(name))
    run.run(run_config.load(smallest_yaml, ["finetune=null", "evaluate=null", "serve.tasks=[embed]"]))
    run.run(run_config.load(smallest_yaml, ["prepare.source=python_docs"]))
    assert made == ["prepare", "pretrain", "release", *STAGES]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["prepare.source=python_docs", "prepare.split.test=0"], r"split\.test is 0\. .*evaluate\.split=validation"),
        (
            ["prepare.source={type: images, path: x, folder_labels: false}", "pretrain={objective: simclr, model: resnet}"],
            r"'images' yields none\. Set prepare\.source\.label_column or folder_labels=true",
        ),
    ],
    ids=["no test rows", "pictures without labels"],
)  # fmt: skip
def test_what_a_later_stage_would_lack_is_told_before_the_training(
    smallest_yaml: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], said: str
) -> None:
    made: list[str] = []
    monkeypatch.setattr(run, "make", lambda name, *_: made.append(name))
    with pytest.raises(ConfigError, match=said):
        run.run(run_config.load(smallest_yaml, overrides))
    assert made == []


@pytest.mark.parametrize(("given", "said"), [
    (["serve.tasks=[classify, embed]", "finetune=null"], "'classify' needs a section `finetune:`. Give that, or leave the "
     "task out: serve.tasks=[embed]."),
    (["serve.tasks=[search]", "release.search_documents=0"], "'search' needs release.search_documents above 0. Give that, "
     "or leave the task out: serve=null."),
    (["serve.tasks=[embed, {type: generate}]"], "'generate' needs pretrain.model 'gpt'. Give that, or"),
    (["serve.tasks=[embed, generate]", "prepare.source=digits", "pretrain={objective: simclr, model: resnet}"],
     "'generate' needs pretrain.model 'gpt'. Give that, or leave the task out: serve.tasks=[embed]."),
])  # fmt: skip
def test_a_run_that_could_not_be_served_is_refused(
    given: list[str], said: str, smallest_yaml: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "make", lambda name, *_: pytest.fail(f"{name} was made"))
    assert f"serve.tasks: {said}" in refused(capsys, "run", smallest_yaml, "evaluate=null",
                                             "prepare.source.label_column=topic", *given)  # fmt: skip


@pytest.mark.parametrize("given", [
    ["release=null", "finetune=null", "evaluate=null"],  # a version that is there
    ["serve.tasks=[generate]", "pretrain.model=gpt", "pretrain.objective=gpt"],
])  # fmt: skip
def test_a_run_that_can_be_served_is_made(given: list[str], smallest_yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(run, "make", lambda name, *_: made.append(name))
    run.run(run_config.load(smallest_yaml, ["prepare.source.label_column=topic", *given]))
    assert made


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_its_function(stage: str) -> None:
    assert run.FUNCTIONS[stage].endswith(f":{stage}")
    assert stage in cli.COMMANDS


def test_ending_names_the_next_command(smallest_yaml: Path) -> None:
    config = run_config.load(smallest_yaml)
    parsed = cli._parser("pretrain").parse_intermixed_args(["x.yaml", "seed=1", "--redo"])
    assert cli._ending("pretrain", parsed, config, None)[-1] == "next:   raysl finetune x.yaml seed=1"
    assert cli._ending("release", parsed, config, None)[-1] == "next:   raysl serve x.yaml seed=1"
    assert cli._ending("run", parsed, config, None)[-1] == "next:   raysl serve x.yaml seed=1"
    assert [line.split(":")[0] for line in cli._ending("report", parsed, config, None)] == ["result", "report"]


def test_next_command_can_be_pasted_into_a_shell(smallest_yaml: Path) -> None:
    given = ["my notes/x.yaml", "prepare.source={type: files, path: notes/*.jsonl.gz}"]
    parsed = cli._parser("prepare").parse_intermixed_args(given)
    line = cli._ending("prepare", parsed, run_config.load(smallest_yaml), None)[-1]
    assert shlex.split(line) == ["next:", "raysl", "pretrain", *given]
