"""What the report says, read from the files of a run folder."""

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from raysl import storage
from raysl.stage import whole_lines

CLASSES_SHOWN = 50
"""Classes of the confusion matrix."""
PACKAGES = ("raysl", "ray", "torch", "pyarrow", "tokenizers", "onnxruntime", "numpy", "scikit-learn")


@dataclass(frozen=True)
class FewLabel:
    """One method at one label budget, over its draws."""

    method: str
    labels_per_class: int
    macro_f1: float
    macro_f1_spread: float
    accuracy: float
    num_draws: int


def timings(folder: Path) -> list[tuple[str, float]]:
    """Stage and seconds, in the order in which they were finished."""
    path = folder / "manifest.json"
    stages = storage.read_json(path)["stages"] if path.is_file() else {}
    return [(name, float(stage["seconds"])) for name, stage in stages.items()]


def loss_curves(folder: Path) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Stage -> name of a loss -> (step, value); of steps that ran again, after a restart, the last counts."""
    return _curves(folder, lambda key: key.endswith("loss"))


def probe_curves(folder: Path) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Stage -> accuracy of the kNN probe and what naming the largest class gets -> (step, value)."""
    return _curves(folder, lambda key: key in ("knn_accuracy", "knn_largest_class"))


def _curves(folder: Path, wanted: Callable[[str], bool]) -> dict[str, dict[str, list[tuple[int, float]]]]:
    stages: dict[str, dict[str, list[tuple[int, float]]]] = {}
    path = folder / "metrics.jsonl"
    lines = whole_lines(path.read_bytes()) if path.is_file() else []
    for line in (line for line in lines if "step" in line):
        for key in (key for key, value in line.items() if wanted(key) and isinstance(value, int | float)):
            points = stages.setdefault(line["stage"], {}).setdefault(key, [])
            while points and points[-1][0] >= line["step"]:
                points.pop()
            points.append((int(line["step"]), float(line[key])))
    return stages


def evaluation(folder: Path) -> tuple[list[FewLabel], dict[str, Any] | None, str]:
    """Few-label results, best method first at the smallest budget, the confusion matrix, and the split both are of."""
    path = folder / "evaluate" / "report.json"
    if not path.is_file():
        return [], None, ""
    data = storage.read_json(path)
    rows = [_few_label(row) for row in data.get("few_label", [])]
    rows.sort(key=lambda row: (row.labels_per_class, -row.macro_f1))
    return rows, data.get("confusion"), data.get("split", "test")


def largest_classes(confusion: Mapping[str, Any]) -> dict[str, Any]:
    """Confusion among the CLASSES_SHOWN classes with most rows, in their order: of 300 a figure takes minutes and 36 MB."""
    matrix = confusion["matrix"]
    order = sorted(range(len(matrix)), key=lambda place: -sum(matrix[place]))
    places = sorted(order[:CLASSES_SHOWN])
    return {"classes": [confusion["classes"][p] for p in places], "matrix": [[matrix[p][q] for q in places] for p in places]}


def _few_label(row: Mapping[str, Any]) -> FewLabel:
    draws = [float(value) for value in row["macro_f1"]]
    return FewLabel(
        method=row["method"],
        labels_per_class=int(row["labels_per_class"]),
        macro_f1=fmean(draws),
        macro_f1_spread=stdev(draws) if len(draws) > 1 else 0.0,
        accuracy=fmean(float(value) for value in row["accuracy"]),
        num_draws=len(draws),
    )


@dataclass(frozen=True)
class Release:
    """What the released bundle says of itself."""

    parity: Sequence[tuple[str, float, str]]
    """Network, largest difference from PyTorch, longest input compared, with its unit."""
    numbers: Sequence[tuple[str, str]]
    """Metrics and latency."""


def release(folder: Path) -> Release | None:
    path = folder / "release" / "bundle" / "bundle.json"
    if not path.is_file():
        return None
    data = storage.read_json(path)
    unit = "pixels" if "decoding" in data else "tokens"
    parity = [(name, float(one["max_difference"]), f"{one['longest']} {unit}") for name, one in data["parity"].items()]
    numbers = [*_numbers(data["metrics"]), *_numbers({f"latency {name}": v for name, v in data.get("latency", {}).items()})]
    return Release(parity, numbers)


def _numbers(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    shown = {name: value for name, value in values.items() if isinstance(value, int | float)}
    return [(name.replace("_ms", ", ms").replace("_", " "), f"{value:.4g}") for name, value in shown.items()]


def versions() -> list[tuple[str, str]]:
    installed = [(name, _version(name)) for name in PACKAGES]
    return [("python", platform.python_version()), ("platform", platform.platform()), *installed]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def yaml_text(folder: Path) -> str:
    path = folder / "config.yaml"
    return path.read_text(encoding="utf-8") if path.is_file() else ""
