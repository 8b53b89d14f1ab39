"""Names in a YAML: short ones, `module:Class`, and what is neither."""

import inspect

import pytest

from raysl.catalog import CATALOGS, OBJECTIVES, SOURCES, Catalog
from raysl.config import PluginConfig
from raysl.errors import CatalogError

ENTRIES = [(catalog, name) for catalog in CATALOGS for name in catalog.entries]


@pytest.mark.parametrize(("catalog", "name"), ENTRIES, ids=[f"{c.kind}-{n}" for c, n in ENTRIES])
def test_every_name_leads_to_a_documented_class_and_its_config(catalog: Catalog, name: str) -> None:
    loaded, config = catalog.load(name), catalog.config(name)
    assert inspect.isclass(loaded)
    assert inspect.getdoc(loaded)
    assert issubclass(config, PluginConfig)
    assert config.model_fields["type"].default == name


def test_class_outside_the_package_is_found() -> None:
    assert SOURCES.load("collections:OrderedDict").__name__ == "OrderedDict"


def test_class_without_config_is_refused() -> None:
    with pytest.raises(CatalogError, match="has no `Config` class; every source needs one"):
        SOURCES.config("collections:OrderedDict")


@pytest.mark.parametrize("name", ["", ":", "a:", ":A", ".a:A", "a..b:A", "a:b:c", "a b:C", "brt"])
def test_name_that_cannot_be_one_is_refused(name: str) -> None:
    with pytest.raises(CatalogError, match="Choose from bert, contrastive_text, gpt"):
        OBJECTIVES.load(name)


def test_import_that_fails_inside_a_plugin_is_not_called_a_wrong_name(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "needy.py").write_text("import nee\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="nee"):
        SOURCES.load("needy:Mine")
