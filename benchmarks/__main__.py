"""Lists the benchmarks, or runs the one that is named."""

import importlib
import pkgutil
import platform
import sys
import time

import benchmarks
import raysl


def names() -> list[str]:
    return sorted(found.name for found in pkgutil.iter_modules(benchmarks.__path__) if not found.name.startswith("_"))


def summary(name: str) -> str:
    return (importlib.import_module(f"benchmarks.{name}").__doc__ or "").strip().splitlines()[0]


def main(arguments: list[str]) -> int:
    if not arguments:
        for name in names():
            print(f"make bench-{name:<14} {summary(name)}")
        return 0
    if arguments[0] not in names():
        print(f"error: Unknown benchmark '{arguments[0]}'. Choose from {', '.join(names())}.", file=sys.stderr)
        return 2
    return measure(arguments[0])


def measure(name: str) -> int:
    """Runs one benchmark; 1 when a figure falls short."""
    print(f"{name}: raysl {raysl.__version__}, Python {platform.python_version()}, {platform.platform()}")
    print(f"{time.strftime('%Y-%m-%d')}  make bench-{name}")
    figures = list(importlib.import_module(f"benchmarks.{name}").run())
    for figure in figures:
        print(figure)
    return 0 if all(figure.holds for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
