"""What the documentation owes: every key, command and block has its place, every shipped YAML is valid."""

import importlib.util
import re
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from raysl import run_config
from raysl.catalog import CATALOGS
from raysl.cli import COMMANDS
from raysl.run_config import RunConfig

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
YAMLS = sorted((ROOT / "configs").rglob("*.yaml"))


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_config", ROOT / "docs" / "generate_config.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def headings(*left_out: str) -> set[str]:
    pages = [page for page in (ROOT / "docs").rglob("*.md") if page.name not in left_out]
    lines = [line for page in pages for line in page.read_text(encoding="utf-8").splitlines()]
    return {line for line in lines if line.startswith("#")}


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_shipped_yaml_is_valid(path: Path) -> None:
    config = run_config.load(path)
    assert config.folder == Path(f"runs/{config.name}").absolute()


def test_both_smoke_runs_are_shipped() -> None:
    assert {"bert", "gpt"} <= {path.stem for path in YAMLS if path.parent.name == "smoke"}


def test_page_of_keys_is_up_to_date(generator: ModuleType) -> None:
    written = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    assert written == generator.page(), "run `python docs/generate_config.py`"


def test_every_key_has_a_meaning(generator: ModuleType) -> None:
    cells = [line.split(" | ") for line in generator.page().splitlines() if line.startswith("| `")]
    assert len(cells) > 60
    assert [row[0] for row in cells if len(row[-1].strip(" |")) < 10] == []
    assert "`max_steps`" in {row[0].strip("| ") for row in cells}


def test_every_section_of_the_yaml_has_a_heading() -> None:
    sections = {name for name in RunConfig.model_fields if name not in ("name", "run_dir", "seed")}
    assert {f"## {name}" for name in sections} - headings() == set()


def test_every_command_has_a_heading() -> None:
    found = {name for heading in headings() for name in re.findall(r"`raysl (\w+)", heading)}
    assert set(COMMANDS) - found == set()


def test_every_block_has_a_heading_in_a_page_that_somebody_wrote() -> None:
    blocks = {f"### {catalog.kind}: {name}" for catalog in CATALOGS for name in catalog.entries}
    assert blocks - headings("config.md") == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_files_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_whole_yamls_that_pages_show_are_valid(tmp_path: Path) -> None:
    shown = [block for page in PAGES for block in re.findall(r"```yaml\n(name: .*?)```", page.read_text("utf-8"), re.S)]
    assert shown
    for block in shown:
        (tmp_path / "shown.yaml").write_text(block, encoding="utf-8")
        assert run_config.load(tmp_path / "shown.yaml").serve is not None


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 250


def test_commands_that_pages_show_exist() -> None:
    shown = [name for page in PAGES for name in re.findall(r"^(?:\$ )?raysl (\w+)", page.read_text(encoding="utf-8"), re.M)]
    assert set(shown) <= set(COMMANDS)


def test_no_path_of_a_machine_is_tracked() -> None:
    found = subprocess.run(
        ["git", "grep", "-nE", r"(^|[^A-Za-z0-9_.])/(work|root|home/[a-z]+)/", "--", ".", ":!tests/test_docs.py"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if found.returncode > 1:
        pytest.skip(f"not a git checkout: {found.stderr.strip()}")
    assert [line for line in found.stdout.splitlines() if "/home/ray/" not in line] == []
