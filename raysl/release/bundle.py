"""A bundle: the folder that is released, registered and served; free of torch.

bundle.json is written last. It names every file with its size and content hash, and itself by a hash of what it says, so
a folder that was cut off or altered does not open.
"""

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysl import storage
from raysl.data.config import RedactConfig
from raysl.data.decode import Decoding
from raysl.errors import BundleError, DataError

BUNDLE = "bundle.json"
ENCODER = "encoder.onnx"
CLASSIFIER = "classifier.onnx"
GENERATOR = "generator.onnx"
TOKENIZER = "tokenizer.json"
SEARCH_EMBEDDINGS = "search/embeddings.npy"
SEARCH_DOCUMENTS = "search/documents.parquet"
REFERENCE = "reference.parquet"
TASK_FILES = {"classify": CLASSIFIER, "embed": ENCODER, "search": SEARCH_EMBEDDINGS, "generate": GENERATOR}


@dataclass(frozen=True)
class Bundle:
    """A verified bundle; `manifest` is bundle.json."""

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks whose files the bundle holds."""
        return tuple(self.manifest["tasks"])

    @property
    def classes(self) -> tuple[str, ...]:
        """Labels in the order of the classifier's logits."""
        return tuple(self.manifest["classes"])

    @property
    def decoding(self) -> Decoding | None:
        """How a picture becomes what the models read; None where they read texts."""
        said = self.manifest.get("decoding")
        return None if said is None else Decoding(**said)

    @property
    def max_tokens(self) -> int:
        """Longest text in tokens."""
        return int(self.manifest["max_tokens"])

    @property
    def context_length(self) -> int:
        """Tokens the model reads at once, never above `max_tokens`; a longer text is embedded in windows of its context."""
        return min(self.max_tokens, int(self.manifest.get("context_length", self.max_tokens)))

    @property
    def width(self) -> int:
        """Width of an embedding."""
        return int(self.manifest["width"])

    @property
    def redact(self) -> RedactConfig | None:
        """What `prepare` replaced in every text."""
        said = self.manifest.get("redact")
        return None if said is None else RedactConfig.model_validate(said)

    @property
    def content_hash(self) -> str:
        """Names what the bundle holds and says, not the time it was made."""
        return str(self.manifest["content_hash"])

    def has(self, name: str) -> bool:
        return name in self.manifest["files"]

    def path(self, name: str) -> Path:
        """Path of one of its files; BundleError naming the tasks it answers where there is none."""
        if not self.has(name):
            raise BundleError(f"The bundle {self.folder} has no {name}; it answers {', '.join(self.tasks) or 'nothing'}.")
        return self.folder / name


def write_bundle(folder: str | Path, facts: Mapping[str, Any]) -> Bundle:
    """Seals a folder of finished files: hashes them and writes bundle.json.

    `facts` are what bundle.json says besides: classes, width, metrics, parity, versions, and any more; of texts max_tokens
    and context_length, of pictures decoding.
    """
    root = Path(folder)
    (root / BUNDLE).unlink(missing_ok=True)
    files = storage.hash_folder(root)
    tasks = [task for task, name in TASK_FILES.items() if name in files]
    sizes = {name: (root / name).stat().st_size for name in files}
    storage.write_json(root / BUNDLE, {"tasks": tasks, **facts, "files": files, "sizes": sizes})
    manifest = storage.read_json(root / BUNDLE)  # hashed as it reads: numpy's numbers have become plain ones
    manifest |= {"content_hash": storage.hash_json(manifest), "created": time.time()}
    storage.write_json(root / BUNDLE, manifest)
    return Bundle(root, manifest)


def open_bundle(folder: str | Path) -> Bundle:
    """The bundle in `folder`, every byte checked; BundleError where it is absent, cut off or altered."""
    root = Path(folder)
    if not root.is_dir():
        raise BundleError(f"{root}: no such folder. Run `raysl release` to make a bundle.")
    manifest = _read_manifest(root)
    for name, expected in manifest["files"].items():
        _check_file(root, name, expected, manifest["sizes"][name])
    return Bundle(root, manifest)


def _read_manifest(root: Path) -> dict[str, Any]:
    if not (root / BUNDLE).is_file():
        raise _broken(root, f"{BUNDLE} is missing")
    try:
        manifest = storage.read_json(root / BUNDLE)
    except DataError as error:
        raise _broken(root, f"{BUNDLE} is cut off") from error
    said = {key: value for key, value in manifest.items() if key not in ("content_hash", "created")}
    if manifest.get("content_hash") != storage.hash_json(said):
        raise _broken(root, f"{BUNDLE} is altered")
    return manifest


def _check_file(root: Path, name: str, expected: str, size: int) -> None:
    path = root / name
    if not path.is_file():
        raise _broken(root, f"{name} is missing")
    if path.stat().st_size < size:
        raise _broken(root, f"{name} is cut off ({path.stat().st_size:,} of {size:,} bytes)")
    if storage.hash_file(path) != expected:
        raise _broken(root, f"{name} is altered")


def _broken(root: Path, reason: str) -> BundleError:
    return BundleError(f"The bundle {root} cannot be used: {reason}. Run `raysl release` to make it again.")


def copy_bundle(source: str | Path, target: str | Path) -> Bundle:
    """Copies a bundle, whole or not at all, and opens the copy."""
    with storage.atomic_path(target) as temporary:
        shutil.copytree(source, temporary)
        open_bundle(temporary)
    return open_bundle(target)
