"""Catalogs: a short name in a YAML -> "module:Class", imported when used.

No decorators: a registry that decorators fill on the driver is empty in a Ray worker. `type: my_pkg.mod:Mine` in a YAML
serves code outside this package the same way, so adding a block is one file and, inside raysl, one line here.
"""

import difflib
import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raysl.errors import CatalogError


@dataclass(frozen=True)
class Entry:
    """Where a class lies, and its Config where that can be imported without the class (torch takes a second)."""

    path: str
    config: str | None = None


@dataclass(frozen=True)
class Catalog:
    """Short names of one kind of block. `load` imports the class, `config` only its Config."""

    kind: str
    entries: Mapping[str, Entry]

    def load(self, name: str) -> Any:
        return _import(self._entry(name).path, self.kind)

    def config(self, name: str) -> Any:
        entry = self._entry(name)
        if entry.config is not None:
            return _import(entry.config, self.kind)
        loaded = _import(entry.path, self.kind)
        if not hasattr(loaded, "Config"):
            raise CatalogError(f"{entry.path} has no `Config` class; every {self.kind} needs one (see CONTRIBUTING.md).")
        return loaded.Config

    def _entry(self, name: str) -> Entry:
        if name in self.entries:
            return self.entries[name]
        if re.fullmatch(r"\w+(\.\w+)*:\w+", name):
            return Entry(name)
        near = difflib.get_close_matches(name, self.entries, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise CatalogError(
            f"Unknown {self.kind} '{name}'.{hint} Choose from {', '.join(sorted(self.entries))}, or give `module:Class`."
        )


def _import(path: str, kind: str) -> Any:
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise CatalogError(f"Unknown {kind} '{path}': no module '{error.name}' on the Python path.") from error
    except AttributeError as error:
        raise CatalogError(f"Unknown {kind} '{path}': module '{module}' has no '{name}'.") from error


SOURCES = Catalog(
    "source",
    {
        "python_docs": Entry("raysl.data.sources:PythonDocs"),
        "files": Entry("raysl.data.sources:Files"),
        "images": Entry("raysl.data.sources:Images"),
        "digits": Entry("raysl.data.sources:Digits"),
        "interactions": Entry("raysl.data.sources.interactions:Interactions"),
    },
)
FILTERS = Catalog(
    "filter",
    {
        "c4": Entry("raysl.data.filters.c4:C4"),
        "fineweb": Entry("raysl.data.filters.fineweb:FineWeb"),
        "language": Entry("raysl.data.filters.language:Language"),
        "length": Entry("raysl.data.filters.length:Length"),
        "quality": Entry("raysl.data.filters.quality:Quality"),
        "repetition": Entry("raysl.data.filters.repetition:Repetition"),
        "word_list": Entry("raysl.data.filters.word_list:WordList"),
    },
)
MODELS = Catalog(
    "model",
    {
        "bert": Entry("raysl.models.text:Bert", "raysl.models.config:BertConfig"),
        "gpt": Entry("raysl.models.text:Gpt", "raysl.models.config:GptConfig"),
        "resnet": Entry("raysl.models.resnet:ResNet", "raysl.models.vision_config:ResNetConfig"),
        "vit": Entry("raysl.models.vit:Vit", "raysl.models.vision_config:VitConfig"),
    },
)
OBJECTIVES = Catalog(
    "objective",
    {
        "bert": Entry("raysl.objectives.bert:Bert", "raysl.objectives.config:BertConfig"),
        "gpt": Entry("raysl.objectives.gpt:Gpt", "raysl.objectives.config:GptConfig"),
        "contrastive_text": Entry(
            "raysl.objectives.contrastive_text:ContrastiveText", "raysl.objectives.config:ContrastiveTextConfig"
        ),
        "mae": Entry("raysl.objectives.mae:Mae", "raysl.objectives.image_config:MaeConfig"),
        "simclr": Entry("raysl.objectives.simclr:Simclr", "raysl.objectives.image_config:SimclrConfig"),
    },
)
TASKS = Catalog(
    "task",
    {
        "classify": Entry("raysl.serve.tasks.classify:Classify"),
        "embed": Entry("raysl.serve.tasks.embed:Embed"),
        "search": Entry("raysl.serve.tasks.search:Search"),
        "generate": Entry("raysl.serve.tasks.generate:Generate"),
    },
)
CATALOGS = (SOURCES, FILTERS, MODELS, OBJECTIVES, TASKS)
