"""Strict, frozen configs: load a YAML, apply `key=value`, say every mistake in one line each.

A config class is a pydantic model; its field docstrings, with units, are its documentation.
"""

import difflib
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from raysl.catalog import FILTERS, MODELS, OBJECTIVES, SOURCES, TASKS, Catalog
from raysl.errors import CatalogError, ConfigError


class Config(BaseModel):
    """Base of all configs: unknown keys are errors, values cannot change after validation."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        validate_default=True,
        protected_namespaces=(),
        allow_inf_nan=False,
    )

    limits: ClassVar[frozenset[str]] = frozenset()
    """Fields that bound the work (when it ends, how often it is saved, memory of tasks) and change no byte that comes out:
    their defaults stand for all values in what a stage is made of."""
    how: ClassVar[frozenset[str]] = frozenset()
    """Fields that say how the work is done and not what comes out; a stage is not made again because of them."""

    later: ClassVar[frozenset[str]] = frozenset()
    """Fields that came when runs had been made: at their defaults they leave no mark, so that those runs are still known."""

    @model_serializer(mode="wrap")
    def _without_unmarked(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        unmarked = self._unmarked()
        return {key: value for key, value in handler(self).items() if key not in unmarked}

    def _unmarked(self) -> set[str]:
        """Keys that are left out where the config is written down."""
        return {name for name in self.later if getattr(self, name) == type(self).model_fields[name].default}

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """pydantic takes `yes` for 1, and `max_steps: yes` would train for one step."""
        if isinstance(value, bool):
            annotation = cls.model_fields[str(info.field_name)].annotation
            if {int, float} & {annotation, *get_args(annotation)}:
                raise ValueError(f"give a number, got {value!r}")
        return value

    @model_validator(mode="wrap")
    @classmethod
    def _name_nearest_keys(cls, data: Any, handler: Any) -> Self:
        try:
            return handler(data)  # type: ignore[no-any-return]
        except ValidationError as error:
            lines = [_explained(dict(line), list(cls.model_fields)) for line in error.errors(include_url=False)]
            raise ValidationError.from_exception_data(cls.__name__, lines) from None


def _explained(line: dict[str, Any], allowed: Sequence[str]) -> InitErrorDetails:
    message = line["msg"]
    if line["type"] == "extra_forbidden" and len(line["loc"]) == 1:
        near = difflib.get_close_matches(str(line["loc"][0]), allowed, n=1, cutoff=0.5)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        message = f"unknown key.{hint} Allowed: {', '.join(allowed) or 'no keys'}"
    elif not line["type"].startswith("explained"):
        message = _plain(line)
    escaped = message.replace("{", "(").replace("}", ")")
    return InitErrorDetails(type=PydanticCustomError("explained", escaped), loc=line["loc"], input=line["input"])


IN_YAML = {"model_type": "a mapping of keys", "dict_type": "a mapping", "tuple_type": "a list", "list_type": "a list"}
"""pydantic's name of a mistake -> what a YAML should have there, where pydantic names a class of Python."""


