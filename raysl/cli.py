"""raysl <command> <yaml> key=value ...: checks the whole YAML first, imports what the command needs after that.

Exit codes: 0 done, 1 a fault of raysl (traceback in the log), 2 a mistake of the user (one message), 130 stopped by hand,
141 nobody reads the output any more (`raysl ... | head`), 143 ended by SIGTERM, as job systems send it.
"""

import argparse
import difflib
import os
import shlex
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raysl.run_config import RunConfig


@dataclass(frozen=True)
class Command:
    """One command: what it does, the section of the YAML it needs, and the flags it knows."""

    help: str
    section: str | None = None
    flags: tuple[str, ...] = ()
    target: str = ""


DEMO = "configs/smoke/bert.yaml"
COMMANDS = {
    "prepare": Command("Clean and de-duplicate a source; write token or pixel shards.", "prepare", ("redo",)),
    "pretrain": Command("Train the network without labels.", "pretrain", ("redo",)),
    "tune": Command("Search better keys of pretrain with many short runs.", "tune", (), "raysl.train.tune:tune"),
    "finetune": Command("Train a classifier on the pretrained network with few labels.", "finetune", ("redo",)),
    "evaluate": Command("Measure it on the test split, baselines beside it.", "evaluate", ("redo",)),
    "release": Command("Export to ONNX, prove equality, register the version.", "release", ("redo",)),
    "run": Command("Do all of the above that the YAML has; skip what is unchanged.", None, ("redo", "serve")),
    "serve": Command("Answer HTTP queries with the production version.", "serve", (), "raysl.serve.app:serve"),
    "monitor": Command("Compare recorded traffic with what was kept at release.", None, (), "raysl.monitor.checks:monitor"),
    "update": Command("Make the next version from new rows; release it if it is better.", None, (), "raysl.update:update"),
    "demo": Command("Run all stages, serve, ask and watch; ends in one table.", None, ("redo",), "raysl.demo:demo"),
    "report": Command("Write report.html of a run folder again.", None, (), "raysl.report:build"),
}
STOPPED = "stopped; the same command goes on from here"
FLAGS = {
    "redo": "make the stage again where another config made it",
    "serve": "go on into serving after the last stage",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    try:
        code = _run(argv)
        print(end="", flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what Python has left to write at its end
        return 141
    return code


def _run(argv: Sequence[str] | None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    sys.path.append(os.getcwd())  # `type: module:Class` of the current folder, also from the installed command
    if not arguments or arguments[0].startswith("-"):
        return _overview(arguments)
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        return _mistake(f"Unknown command '{name}'.{hint} Choose from {', '.join(COMMANDS)}.")
    if name == "demo" and not {"-h", "--help"} & {*rest} and not [given for given in rest if _is_yaml(given)]:
        if not Path(DEMO).is_file():
            return _mistake(f"`raysl demo` reads {DEMO} of the repository. Start it there, or give the path of a YAML.")
        rest = [DEMO, *rest]
    return _guarded(name, _parser(name).parse_intermixed_args(rest))


def _is_yaml(given: str) -> bool:
    return not given.startswith("-") and "=" not in given


def _overview(arguments: list[str]) -> int:
    import raysl

    if arguments[:1] == ["--version"]:
        print(f"raysl {raysl.__version__}")
        return 0
    lines = "\n".join(f"  {name:<9} {command.help}" for name, command in COMMANDS.items())
    print(
        f"usage: raysl <command> <yaml> [key=value ...]\n\n{lines}\n\n"
        f"example: raysl run configs/smoke/bert.yaml\n"
        f"         raysl pretrain configs/smoke/bert.yaml pretrain.max_steps=100\n"
        f"`raysl <command> --help` lists a command's options, docs/config.md every key of the YAML."
    )
    return 0 if arguments[:1] in ([], ["--help"], ["-h"]) else _mistake(f"Unknown option {arguments[0]}.")


def _parser(name: str) -> argparse.ArgumentParser:
    command = COMMANDS[name]
    parser = argparse.ArgumentParser(prog=f"raysl {name}", description=command.help)
    default = f"; without one {DEMO}" if name == "demo" else ""
    parser.add_argument("yaml", help=f"the run's YAML, or config.yaml of a run folder{default}")
    parser.add_argument("overrides", nargs="*", default=[], metavar="key=value", help="a key of the YAML with its full path")
    for flag in command.flags:
        parser.add_argument(f"--{flag}", action="store_true", help=FLAGS[flag])
    return parser


def _guarded(name: str, arguments: argparse.Namespace) -> int:
    from raysl.errors import RayslError

    config: RunConfig | None = None
    with _ended_as_by_hand() as ended:
        try:
            config = _checked(name, arguments)
            lines = _execute(name, arguments, config)
        except (KeyboardInterrupt, SystemExit):  # Ray Train on a joined cluster makes the second one of Ctrl-C
            if config is None:
                print(STOPPED, file=sys.stderr)
            return 143 if ended else 130
        except Exception as error:
            mistake = _find_mistake(error, RayslError)
            if mistake is not None:
                return _mistake(str(mistake))
            return _fault(error, config)
    for line in lines:
        print(line)
    return 0


@contextmanager
def _ended_as_by_hand() -> Iterator[list[int]]:
    """SIGTERM does what Ctrl-C would at that moment, whoever listens to it; the list then holds its number."""
    ended: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        ended.append(number)
        heard = signal.getsignal(signal.SIGINT)
        if not callable(heard):  # a shell's background jobs start deaf to Ctrl-C
            raise KeyboardInterrupt
        heard(signal.SIGINT, frame)

    hears = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, end) if hears else None
    try:
        yield ended
    finally:
        if hears:
            signal.signal(signal.SIGTERM, before)


def _checked(name: str, arguments: argparse.Namespace) -> "RunConfig":
    """The validated config, and the run folder claimed for it: nothing heavy is imported before this."""
    from raysl import run_config
    from raysl.cluster import in_job
    from raysl.errors import ConfigError
    from raysl.run import claim_folder

    config = run_config.load(arguments.yaml, arguments.overrides)
    if COMMANDS[name].section:
        run_config.needed(config, str(COMMANDS[name].section))
    if getattr(arguments, "serve", False):
        run_config.needed(config, "serve")
    if in_job() and not Path(config.run_dir).is_absolute():
        raise ConfigError(
            f"run_dir is {config.run_dir!r}, but the current folder of a submitted job is a copy that goes with it. "
            f"Give the absolute path of a folder that every node reaches: run_dir=/shared/runs/{config.name}."
        )
    claim_folder(config, _remade(name), getattr(arguments, "redo", False))
    return config


def _remade(name: str) -> tuple[str, ...]:
    from raysl.run_config import STAGES

    if name in ("run", "demo"):
        return STAGES
    return STAGES[STAGES.index(name) :] if name in STAGES else ()


def _execute(name: str, arguments: argparse.Namespace, config: "RunConfig") -> list[str]:
    """Does the work and returns the last lines."""
    from raysl import cluster
    from raysl.progress import say

    log = config.folder / "raysl.log"
    cluster.prepare_environment()
    with cluster.quiet(log):
        say(f"log: {_short(log)}")
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  raysl {name} {arguments.yaml}", *arguments.overrides, file=sys.stderr)
        try:
            result = _function(name)(config, **_options(name, arguments))
            if getattr(arguments, "serve", False):
                _function("serve")(config)
        except (KeyboardInterrupt, SystemExit):
            say(STOPPED)  # at once: who sent SIGTERM may not wait until the cluster is left
            raise
        finally:
            _disconnect()
    return _ending(name, arguments, config, result)


def _function(name: str) -> Callable[..., Any]:
    from functools import partial

    from raysl import run

    if name == "run":
        return run.run
    return partial(run.make, name) if name in run.FUNCTIONS else run.load_function(COMMANDS[name].target)


def _options(name: str, arguments: argparse.Namespace) -> dict[str, bool]:
    return {"redo": arguments.redo} if "redo" in COMMANDS[name].flags else {}


def _disconnect() -> None:
    if "ray" in sys.modules:
        from raysl import cluster

        cluster.disconnect()


def _ending(name: str, arguments: argparse.Namespace, config: "RunConfig", result: Any) -> list[str]:
    """Where the result is and what to type next."""
    from raysl.cluster import in_job
    from raysl.run import stages

    made = stages(config)
    if name not in (*made, "run", "report"):
        return []
    last = made[-1] if name in ("run", "report") else name
    folder = config.folder / last if name in made else config.folder
    lines = [f"result: {_short(folder)}", f"report: {_short(config.folder / 'report.html')}"]
    after = made[made.index(last) + 1 :][:1]
    served = config.serve and last == "release" and name != "report"  # of which nobody knows whether it is there
    following = after[0] if after and name in made else ("serve" if served else "")
    if following:
        start = f"ray job submit --working-dir . -- python jobs/{following}.py" if in_job() else f"raysl {following}"
        lines.append(f"next:   {start} {shlex.join([arguments.yaml, *arguments.overrides])}")
    return lines


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _find_mistake(error: BaseException, kind: type[Exception]) -> Exception | None:
    """The user's mistake inside what Ray wraps around an error of a worker."""
    waiting: list[Any] = [error]
    for _ in range(50):
        if not waiting:
            return None
        found = waiting.pop(0)
        inner = getattr(found, "cause", None)
        if isinstance(found, kind) and not isinstance(inner, BaseException):
            return found
        failures = getattr(found, "worker_failures", None)
        waiting += [e for e in (inner, found.__cause__, *(failures or {}).values()) if isinstance(e, BaseException)]
    return None


def _mistake(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


def _fault(error: Exception, config: "RunConfig | None") -> int:
    from raysl.cluster import ESCAPED

    lines = "".join(traceback.format_exception(error))
    if config is None:
        print(lines, file=sys.stderr)
        return 1
    log = config.folder / "raysl.log"
    message = str(error).strip().splitlines() or [""]
    where = f"the traceback is in {_short(log)}"
    try:
        with open(log, "a", encoding="utf-8", errors=ESCAPED) as file:
            file.write(lines)
    except OSError as full:
        where = f"{_short(log)} cannot be written ({full}); the traceback:\n{lines}"
    print(f"fault: {type(error).__name__}: {message[-1]}\n  {where}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
