"""Imports point down only, Ray stands in few files, and what serves or reads data needs no torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOUNDATION = {"errors", "catalog", "config", "schema", "storage", "stage", "cluster", "own_data", "progress", "kernels"}
SETTINGS = {"objectives.image_config", "models.vision_config"} | {
    f"{part}.config" for part in ("data", "models", "objectives", "train", "evaluation", "release", "serve", "monitor")
}
# Layer -> what it may import besides itself, its settings and the foundation; the order is that of DESIGN's picture.
LAYERS = {
    "metrics": set(),
    "models": set(),
    "data": {"run_config"},
    "objectives": {"models", "data"},
    "train": {"objectives", "models", "data", "metrics", "checkpoint", "run_config"},
    "evaluation": {
        "train.classify", "train.inputs", "train.world",
        "objectives", "models", "data", "metrics", "checkpoint", "run_config",
    },
    "release": {"objectives", "models", "data", "metrics", "checkpoint", "run_config"},
    "serve": {"release", "data", "metrics", "monitor.recorder", "run_config"},
    "monitor": {"release", "data", "metrics", "run_config"},
    "report": {"run_config"},
    "run": {"report", "run_config"},
    "run_config": SETTINGS,
    "checkpoint": set(),
    "update": {"data", "train", "evaluation", "release", "serve", "monitor", "metrics", "report", "run", "run_config"},
    "demo": {"data", "evaluation", "release", "serve", "monitor", "update", "report", "run", "run_config"},
    "cli": {"run", "run_config"},
}  # fmt: skip
RAY = {
    "cluster", "own_data", "data.steps", "data.distributed", "data.decode_tasks", "train.run", "train.own_cluster",
    "train.preemption", "train.tune", "serve.app", "serve.deployment",
}  # fmt: skip
NO_TORCH = {"serve", "data", "monitor", "metrics", "report"}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted((ROOT / "raysl").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT / "raysl").with_suffix("").parts).removesuffix("__init__").rstrip(".")
        yield name, ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.Module) -> Iterator[str]:
    """Every module that is imported anywhere in a file, functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the layer"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, allowed: set[str]) -> bool:
    return any(name == unit or name.startswith(f"{unit}.") for unit in allowed)


def test_imports_point_down_only() -> None:
    wrong = []
    for name, tree in modules():
        layer = name.split(".")[0]
        for imported in (i.removeprefix("raysl.") for i in imports(tree) if i.startswith("raysl.")):
            own = {layer} if layer in LAYERS and name not in SETTINGS else set()
            below = LAYERS.get(layer, set())
            allowed = FOUNDATION | SETTINGS | own | below
            if name in FOUNDATION | SETTINGS:  # settings may hold those of their layer and of the layers below
                allowed = FOUNDATION | {one for one in SETTINGS if one.split(".")[0] in below | {layer} and name in SETTINGS}
            if name and imported != "__version__" and not within(imported, allowed):
                wrong.append(f"raysl.{name} imports raysl.{imported}")
    assert wrong == []


def test_ray_stands_only_in_the_files_that_connect_to_it() -> None:
    users = {name for name, tree in modules() if any(within(imported, {"ray"}) for imported in imports(tree))}
    assert users - RAY == set()


def test_layers_without_torch_need_none_even_through_others() -> None:
    found = [f"raysl.{name}" for name, _ in modules() if within(name, NO_TORCH)]
    script = (
        "import importlib, sys\n"
        f"for name in {found!r}:\n"
        "    importlib.import_module(name)\n"
        "    if 'torch' in sys.modules: sys.exit(f'{name} imports torch')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_importing_a_config_is_light() -> None:
    script = (
        "import sys, raysl.run_config, raysl.run; print([m for m in ('ray', 'torch', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_job_files_only_call_the_command() -> None:
    for path in (ROOT / "jobs").glob("*.py"):
        assert set(imports(ast.parse(path.read_text()))) == {"sys", "raysl.cli.main"}, path.name


def test_serving_keeps_its_annotations_readable() -> None:
    """Ray Serve reads them to validate arguments; strings make it pass raw dicts on without a word."""
    for name, tree in modules():
        assert not within(name, {"serve"}) or "__future__.annotations" not in set(imports(tree)), name