def _plain(line: dict[str, Any]) -> str:
    message = str(line["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if line["type"] == "missing":
        return "this key is needed and missing"
    if line["type"] in ("value_error", "assertion_error"):
        return message
    if line["type"] in IN_YAML:
        return f"give {IN_YAML[line['type']]}, got {_short(line['input'])}"
    unquoted = line["type"] == "string_type" and isinstance(line["input"], bool | int | float | date)
    hint = "; quote it if it is text (on the command line inside other quotes)" if unquoted else ""
    return f"{message[:1].lower()}{message[1:]}, got {_short(line['input'])}{hint}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _plugin(catalog: Catalog, value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value
    if isinstance(value, str):
        value = {"type": value}
    if not isinstance(value, Mapping):
        raise ValueError(f"give a name, or a mapping with `type:`, got {_short(value)}")
    name = value.get("type")
    if not isinstance(name, str):
        raise ValueError(f"`type:` is missing. Choose from {', '.join(sorted(catalog.entries))}, or `module:Class`")
    try:
        config = catalog.config(name)
    except CatalogError as error:
        raise ValueError(str(error)) from error
    if not (isinstance(config, type) and issubclass(config, PluginConfig)):
        raise ValueError(f"the `Config` of '{name}' has to be a raysl.config.PluginConfig (see CONTRIBUTING.md)")
    return config.model_validate(dict(value))


class PluginConfig(Config):
    """Config of a block that a catalog names; `type` is its short name or `module:Class`."""

    type: str
    """Short name in the catalog, or `module:Class`."""
    modality: ClassVar[str] = "text"
    """What a source yields, a model reads or an objective trains on: `text` or `images`."""


def _from_home(path: str) -> str:
    """A shell replaces `~` only where a word begins with it, and neither YAML nor the system does."""
    return os.path.expanduser(path) if path == "~" or path.startswith("~/") else path


AnyPath = Annotated[str, AfterValidator(_from_home)]
"""A path or a URI; `~/` is the user's home folder."""
AnySource = Annotated[SerializeAsAny[PluginConfig], BeforeValidator(partial(_plugin, SOURCES))]
AnyFilter = Annotated[SerializeAsAny[PluginConfig], BeforeValidator(partial(_plugin, FILTERS))]
AnyModel = Annotated[SerializeAsAny[PluginConfig], BeforeValidator(partial(_plugin, MODELS))]
AnyObjective = Annotated[SerializeAsAny[PluginConfig], BeforeValidator(partial(_plugin, OBJECTIVES))]
AnyTask = Annotated[SerializeAsAny[PluginConfig], BeforeValidator(partial(_plugin, TASKS))]

ConfigT = TypeVar("ConfigT", bound=Config)


def load(config_class: type[ConfigT], path: str | Path, overrides: Sequence[str] = ()) -> ConfigT:
    """Reads `path`, applies `key=value` overrides and validates.

    Raises ConfigError with one line per mistake: file, full key, what is wrong, what is allowed.
    """
    return validate(config_class, apply_overrides(read_yaml(path), overrides), str(path))


class _Loader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys without a word, and lets through what Python says of a 31 June."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Before `<<` puts keys of other mappings beside its own, which may be the same."""
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key '{key.value}' stands twice", problem_mark=key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else "")
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError) as error:  # of `2011-06-31`, `!!bool x`, `!!timestamp x`
            raise yaml.MarkedYAMLError(problem=f"{node.value!r}: {error}", problem_mark=node.start_mark) from error


def read_yaml(path: str | Path) -> dict[str, Any]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read the config {path}: {error}. Give the path of a YAML file.") from error
    try:
        data = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" line {where.line + 1}, column {where.column + 1}" if where else ""
        raise ConfigError(
            f"{path}{line}: not valid YAML: {_problem(error)}. Check the indentation and the colons."
        ) from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: a config is a mapping of keys to values, got {_short(data)}.")
    return data


def _problem(error: yaml.YAMLError) -> str:
    return getattr(error, "problem", None) or " ".join(str(error).split())


def apply_overrides(data: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Returns `data` with each `dotted.key=value` set; values are read as YAML, list places as numbers.

    A new `preset` fills the keys that the old one filled, which a config that was written down holds one by one.
    """
    pairs = [override.partition("=")[::2] for override in overrides]
    for key, _ in pairs:
        if key.endswith(".preset"):
            _forget_preset(data, key.split(".")[:-1])
    for override, (key, value) in zip(overrides, pairs, strict=True):
        if "=" not in override or not key:
            raise ConfigError(f"'{override}' is no override. Write key=value, for example pretrain.max_steps=100.")
        try:
            _set(data, key.split("."), yaml.load(value, Loader=_Loader), override)
        except yaml.YAMLError as error:
            raise ConfigError(f"'{override}': the value is not valid YAML: {_problem(error)}. Quote it.") from error
    return data


def _forget_preset(data: Any, keys: Sequence[str]) -> None:
    """Takes what its preset says out of the model section at `keys`; keys with other values stay."""
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(data.get("type"), str):
        return
    with suppress(CatalogError):  # told when the config is validated
        sizes = getattr(MODELS.config(data["type"]), "PRESETS", {}).get(str(data.get("preset")), {})
        for name in [name for name, size in sizes.items() if data.get(name) == size]:
            del data[name]


def _set(data: Any, keys: list[str], value: Any, override: str) -> None:
    for position, key in enumerate(keys):
        last = position == len(keys) - 1
        if isinstance(data, list):
            if not key.isdecimal() or int(key) >= len(data):
                raise ConfigError(f"'{override}': '{key}' is no place in a list of {len(data)}.")
            index: Any = int(key)
        elif isinstance(data, dict):
            index = key
            if not last and data.get(key) is None:
                data[key] = {}
        else:
            raise ConfigError(f"'{override}': '{'.'.join(keys[:position])}' holds a single value, no keys.")
        if last:
            data[index] = value
        else:
            if isinstance(data[index], str):  # `objective: bert` is short for `objective: {type: bert}`
                data[index] = {"type": data[index]}
            data = data[index]


def validate(config_class: type[ConfigT], data: Mapping[str, Any], source: str) -> ConfigT:
    try:
        return config_class.model_validate(data)
    except ValidationError as error:
        said = [(line["loc"], line["msg"].removeprefix("Value error, ")) for line in error.errors(include_url=False)]
        lines = [f"{source}: {_key(loc)}{message.rstrip('.')}." for loc, message in said]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from None


def _key(loc: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in loc) + ": " if loc else ""


def dump(config: Config) -> str:
    """YAML of the resolved config: loading it again gives an equal config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
