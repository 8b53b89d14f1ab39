"""A bundle: the folder that is released, registered and served; free of torch.

bundle.json names every file with its content hash and is written last, so a folder that was cut off has none and one
that was altered does not match.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysl import storage
from raysl.errors import BundleError, DataError

BUNDLE = "bundle.json"
CLASSIFIER = "classifier.onnx"
ENCODER = "encoder.onnx"
GENERATOR = "generator.onnx"
TOKENIZER = "tokenizer.json"
SEARCH_EMBEDDINGS = "search/embeddings.npy"
SEARCH_DOCUMENTS = "search/documents.parquet"
REFERENCE = "reference.parquet"


@dataclass(frozen=True)
class Bundle:
    """A verified bundle; `manifest` is bundle.json."""

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def content_hash(self) -> str:
        """Names the files, not the time they were made."""
        return storage.hash_json(dict(self.manifest["files"]))

    def has(self, name: str) -> bool:
        return name in self.manifest["files"]


def write_bundle(folder: str | Path, facts: Mapping[str, Any]) -> Bundle:
    """Closes a folder of finished files: hashes them and writes bundle.json with `facts` beside the hashes."""
    root = Path(folder)
    (root / BUNDLE).unlink(missing_ok=True)
    manifest = {**facts, "files": storage.hash_folder(root)}
    storage.write_json(root / BUNDLE, manifest)
    return Bundle(root, manifest)


def open_bundle(folder: str | Path) -> Bundle:
    """The bundle in `folder`, every byte checked; BundleError where it is absent, cut off or altered."""
    root = Path(folder)
    if not (root / BUNDLE).is_file():
        raise BundleError(f"{root} is no finished bundle: {BUNDLE} is missing. Run `raysl release` to make it.")
    try:
        manifest = storage.read_json(root / BUNDLE)
    except DataError as error:
        raise BundleError(f"{root / BUNDLE} cannot be read: {error} Run `raysl release` again.") from error
    files = manifest.get("files")
    if not isinstance(files, dict) or not files:
        raise BundleError(f"{root / BUNDLE} names no files. Run `raysl release` again.")
    for name, expected in files.items():
        _check(root, name, expected)
    return Bundle(root, manifest)


def _check(root: Path, name: str, expected: str) -> None:
    path = root / name
    if not path.is_file():
        raise BundleError(f"The bundle {root} is cut off: {name} is missing. Run `raysl release` again.")
    if storage.hash_file(path) != expected:
        raise BundleError(
            f"The bundle {root} is altered or cut off: {name} ({path.stat().st_size:,} bytes) does not match its hash. "
            f"Run `raysl release` again."
        )
