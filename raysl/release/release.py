"""`raysl release`: models to a bundle that is proven, sealed, registered and, when it is the first, in production."""

from pathlib import Path

import pyarrow as pa

from raysl import schema
from raysl.data.config import ImagesConfig
from raysl.data.image_shards import decoding_of
from raysl.errors import BundleError
from raysl.progress import say
from raysl.release import model_registry, onnx
from raysl.release.build import Ingredients, build_bundle
from raysl.release.bundle import BUNDLE, TOKENIZER, Bundle, open_bundle
from raysl.release.documents import draw_split, first_documents, lacking
from raysl.release.gate import macro_f1
from raysl.release.pictures import draw_pictures, first_pictures
from raysl.run_config import RunConfig, needed
from raysl.stage import Manifest, Stage, check_same_config, log_metrics, made_from, section
from raysl.storage import hash_folder, remove


def release(config: RunConfig, redo: bool = False) -> Manifest:
    """Writes <run>/release/bundle and registers it as a version.

    The first version goes into production at once. A later one follows it unless it is worse on the held-out rows.
    Raises BundleError, and registers nothing, where an export differs from its model by more than the tolerance, and before
    any work where a model is too large to export.
    """
    needed(config, "release")
    stage = _stage(config)
    made = stage.done()
    if made is not None and not redo and _serves(config) and _intact(stage.folder / "bundle"):
        say(f"release: done already, version {made.counts['version']}  {stage.folder / 'bundle'}")
        return made
    check_same_config(stage, redo)
    for name in ["pretrain"] + ["finetune"] * (config.finetune is not None):
        onnx.check_size(config.folder / name)
    folder = stage.begin() / "bundle"
    if redo or not _intact(folder):
        remove(folder)
        build_bundle(folder, _ingredients(config), config.release)  # type: ignore[arg-type]
    bundle = open_bundle(folder)
    version, state = _register(config, bundle)
    metrics = {**bundle.manifest["metrics"], "parity": worst_parity(bundle), **bundle.manifest["latency"]}
    log_metrics(config.folder, "release", version=version, **metrics)
    files = hash_folder(stage.folder, keep=lambda path: path.parent != stage.folder)
    _say_result(bundle, version, state)
    return stage.finish({"version": version, "files": len(files)}, metrics, files)


def _stage(config: RunConfig) -> Stage:
    names = ["prepare", "pretrain"] + (["finetune"] if config.finetune else [])
    inputs = made_from(config.folder, names, config.free_stages)
    return Stage(config.folder, "release", section(config, "release", "seed"), inputs)


def _serves(config: RunConfig) -> bool:
    """Whether a version is in production, and its copy whole."""
    version = model_registry.read_registry(config.folder).in_production()
    return version is not None and _intact(model_registry.version_folder(config.folder, version.version))


def _intact(folder: Path) -> bool:
    """Whether a bundle was finished and has not changed since; a bad one is told, and made again."""
    try:
        return (folder / BUNDLE).is_file() and bool(open_bundle(folder).manifest)
    except BundleError as error:
        say(f"release: {error}")
        return False


def _ingredients(config: RunConfig) -> Ingredients:
    run, wanted = config.folder, config.release
    assert wanted is not None
    held_out = _draw(config, labelled=False)
    pictures = _of_pictures(config)
    return Ingredients(
        encoder=run / "pretrain",
        classifier=run / "finetune" if config.finetune else None,
        held_out=held_out,
        labelled=lacking(held_out, labelled_rows(config)),
        documents=_first(config, wanted.search_documents) if wanted.search_documents else None,
        tokenizer=None if pictures else run / "prepare" / TOKENIZER,
        decoding=decoding_of(config.prepare.images or ImagesConfig()) if pictures else None,
        redact=config.prepare.redact,
    )


def labelled_rows(config: RunConfig) -> pa.Table:
    """Labelled rows of the validation split: of a corpus with few labels, more than a draw of all its rows has."""
    return _draw(config, labelled=True)


def _draw(config: RunConfig, labelled: bool) -> pa.Table:
    assert config.release is not None
    draw, folder = (draw_pictures, "") if _of_pictures(config) else (draw_split, "documents")
    prepared = config.folder / "prepare" / folder
    return draw(prepared, schema.VALIDATION, config.release.reference_rows, config.seed, labelled)


def _first(config: RunConfig, count: int) -> pa.Table:
    prepared = config.folder / "prepare"
    return first_pictures(prepared, count) if _of_pictures(config) else first_documents(prepared / "documents", count)


def _of_pictures(config: RunConfig) -> bool:
    return config.prepare.source.modality == "images"


def _register(config: RunConfig, bundle: Bundle) -> tuple[int, str]:
    """The version and its state. Registering and promoting twice changes nothing, so a killed release can go on here."""
    before = model_registry.read_registry(config.folder).in_production()
    version = model_registry.register(config.folder, bundle.folder, bundle.manifest["metrics"])
    state = model_registry.read_registry(config.folder).version(version).state
    if state != model_registry.CANDIDATE:
        return version, state
    if before is None:
        model_registry.promote(config.folder, version, "the first version")
        return version, model_registry.PRODUCTION
    try:
        production = open_bundle(model_registry.version_folder(config.folder, before.version))
    except BundleError:
        model_registry.promote(config.folder, version, f"in place of version {before.version}, which cannot be opened")
        return version, model_registry.PRODUCTION
    worse = _loss_to_production(config, bundle, production)
    if worse > config.update.max_loss_on_old:
        reason = f"loses {worse:.3f} macro-F1 to version {before.version} on held-out rows"
        model_registry.archive(config.folder, version, reason)
        return version, f"{model_registry.ARCHIVED}: it {reason}; version {before.version} stays in production"
    model_registry.promote(config.folder, version, f"released after version {before.version}")
    lost = [name for name in production.classes if name not in bundle.classes]
    if lost:
        say(
            f"release: version {version} lacks classes that version {before.version} has: {', '.join(lost)}. The next "
            "version of `raysl update` has those again that came by updates; `roll_back` of the model registry goes back."
        )
    return version, model_registry.PRODUCTION


def _loss_to_production(config: RunConfig, bundle: Bundle, production: Bundle) -> float:
    """Macro-F1 lost on this run's held-out rows; 0 where either bundle has no classifier to compare, or cannot read them."""
    if not bundle.classes or not production.classes or _form(bundle) != _form(production):
        return 0.0
    rows, classes = labelled_rows(config), list(bundle.classes)
    return macro_f1(production, rows, classes) - macro_f1(bundle, rows, classes)


def _form(bundle: Bundle) -> tuple[int, int, str] | None:
    """Of the pictures that a bundle reads; None where it reads texts."""
    how = bundle.decoding
    return None if how is None else (how.size, how.channels, how.resize)


def worst_parity(bundle: Bundle) -> float:
    """Largest difference from PyTorch over all models of a bundle."""
    return max(float(parity["max_difference"]) for parity in bundle.manifest["parity"].values())


def _say_result(bundle: Bundle, version: int, state: str) -> None:
    metrics, latency = bundle.manifest["metrics"], bundle.manifest["latency"]
    quality = f"  macro-F1 {metrics['macro_f1']:.3f} on {metrics['rows']:,} held-out rows" if metrics else ""
    say(
        f"release: version {version} ({state})  answers {', '.join(bundle.tasks)}  "
        f"parity {worst_parity(bundle):.1e}{quality}  {latency['p50_ms']:.2f} ms a request"
    )
