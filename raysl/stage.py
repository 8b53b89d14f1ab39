"""One stage of a run folder: done already, to be made, or in conflict with what is there.

A stage is done when its manifest names the same config, the same inputs and files that are all there. Its folder is
<run>/<stage>, its manifest <run>/<stage>/manifest.json, written last.
"""

import fcntl
import json
import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from pydantic_core import to_jsonable_python

import raysl
from raysl import storage
from raysl.config import Config
from raysl.errors import ConfigError, StageError

logger = logging.getLogger(__name__)

MANIFEST, TOKENIZER, CHECKPOINTS = "manifest.json", "tokenizer.json", "checkpoints"
MARKER = ".fingerprint"
"""In a stage's folder: the fingerprint that its work was begun with."""
BEGUN_WITH, BEGUN_FROM, UNITS = ".config.json", ".inputs.json", ".units"
"""Beside it: the config, the inputs and a hash of the units of that work."""
LOCK = ".lock"
"""In a folder in which one command works at a time."""
MADE = "was made"
Keys = tuple[str, ...]
"""Where a value stands in nested configs: ("prepare", "deduplicate", "max_task_mb")."""


@dataclass(frozen=True)
class Manifest:
    """What a finished stage says of itself; `files` maps each relative path to its content hash."""

    stage: str
    fingerprint: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    files: Mapping[str, str]
    counts: Mapping[str, Any]
    metrics: Mapping[str, Any]
    seconds: float
    version: str

    @property
    def content_hash(self) -> str:
        """Names the outputs, not the time they were made: equal bytes have equal hashes."""
        return storage.hash_json(dict(self.files))


def read_manifest(run_folder: str | Path, stage: str) -> Manifest | None:
    path = Path(run_folder) / stage / MANIFEST
    return Manifest(**storage.read_json(path)) if path.is_file() else None


def require(run_folder: str | Path, stage: str, command: str) -> Manifest:
    """The manifest of an earlier stage; StageError with the command that makes it, where it is absent."""
    manifest = read_manifest(run_folder, stage)
    if manifest is None:
        raise StageError(f"{Path(run_folder) / stage} is not there or not finished. Run `raysl {command}` first.")
    return manifest


def made_from(run_folder: str | Path, stages: Sequence[str], free: Collection[str] = ()) -> dict[str, str]:
    """Content hashes of finished stages: what a later one is made from.

    StageError where one is missing, or was made from an output of another one that has been made anew since; those that
    are `free` may be made from outputs of other runs with the same tokenizer.
    """
    made = {name: require(run_folder, name, name) for name in stages}
    for name in stages:
        for earlier, content in made[name].inputs.items():
            if earlier not in made or made[earlier].content_hash == content:
                continue
            if name not in free:
                _refuse(Path(run_folder), name, earlier)
            _check_tokenizer(Path(run_folder), name, earlier)
    return {name: manifest.content_hash for name, manifest in made.items()}


def _refuse(run_folder: Path, name: str, earlier: str) -> NoReturn:
    _, places = Stage(run_folder, name, {}, {}).begun_from() or ({}, {})
    if earlier in places:
        raise StageError(
            f"`{name}` was made with {places[earlier]}, not from the `{earlier}` in the run folder. "
            f"Give {places[earlier]} here too, or run `raysl {name} --redo` first."
        )
    raise StageError(
        f"`{name}` was made from an earlier `{earlier}` than the one in the run folder. "
        f"Run `raysl {name}` first, or `raysl run` for all stages."
    )


def _check_tokenizer(run_folder: Path, name: str, earlier: str) -> None:
    """An encoder that reads other tokens than it was trained on gives no error, only bad embeddings."""
    theirs, ours = run_folder / name / "export" / TOKENIZER, run_folder / earlier / TOKENIZER
    if theirs.is_file() and ours.is_file() and storage.read_json(theirs) != storage.read_json(ours):
        raise StageError(
            f"`{name}` was trained with another tokenizer ({theirs}) than `{earlier}` has ({ours}). "
            f"Give prepare.tokenizer.path={theirs} and run `raysl {earlier} --redo`, or train on shards of this tokenizer."
        )


