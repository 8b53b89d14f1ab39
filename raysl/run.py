"""All stages of a YAML in the order in which the data travels; what is unchanged is skipped."""

import importlib
from collections.abc import Callable
from typing import Any

from raysl import config as base
from raysl import storage
from raysl.errors import ConfigError
from raysl.models.config import BertConfig
from raysl.progress import say
from raysl.run_config import STAGES, RunConfig
from raysl.stage import Manifest, Stage, alone, check_same_config, read_manifest, section, usual_limits

FUNCTIONS = {
    "prepare": "raysl.data.pipeline:prepare",
    "pretrain": "raysl.train.pretrain:pretrain",
    "finetune": "raysl.train.finetune:finetune",
    "evaluate": "raysl.evaluation.suite:evaluate",
    "release": "raysl.release.release:release",
}
"""Stage -> the function that makes its folder."""


def load_function(path: str) -> Callable[..., Any]:
    """Imports `module:function`; only the command that runs pays for its imports."""
    module, _, name = path.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def stages(config: RunConfig) -> list[str]:
    """The stages whose sections the YAML has."""
    return [name for name in STAGES if getattr(config, name) is not None]


def claim_folder(config: RunConfig, remade: tuple[str, ...], redo: bool) -> None:
    """Writes config.yaml into the run folder; ConfigError where a stage was made, or trained to a checkpoint, with another.

    `remade` are the stages that the command makes or that follow it: `redo` may change those, never the ones before.
    """
    for name in STAGES:
        left_out = getattr(config, name) is None and name != "pretrain"  # then no command reads it
        if not left_out:
            check_same_config(_as_now(config, name), redo and name in remade)
    try:
        storage.write_text(config.folder / "config.yaml", base.dump(config))
    except OSError as error:
        raise ConfigError(
            f"run_dir={config.run_dir} cannot be written ({error}). Name a folder that you may write."
        ) from error


def _as_now(config: RunConfig, name: str) -> Stage:
    """The stage with what the config says now of all that its work was begun with."""
    begun = Stage(config.folder, name, {}, {}).begun_with() or {}
    return Stage(config.folder, name, {**begun, **section(config, *begun)}, {}, usual_limits(config, *begun))


def make(name: str, config: RunConfig, redo: bool = False) -> Manifest:
    """Makes one stage, or finds it made, and brings report.html up to date. StageError where another command is at it."""
    with alone(config.folder):
        before = read_manifest(config.folder, name)
        manifest: Manifest = load_function(FUNCTIONS[name])(config, redo)
        if manifest != before:
            say(f"{name}: made in {manifest.seconds:,.1f} s")
        if manifest != before or not (config.folder / "report.html").is_file():
            from raysl.report import build

            build(config)
        return manifest


def run(config: RunConfig, redo: bool = False) -> list[Manifest]:
    """Makes every stage the YAML has. A run that was killed goes on where it stopped.

    `redo` makes those again that another config made, and no others: days of `prepare` are not repeated for a later stage.
    """
    _check_labels(config)
    _check_test_rows(config)
    _check_tasks(config)
    kept = ("prepare", "release")  # whose functions make them again in any case
    return [
        make(name, config, redo and (name not in kept or _as_now(config, name).begun_otherwise())) for name in stages(config)
    ]


def _check_labels(config: RunConfig) -> None:
    """ConfigError where stages after a long training would find no label."""
    source = config.prepare.source
    labelled = [name for name in ("finetune", "evaluate") if name in stages(config)]
    of_folders = getattr(source, "folder_labels", False)
    if labelled and not of_folders and getattr(source, "label_column", "") is None:
        way_out = "prepare.source.label_column" + (" or folder_labels=true" if source.modality == "images" else "")
        raise ConfigError(
            f"`{labelled[0]}` needs labels, and source '{source.type}' yields none. Set {way_out}; "
            f"without labels leave out {' and '.join(labelled)} ({' '.join(f'{name}=null' for name in labelled)}), and "
            f"classify in serve.tasks."
        )


def _check_test_rows(config: RunConfig) -> None:
    """ConfigError where `evaluate` would find no row after a long training."""
    split = "" if config.evaluate is None else config.evaluate.split
    if split and not getattr(config.prepare.split, split):
        other = "validation" if split == "test" else "test"
        raise ConfigError(
            f"`evaluate` scores rows of the {split} split, and prepare.split.{split} is 0. Give it a share, or set "
            f"evaluate.split={other}."
        )


def _check_tasks(config: RunConfig) -> None:
    """ConfigError where the version that the stages end with would lack what a task of the service answers with."""
    if config.release is None or config.serve is None:
        return
    asked = {
        "classify": ("a section `finetune:`", config.finetune is None),
        "search": ("release.search_documents above 0", not config.release.search_documents),
        "generate": ("pretrain.model 'gpt'", not _may_generate(config)),
    }  # fmt: skip
    for task in config.serve.tasks:
        needed, lacks = asked.get(task.type, ("", False))
        if lacks:
            left = ", ".join(other.type for other in config.serve.tasks if other is not task)
            fix = f"serve.tasks=[{left}]" if left else "serve=null"
            raise ConfigError(f"serve.tasks: '{task.type}' needs {needed}. Give that, or leave the task out: {fix}.")


def _may_generate(config: RunConfig) -> bool:
    """What a model from outside the catalog can do, `release` sees."""
    if config.prepare.source.modality == "images":
        return False
    return config.pretrain is None or not isinstance(config.pretrain.model, BertConfig)
