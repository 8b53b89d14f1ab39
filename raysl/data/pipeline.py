"""`prepare`: raw rows -> clean, de-duplicated shards of fixed width, on Ray Data.

Work is cut into units that depend on the source alone. Each is a plain function of its inputs that leaves files behind
whole or not at all, and whose files are not made again; so the same bytes come out whatever the number of workers, and
a run killed at any moment continues where it was.
"""

import importlib
from pathlib import Path

from raysl import storage
from raysl.catalog import FILTERS, SOURCES
from raysl.data import prepare_report
from raysl.data.config import PrepareConfig
from raysl.data.given_tokenizer import read_given_tokenizer
from raysl.data.publish import publish
from raysl.data.sources import Source
from raysl.data.steps import WORK, Recipe
from raysl.progress import say
from raysl.run_config import RunConfig
from raysl.stage import Manifest, Stage, check_same_config, section, usual_limits

RECIPES = {
    "text": "raysl.data.text_recipe:TextRecipe",
    "images": "raysl.data.image_recipe:ImageRecipe",
    "interactions": "raysl.data.behaviour_recipe:BehaviourRecipe",
}
"""Modality of the source -> how it is prepared."""


def stage_of(config: RunConfig, source: Source) -> Stage:
    """The bookkeeping of <run>/prepare."""
    settings, limits = section(config, "prepare", "seed"), usual_limits(config, "prepare")
    return Stage(config.folder, "prepare", settings, inputs_of(config.prepare, source), limits)


def prepare(config: RunConfig, redo: bool = False) -> Manifest:
    """Makes <run>/prepare, or returns its manifest at once where nothing has changed.

    Raises DataError for a source that is missing, empty or mostly broken, and where the filters leave nothing.
    """
    source = SOURCES.load(config.prepare.source.type)(config.prepare.source)
    stage = stage_of(config, source)
    manifest = stage.done()
    recipe_class = load_recipe(config.prepare.source.modality)
    if manifest is not None and not redo:
        storage.remove(stage.folder / WORK)  # of a run that was killed between its last two steps
        say(f"prepare: done already, {manifest.counts['kept']:,} {recipe_class.rows_name} in {stage.folder}")
        _copy(config.prepare.copy_to, stage.folder, manifest)
        return manifest
    check_same_config(stage, redo)
    for one in config.prepare.filters:
        FILTERS.load(one.type)(one)  # says what is missing before a cluster starts
    partitions = source.partitions(config.prepare.partition_mb)
    if redo and manifest is not None:
        storage.remove(stage.folder)
    folder = stage.begin(recipe_class.cut(config.prepare, partitions))
    recipe = recipe_class(folder, config.prepare, config.seed)
    storage.remove_unfinished(folder)
    counts, metrics = recipe.run(partitions)
    files = storage.hash_folder(folder, lambda path: _is_output(path.relative_to(folder)))
    manifest = stage.finish(counts, metrics, files)
    storage.remove(folder / WORK)
    say(prepare_report.table(manifest.counts, manifest.metrics, recipe.rows_name))
    say(f"prepare: {manifest.counts['kept']:,} {recipe.rows_name} in {folder}")
    _copy(config.prepare.copy_to, folder, manifest)
    return manifest


def _copy(uri: str | None, folder: Path, manifest: Manifest) -> None:
    if uri is not None:
        publish(folder, manifest, uri)


def inputs_of(config: PrepareConfig, source: Source) -> dict[str, str]:
    """Names the content of everything that is read."""
    inputs = {"source": source.fingerprint()}
    for number, one in enumerate(config.filters):
        if hasattr(one, "fingerprint"):  # a filter that reads a file
            inputs[f"filters.{number}"] = one.fingerprint()
    if config.tokenizer.path is not None:
        inputs["tokenizer"] = storage.hash_json(read_given_tokenizer(Path(config.tokenizer.path)))
    if config.decontaminate is not None:
        evaluation = config.decontaminate.source
        inputs["decontaminate"] = SOURCES.load(evaluation.type)(evaluation).fingerprint()
    return inputs


def load_recipe(modality: str) -> type[Recipe]:
    module, _, name = RECIPES[modality].partition(":")
    recipe: type[Recipe] = getattr(importlib.import_module(module), name)
    return recipe


def _is_output(path: Path) -> bool:
    """Timings differ from run to run, so the report is no output that a hash could name."""
    return path.parts[0] != WORK and path.name not in (prepare_report.REPORT, "manifest.json")