@dataclass
class Stage:
    """Bookkeeping of one stage. `inputs` maps a name to a content hash; `config` is what the output depends on."""

    run_folder: Path
    name: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    limits: Mapping[Keys, Any] = field(default_factory=dict)
    """`usual_limits` of the config: an earlier raysl wrote other values where `config` has these."""
    places: Mapping[str, str] = field(default_factory=dict)
    """Input that is no output of this run -> the setting that names it, as `key=value`."""
    started: float = field(default_factory=time.monotonic)

    @property
    def folder(self) -> Path:
        return self.run_folder / self.name

    @property
    def fingerprint(self) -> str:
        return _fingerprint(self.config, self.inputs)

    def done(self) -> Manifest | None:
        """The manifest when nothing has changed since and every file is there; None when there is work to do."""
        manifest = read_manifest(self.run_folder, self.name)
        if manifest is None or not self._made_as_now(manifest):
            return None
        return manifest if all((self.folder / name).is_file() for name in manifest.files) else None

    def _made_as_now(self, manifest: Manifest) -> bool:
        made = _fingerprint(self.with_limits(manifest.config), manifest.inputs)
        return self.fingerprint in (manifest.fingerprint, made)

    def begin(self, units: Any = None) -> Path:
        """Makes the folder ready. Unfinished work of the same config, inputs and `units` stays; of others it is removed.

        `units` says what each numbered unit of the work is made from, where config and inputs alone do not.
        """
        cut, path = storage.hash_json(units), self.folder / UNITS
        if not self.goes_on() or (path.read_text() if path.is_file() else storage.hash_json(None)) != cut:
            storage.remove(self.folder)
            self.folder.mkdir(parents=True)
            if units is not None:
                storage.write_text(path, cut)
        said = {"inputs": dict(self.inputs), "places": dict(self.places)}
        storage.write_json(self.folder / BEGUN_FROM, said)
        if not (self.folder / BEGUN_WITH).is_file():
            storage.write_json(self.folder / BEGUN_WITH, storage_form(self.config))
            storage.write_text(self.folder / MARKER, self.fingerprint)  # last: marked work says what it was begun with
        (self.folder / MANIFEST).unlink(missing_ok=True)
        self.started = time.monotonic()
        return self.folder

    def goes_on(self) -> bool:
        """Whether the work in the folder was begun with this config and from these inputs."""
        marker, begun = self.folder / MARKER, self.begun_with()
        same = {self.fingerprint}
        if begun is not None and self.with_limits(begun) == storage_form(self.config):
            same.add(_fingerprint(begun, self.inputs))
        return marker.is_file() and marker.read_text() in same

    def begun_with(self) -> dict[str, Any] | None:
        """The config of the work in the folder, finished or not; None where nothing says it."""
        manifest, path = read_manifest(self.run_folder, self.name), self.folder / BEGUN_WITH
        if manifest is not None:
            return dict(manifest.config)
        return storage.read_json(path) if path.is_file() else None

    def begun_otherwise(self) -> bool:
        """Whether another config made, or began, the work in the folder."""
        begun = self.begun_with()
        return begun is not None and self.with_limits(begun) != storage_form(self.config)

    def begun_from(self) -> tuple[Mapping[str, str], Mapping[str, str]] | None:
        """Inputs and places of the work in the folder, finished or not; None where nothing says them."""
        manifest, path = read_manifest(self.run_folder, self.name), self.folder / BEGUN_FROM
        said = storage.read_json(path) if path.is_file() else None
        if manifest is not None:
            return manifest.inputs, said["places"] if said else {}
        return (said["inputs"], said["places"]) if said else None

    def work(self) -> str:
        """What the folder holds that would be missed, in words; "" for none."""
        if (self.folder / MANIFEST).is_file():
            return MADE
        saved = self.checkpoints()
        return f"holds a training that has come to {saved[-1]}" if saved else ""

    def checkpoints(self) -> list[str]:
        """Names of the training states in the folder, in the order of their steps."""
        return sorted(path.name for path in (self.folder / CHECKPOINTS).glob("step-*") if path.name[5:].isdigit())

    def with_limits(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """A config that was written, with `limits` in place of what it says of them."""
        return _limited(config, self.limits)

    def finish(self, counts: Mapping[str, Any], metrics: Mapping[str, Any], files: Mapping[str, str]) -> Manifest:
        """Commits the stage: from here on it is done, also where the machine stops next."""
        for name in files:
            storage.sync(self.folder / name)
        manifest = Manifest(
            stage=self.name, fingerprint=self.fingerprint, config=dict(self.config), inputs=dict(self.inputs),
            files=dict(files), counts=dict(counts), metrics=dict(metrics),
            seconds=round(time.monotonic() - self.started, 2), version=raysl.__version__,
        )  # fmt: skip
        storage.write_json(self.folder / MANIFEST, vars(manifest))
        self._index(manifest)
        return manifest

    def _index(self, manifest: Manifest) -> None:
        """The run's own manifest.json: one entry per finished stage."""
        path = self.run_folder / MANIFEST
        index = storage.read_json(path) if path.is_file() else {"stages": {}}
        index["stages"][self.name] = {
            "content_hash": manifest.content_hash, "fingerprint": manifest.fingerprint, "seconds": manifest.seconds,
            "counts": manifest.counts, "metrics": manifest.metrics,
        }  # fmt: skip
        storage.write_json(path, index)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Holds `folder` for this process, where the disk has locks; StageError where another one works in it.

    Two that make the same stage remove each other's unfinished files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released with the file, also when this process is killed
        except BlockingIOError as error:
            raise StageError(f"Another command is at work in {folder}. Wait for its end, or stop it.") from error
        except OSError:
            logger.info("%s lies on a disk without locks", folder)
        yield


def log_metrics(run_folder: str | Path, stage: str, **values: Any) -> None:
    """Appends one line to the run's metrics.jsonl."""
    storage.append_jsonl(Path(run_folder) / "metrics.jsonl", {"stage": stage, "time": time.time(), **values})


def whole_lines(text: bytes) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl that can be read: a killed process leaves half a line, a machine that stops zeros."""
    found = []
    for line in text.splitlines():
        with suppress(ValueError):
            found.append(json.loads(line))
    return [line for line in found if isinstance(line, dict)]


def section(config: Config, *names: str) -> dict[str, Any]:
    """The named parts of a config as plain data: what a stage's fingerprint is made of. `Config.how` is left out."""
    parts = {name: value for name, value in config.model_dump(mode="json").items() if name in names}
    for name, value in parts.items():
        whole = getattr(config, name)
        if isinstance(whole, Config) and isinstance(value, dict):
            parts[name] = {key: inner for key, inner in value.items() if key not in whole.how}
    return _limited(parts, usual_limits(config, *names))


def usual_limits(config: Config, *names: str) -> dict[Keys, Any]:
    """`Config.limits` of the named parts and of the configs inside them, with the values that stand for all others."""
    parts = {name: part for name in names if isinstance(part := getattr(config, name, None), Config)}
    return {(name, *keys): usual for name, part in parts.items() for keys, usual in _limits(part)}


def _limits(part: Config) -> Iterator[tuple[Keys, Any]]:
    for name, described in type(part).model_fields.items():
        inner = getattr(part, name)
        if name in part.limits:
            yield (name,), to_jsonable_python(described.default)
        elif isinstance(inner, Config):
            yield from (((name, *keys), usual) for keys, usual in _limits(inner))


def _limited(config: Mapping[str, Any], limits: Mapping[Keys, Any]) -> dict[str, Any]:
    limited = dict(config)
    for (first, *keys), usual in limits.items():
        if not keys:
            limited[first] = usual
        elif limited.get(first):  # a part that is left out has no limits
            limited[first] = _limited(limited[first], {tuple(keys): usual})
    return limited


WAY_OUT = "Name another folder with run_dir=..., or add --redo to make this stage and those after it again."


def check_same_config(stage: Stage, redo: bool, way_out: str = WAY_OUT) -> None:
    """Refuses to overwrite a finished stage, or checkpoints, that another config made, unless `redo` was asked for."""
    work, begun = stage.work(), stage.begun_with()
    if redo or not work or begun is None or not stage.begun_otherwise():
        return
    back = "" if work == MADE else "Set it back to go on. "
    raise ConfigError(f"{stage.folder} {work} with another config ({_changes(begun, stage)}). {back}{way_out}")


def check_same_inputs(stage: Stage, redo: bool, way_out: str = WAY_OUT) -> None:
    """Refuses to remove a model or checkpoints because of inputs from outside the run folder, unless `redo` was asked for.

    What was made from an earlier output of this very run may go: the output has gone before.
    """
    work = stage.work()
    if redo or not work or stage.goes_on():
        return
    before = stage.begun_from()
    if before is None or stage.begun_with() is None:
        raise ConfigError(
            f"{stage.folder} {work} with another config or from other inputs; an earlier raysl began it and did not say "
            f"with which. Move that folder away to keep it. {way_out}"
        )
    inputs, places = before
    for name in sorted({*places, *stage.places}):
        if inputs.get(name) != stage.inputs.get(name):
            moved = _moved(places.get(name), stage.places.get(name), f"the run's own `{name}`")
            raise ConfigError(f"{stage.folder} {work} from other inputs: {moved} {way_out}")


def _moved(was: str | None, now: str | None, own: str) -> str:
    if was == now:
        return f"what {now} names has changed since. Put it back to keep it."
    return f"{was or own} then, {now or own} now. {f'Give {was}' if was else f'Leave {now} out'} to keep it."


def _changes(old: Mapping[str, Any], stage: Stage) -> str:
    return ", ".join(_differences(stage.with_limits(old), storage_form(stage.config)))


def _fingerprint(config: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    return storage.hash_json({"config": config, "inputs": inputs})


def storage_form(config: Mapping[str, Any]) -> dict[str, Any]:
    return dict(json.loads(json.dumps(config, default=str)))


def _differences(old: Any, new: Any, path: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        return [d for k in keys for d in _differences(old.get(k), new.get(k), f"{path}.{k}".lstrip("."))]
    return [] if old == new else [f"{path}: {old!r} -> {new!r}"]
