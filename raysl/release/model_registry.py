"""Versions of a run's bundles: candidate, production, archived; promoted, rolled back, every change written down.

<run>/registry/registry.json is the only truth, replaced whole; versions/<n>/ are copies that nothing overwrites.
Writers take turns through a lock file that the system frees when its holder dies. Torch-free.
"""

import fcntl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from raysl import storage
from raysl.errors import BundleError, StageError
from raysl.release.bundle import copy_bundle, open_bundle

CANDIDATE, PRODUCTION, ARCHIVED = "candidate", "production", "archived"


@dataclass(frozen=True)
class Version:
    """One registered bundle."""

    version: int
    state: str
    content_hash: str
    metrics: Mapping[str, Any]
    created: str
    reason: str = ""
    """Why it is in this state."""


@dataclass(frozen=True)
class Change:
    """One line of the audit list."""

    time: str
    version: int
    before: str
    after: str
    reason: str


@dataclass(frozen=True)
class Registry:
    """The whole registry as it stood at one moment."""

    versions: tuple[Version, ...] = ()
    changes: tuple[Change, ...] = field(default=())

    def version(self, number: int) -> Version:
        for version in self.versions:
            if version.version == number:
                return version
        known = ", ".join(str(v.version) for v in self.versions) or "none"
        raise BundleError(f"There is no version {number}; registered: {known}.")

    def in_production(self) -> Version | None:
        return next((v for v in self.versions if v.state == PRODUCTION), None)

    def with_state(self, number: int, state: str, reason: str) -> "Registry":
        old = self.version(number)
        new = replace(old, state=state, reason=reason)
        change = Change(_now(), number, old.state, state, reason)
        return Registry(tuple(new if v is old else v for v in self.versions), (*self.changes, change))


def version_folder(run_folder: str | Path, version: int) -> Path:
    return _root(run_folder) / "versions" / str(version)


def read_registry(run_folder: str | Path) -> Registry:
    """The registry as it stands; an empty one where nothing was registered."""
    path = _root(run_folder) / "registry.json"
    if not path.is_file():
        return Registry()
    data = storage.read_json(path)
    return Registry(tuple(Version(**v) for v in data["versions"]), tuple(Change(**c) for c in data["changes"]))


def register(run_folder: str | Path, bundle_folder: str | Path, metrics: Mapping[str, Any], reason: str = "released") -> int:
    """Copies a bundle into the registry as the next candidate and returns its version.

    A bundle whose files equal those of the newest version keeps that version, so a repeated call changes nothing; a copy
    that was damaged since is made again.
    """
    bundle = open_bundle(bundle_folder)
    with _locked(run_folder) as registry:
        newest = registry.versions[-1] if registry.versions else None
        if newest is not None and newest.content_hash == bundle.content_hash:
            folder = version_folder(run_folder, newest.version)
            try:
                open_bundle(folder)
            except BundleError:
                storage.remove(folder)
                copy_bundle(bundle_folder, folder)
            return newest.version
        number = newest.version + 1 if newest else 1
        storage.remove(version_folder(run_folder, number))  # of a start that was killed before it was registered
        copy_bundle(bundle_folder, version_folder(run_folder, number))
        version = Version(number, CANDIDATE, bundle.content_hash, dict(metrics), _now(), reason)
        change = Change(_now(), number, "", CANDIDATE, reason)
        _write(run_folder, Registry((*registry.versions, version), (*registry.changes, change)))
        return number


def promote(run_folder: str | Path, version: int, reason: str = "promoted", instead_of: int | None = None) -> int:
    """Makes `version` the one in production; the one before is archived and stays on disk.

    Returns the version in production then. That is another one where `instead_of` is given and no longer in production:
    `version` was compared with something else, and is archived.
    """
    with _locked(run_folder) as registry:
        registry.version(version)
        open_bundle(version_folder(run_folder, version))
        before = registry.in_production()
        if before is not None and before.version == version:
            return version
        if before is not None and instead_of not in (None, before.version):
            _write(run_folder, registry.with_state(version, ARCHIVED, overtaken(before.version)))
            return before.version
        if before is not None:
            registry = registry.with_state(before.version, ARCHIVED, f"followed by version {version}")
        _write(run_folder, registry.with_state(version, PRODUCTION, reason))
        return version


def overtaken(by: int) -> str:
    """Why an update is archived that took longer than the version it was compared with stayed in production."""
    return f"production changed to version {by} meanwhile; run `raysl update` again"


def archive(run_folder: str | Path, version: int, reason: str) -> None:
    """Sets a candidate aside, with the reason; a version in production has to be followed by another instead."""
    with _locked(run_folder) as registry:
        if registry.version(version).state == PRODUCTION:
            raise BundleError(f"Version {version} is in production. Promote another version or roll back first.")
        _write(run_folder, registry.with_state(version, ARCHIVED, reason))


def roll_back(run_folder: str | Path, reason: str = "rolled back") -> int:
    """Puts the version that was in production before back there and returns its number."""
    with _locked(run_folder) as registry:
        current = registry.in_production()
        former = _former_production(registry)
        if current is None or former is None:
            raise BundleError("There is no earlier production version to roll back to.")
        open_bundle(version_folder(run_folder, former))
        registry = registry.with_state(current.version, ARCHIVED, reason)
        _write(run_folder, registry.with_state(former, PRODUCTION, f"back in place of version {current.version}: {reason}"))
        return former


def _former_production(registry: Registry) -> int | None:
    """The production version that the current one followed; a roll-back undoes a promotion and is undone by none."""
    history: list[int] = []
    for change in registry.changes:
        if change.after != PRODUCTION:
            continue
        if change.version in history:
            del history[history.index(change.version) + 1 :]
        else:
            history.append(change.version)
    return history[-2] if len(history) > 1 else None


def production(run_folder: str | Path) -> tuple[int, Path]:
    """The version in production and its bundle folder; StageError with the command where there is none."""
    version = read_registry(run_folder).in_production()
    if version is None:
        raise StageError(f"No version is in production in {_root(run_folder)}. Run `raysl release` first.")
    return version.version, version_folder(run_folder, version.version)


def _root(run_folder: str | Path) -> Path:
    return Path(run_folder) / "registry"


def _write(run_folder: str | Path, registry: Registry) -> None:
    storage.write_json(_root(run_folder) / "registry.json", asdict(registry))


@contextmanager
def _locked(run_folder: str | Path) -> Iterator[Registry]:
    """The registry, while no other writer is at work on it."""
    _root(run_folder).mkdir(parents=True, exist_ok=True)
    with open(_root(run_folder) / ".lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released with the file, also when this process is killed
        yield read_registry(run_folder)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
