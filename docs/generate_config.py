"""Writes docs/config.md from the config classes: `python docs/generate_config.py`. A test holds that it is up to date."""

from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from raysl.catalog import CATALOGS
from raysl.config import PluginConfig
from raysl.data.config import MODALITY_KEYS
from raysl.run_config import STAGES, RunConfig

PAGE = Path(__file__).with_name("config.md")
HEAD = """\
# Every key of a YAML

One YAML is one run. `prepare`, `pretrain`, `finetune`, `evaluate` and `release` are its stages; one whose section is absent
is a stage the run does not have. What the absence of another section means stands under its heading. A key is overridden on
the command line by its full path: `raysl pretrain configs/smoke/bert.yaml pretrain.max_steps=100`. Unknown keys are errors.
This page is written by `python docs/generate_config.py`; do not edit it.
"""
DEFAULTS_ANYWAY = ("prepare.images", "prepare.behaviour")
"""Sections that are null when absent, and whose defaults are taken all the same."""
COMMANDS = ("tune", "serve")
"""Sections that one command reads, and no stage."""


def page() -> str:
    lines = [HEAD, "## The run", "", *_table(RunConfig)]
    for name, config, field in _sections(RunConfig):
        lines += ["", f"## {name}", "", _doc(config), *_about(name, field), "", *_table(config)]
    for catalog in CATALOGS:
        lines += ["", f"## Catalog: {catalog.kind}", "", "What `type:` may name, besides `module:Class` of your own code."]
        for name in catalog.entries:
            config = catalog.config(name)
            lines += ["", f"### {catalog.kind}: {name}", "", _doc(config), "", *_table(config)]
            for key, inner, field in _sections(config):
                about = _about(f"{catalog.kind}.{key}", field)
                lines += ["", f"#### {key} of {catalog.kind} {name}", "", _doc(inner), *about, "", *_table(inner)]
    return "\n".join(lines) + "\n"


def _sections(config: type[BaseModel], path: str = "") -> Iterator[tuple[str, type[BaseModel], FieldInfo]]:
    for name, field in config.model_fields.items():
        inner = _config_class(field.annotation)
        if inner is not None:
            yield f"{path}{name}", inner, field
            yield from _sections(inner, f"{path}{name}.")


def _about(path: str, field: FieldInfo) -> list[str]:
    """What a section is for, and what its absence means; a key that has a row of its own says both there."""
    if not _is_section(field.annotation):
        return []
    said = _clean(field.description)
    if not said and (kinds := [kind for kind, keys in MODALITY_KEYS.items() if path in {f"prepare.{key}" for key in keys}]):
        said = f"For {' and '.join(kinds)} only."
    return ["", f"{said} {_absent(path, field)}".strip()]


def _absent(path: str, field: FieldInfo) -> str:
    if field.is_required():
        return "Needed."
    if path in STAGES:
        return "Absent: the run does not have this stage."
    if path in COMMANDS:
        return f"Absent: `raysl {path}` is refused."
    if field.get_default(call_default_factory=True) is None:
        return "On when absent, with the defaults below." if path in DEFAULTS_ANYWAY else "Off when absent."
    off = "; `null` turns it off" if type(None) in get_args(field.annotation) else ""
    return f"On when absent, with the defaults below{off}."


def _config_class(annotation: Any) -> type[BaseModel] | None:
    """The section a field holds or may hold instead of a plain value; a block that a catalog names is none."""
    for part in (annotation, *get_args(annotation), *(i for outer in get_args(annotation) for i in get_args(outer))):
        if isinstance(part, type) and issubclass(part, BaseModel) and not issubclass(part, PluginConfig):
            return part
    return None


def _is_section(annotation: Any) -> bool:
    """Whether a field is nothing but a section: `num_workers` may be a number too, and has a row of its own."""
    parts = {part for part in get_args(annotation) or (annotation,) if part is not type(None)}
    return _config_class(annotation) is not None and len(parts) == 1


def _table(config: type[BaseModel]) -> list[str]:
    rows = [
        f"| `{name}` | {_type(field)} | {_default(field)} | {_clean(field.description)} |"
        for name, field in config.model_fields.items()
        if not (name == "type" and issubclass(config, PluginConfig)) and not _is_section(field.annotation)
    ]
    return ["| key | values | default | meaning |", "|---|---|---|---|", *rows] if rows else ["No keys of its own."]


def _type(field: FieldInfo) -> str:
    signs = (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="), ("multiple_of", "multiple of"))
    limits = [f"{sign} {getattr(m, name):.10g}" for m in field.metadata for name, sign in signs if hasattr(m, name)]
    patterns = [m.pattern.strip("^$()").replace("|", ", ") for m in field.metadata if getattr(m, "pattern", None)]
    return (", ".join(patterns) or " ".join([_name(field.annotation), *limits])).replace("|", "\\|")


def _name(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(map(str, inner))
    if origin is Annotated:
        return _name(inner[0])
    if origin in (Union, UnionType):
        return " or ".join("null" if part is type(None) else _name(part) for part in inner)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and not issubclass(annotation, PluginConfig):
        return "mapping"
    if origin is dict:
        return f"mapping of {_name(inner[0])} to {_name(inner[1])}"
    if origin is list:
        return "list"
    if origin is tuple:
        return "list of " + _name(inner[0])
    if isinstance(annotation, type) and issubclass(annotation, PluginConfig):
        return "name or mapping with `type`"
    names = {"str": "text", "int": "integer", "float": "number", "bool": "true, false", "datetime": "date or time"}
    return names.get(annotation.__name__, str(annotation))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    default = field.get_default(call_default_factory=True)
    return (
        "`[]`"
        if default == ()
        else f"`{str(default).lower() if isinstance(default, bool) else default}`".replace("None", "null")
    )


def _doc(config: type[BaseModel]) -> str:
    return _clean(config.__doc__)


def _clean(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
