"""Ten mistakes of self-supervised training, put in one after the other: the tests that hold each have to fail.

The table is benchmarks/_mistakes.py. All of it happens in a copy of raysl/ and tests/. A mistake counts as caught when a
named test fails by an assertion; a test that breaks off with another error has shown nothing. The tests with two gloo
processes take most of the time.
"""

import importlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import Figure
from benchmarks._mistakes import MISTAKES, Mistake

ROOT = Path(__file__).parents[1]
COPIED = ("raysl", "tests", "pyproject.toml")
CHECKS = os.environ.get("RAYSL_CHECKS")
CHOSEN = [mistake for mistake in MISTAKES if CHECKS is None or str(mistake.number) in CHECKS.split(",")]
"""All mistakes, or those of the checks that are named, as in RAYSL_CHECKS=6,10."""
WARM = ("torch._dynamo", "torch.multiprocessing", "pyarrow", "pydantic", "pytest", "sklearn.linear_model", "tokenizers")
"""Imported once: each run of tests is a fork of this process, which saves it the seconds that these take."""
OPTIONS = ("-x", "-q", "-p", "no:cacheprovider", "--tb=short", "--durations=0", "--timeout=300")
CAUGHT = re.compile(r"^E +(AssertionError|assert |Failed: DID NOT RAISE)", re.MULTILINE)


def run() -> Iterator[Figure]:
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in WARM:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as folder:
        copy = copied(Path(folder))
        for mistake in MISTAKES:
            with made(copy, mistake):
                pass
        check_right(copy)
        for mistake in CHOSEN:
            with made(copy, mistake):
                outcome = tested(copy, mistake.tests)
            if not outcome.caught:
                print(f"{mistake.number} {mistake.what}: not caught\n{outcome.said[-2000:]}", file=sys.stderr)
            yield Figure(f"{mistake.number} {mistake.what}: caught", float(outcome.caught), at_least=1)


@dataclass(frozen=True)
class Outcome:
    """How a run of tests ended."""

    code: int
    said: str

    @property
    def caught(self) -> bool:
        """A test has failed, and by what it asserts."""
        return self.code == 1 and CAUGHT.search(self.said) is not None


def copied(folder: Path) -> Path:
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    return folder


def check_right(copy: Path) -> None:
    """RuntimeError unless all named tests pass as things are."""
    tests = sorted({test for mistake in MISTAKES for test in mistake.tests})
    outcome = tested(copy, tests)
    if outcome.code:
        raise RuntimeError(f"Tests fail without a mistake:\n{outcome.said[-4000:]}")


@contextmanager
def made(copy: Path, mistake: Mistake) -> Iterator[None]:
    """Puts the mistake in, and the file back."""
    path = copy / "raysl" / mistake.file
    text = path.read_text(encoding="utf-8")
    if text.count(mistake.old) != 1:
        found = text.count(mistake.old)
        raise RuntimeError(
            f"Mistake '{mistake.what}': the text to replace occurs {found} times in raysl/{mistake.file}, it has to once. "
            f"Bring benchmarks/_mistakes.py up to date:\n{mistake.old}"
        )
    path.write_text(text.replace(mistake.old, mistake.new), encoding="utf-8")
    try:
        yield
    finally:
        path.write_text(text, encoding="utf-8")


def tested(copy: Path, tests: Sequence[str]) -> Outcome:
    """What pytest says of the named tests, in a process of its own that imports raysl from `copy`."""
    output = copy / "output.txt"
    process = os.fork()
    if process == 0:
        _child(copy, tests, output)
    _, status = os.waitpid(process, 0)
    return Outcome(os.waitstatus_to_exitcode(status), output.read_text(encoding="utf-8", errors="replace"))


def _child(copy: Path, tests: Sequence[str], output: Path) -> None:
    """Never returns. Byte code is neither read nor written: two edits within one second would look the same to it."""
    code = 3
    try:
        with open(output, "wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        for name in [name for name in sys.modules if name.split(".")[0] in ("raysl", "tests")]:
            del sys.modules[name]
        os.chdir(copy)
        sys.path.insert(0, str(copy))
        sys.dont_write_bytecode = True
        os.environ.update(PYTHONDONTWRITEBYTECODE="1", PYTHONPATH=str(copy))
        code = int(importlib.import_module("pytest").main([*OPTIONS, *(f"tests/{test}" for test in tests)]))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
