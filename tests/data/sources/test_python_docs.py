"""The documentation installed with Python as a corpus."""

import os
import sysconfig
from pathlib import Path

import pytest

from raysl.data.sources import BadRows, PythonDocs, python_docs
from raysl.errors import DataError


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Python installation of four files."""
    text = '"""' + "What this module is for. " * 10 + '"""\n'
    files = {
        "lib/codec.py": text + "if True:\n    def twice(): " + text + "else:\n    def twice(): " + text,
        "lib/site-packages/no.py": text,
        "site/one/__init__.py": text,
        "site/raysl/own.py": text,
        "site/two.py": "x = 1\n",
        "site/broken.py": '"""\xff"""',
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, encoding="latin-1")
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path / "lib"), "purelib": str(tmp_path / "site")})
    python_docs._listed.cache_clear()
    yield tmp_path
    python_docs._listed.cache_clear()


def test_reads_docstrings_with_their_names_and_libraries(installed: Path) -> None:
    source, bad = PythonDocs(PythonDocs.Config()), BadRows()
    rows = [row for part in source.partitions(2.0) for table in source.read(part, bad) for row in table.to_pylist()]
    assert [(row["id"], row["label"]) for row in rows] == [
        ("codec", "python"), ("codec.twice", "python"), ("codec.twice#2", "python"), ("one", "one"),
    ]  # fmt: skip
    assert rows[0]["text"] == "What this module is for. " * 10
    assert bad.ids == ["site/broken.py"]
    assert bad.counts() == {"unreadable_source": 1}


def test_a_name_that_is_no_utf8_and_a_link_to_nothing_cost_no_other_file(installed: Path) -> None:
    """Editors leave such links beside a file that is open."""
    text = (installed / "site" / "one" / "__init__.py").read_text()
    Path(os.fsdecode(bytes(installed) + b"/site/caf\xe9.py")).write_text(text)
    (installed / "site" / ".#two.py").symlink_to("somebody@a.host")
    source, bad = PythonDocs(PythonDocs.Config()), BadRows()
    rows = [row for part in source.partitions(2.0) for table in source.read(part, bad) for row in table.to_pylist()]
    assert [row["id"] for row in rows] == ["codec", "codec.twice", "codec.twice#2", "caf?", "one"]
    assert bad.ids == ["site/broken.py"]


def test_a_file_that_is_gone_is_no_bad_row(installed: Path) -> None:
    source, bad = PythonDocs(PythonDocs.Config()), BadRows()
    [partition] = source.partitions(2.0)
    (installed / "lib" / "codec.py").unlink()
    with pytest.raises(DataError, match=r"codec.py cannot be read: .*Set that right, then start again"):
        list(source.read(partition, bad))
    assert not bad.ids


def test_partitions_and_fingerprint_are_those_of_the_files(installed: Path) -> None:
    def fresh() -> PythonDocs:
        python_docs._listed.cache_clear()
        return PythonDocs(PythonDocs.Config())

    assert len(fresh().partitions(1e-6)) == 4
    assert len(fresh().partitions(2.0)) == 1
    before = fresh().fingerprint()
    assert fresh().fingerprint() == before
    (installed / "site" / "two.py").write_text("x = 12\n")
    assert fresh().fingerprint() != before


def test_an_installation_without_sources_is_refused(installed: Path) -> None:
    for path in installed.rglob("*.py"):
        path.unlink()
    python_docs._listed.cache_clear()
    with pytest.raises(DataError, match="holds nothing that can be read"):
        PythonDocs(PythonDocs.Config()).partitions(2.0)
