"""A bundle opens only when every file is what was sealed."""

import json
from pathlib import Path

import pytest

from raysl.errors import BundleError
from raysl.release.bundle import Bundle, copy_bundle, open_bundle, write_bundle

FILES = {
    "encoder.onnx": b"encoder" * 50,
    "classifier.onnx": b"classifier" * 50,
    "tokenizer.json": b'{"model": {}}' * 20,
    "reference.parquet": b"PAR1" * 60,
    "search/embeddings.npy": b"\x93NUMPY" * 40,
    "search/documents.parquet": b"PAR1" * 40,
}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    folder = tmp_path / "bundle"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    facts = {
        "classes": ["json", "os"], "max_tokens": 32, "width": 8, "metrics": {"macro_f1": 0.5},
        "parity": {"encoder.onnx": {"max_difference": 1e-6}}, "versions": {"raysl": "0.1.0"},
    }  # fmt: skip
    return write_bundle(folder, facts)


def test_reads_back_what_was_written(bundle: Bundle) -> None:
    opened = open_bundle(bundle.folder)
    assert opened.tasks == ("classify", "embed", "search")
    assert (opened.classes, opened.max_tokens, opened.width) == (("json", "os"), 32, 8)
    assert opened.context_length == 32
    assert opened.path("encoder.onnx").read_bytes() == FILES["encoder.onnx"]


@pytest.mark.parametrize("name", [*FILES, "bundle.json"])
def test_refuses_a_bundle_cut_off_at_any_file(bundle: Bundle, name: str) -> None:
    path = bundle.folder / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BundleError, match=rf"{name} is cut off.*raysl release"):
        open_bundle(bundle.folder)


@pytest.mark.parametrize("name", [*FILES, "bundle.json"])
def test_refuses_a_bundle_with_any_file_missing(bundle: Bundle, name: str) -> None:
    (bundle.folder / name).unlink()
    with pytest.raises(BundleError, match=rf"{name} is missing.*raysl release"):
        open_bundle(bundle.folder)


@pytest.mark.parametrize("name", FILES)
def test_refuses_a_bundle_with_one_changed_byte(bundle: Bundle, name: str) -> None:
    path = bundle.folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(BundleError, match=f"{name} is altered"):
        open_bundle(bundle.folder)


def test_refuses_an_edited_manifest(bundle: Bundle) -> None:
    path = bundle.folder / "bundle.json"
    manifest = json.loads(path.read_text())
    manifest["classes"] = ["os", "json"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"bundle.json is altered"):
        open_bundle(bundle.folder)


def test_refuses_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such folder"):
        open_bundle(tmp_path / "nothing")


def test_names_the_tasks_when_a_file_is_asked_for_that_it_has_not(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=r"no generator.onnx; it answers classify, embed, search"):
        bundle.path("generator.onnx")


def test_a_copy_is_whole_or_absent(bundle: Bundle, tmp_path: Path) -> None:
    assert copy_bundle(bundle.folder, tmp_path / "1").content_hash == bundle.content_hash
    (bundle.folder / "tokenizer.json").unlink()
    with pytest.raises(BundleError):
        copy_bundle(bundle.folder, tmp_path / "2")
    assert not (tmp_path / "2").exists()
