"""Every mistake in a YAML is one line that names what, where, what is allowed and the fix."""

import contextlib
import functools
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raysl import config as base
from raysl import run_config
from raysl.errors import ConfigError


class Odd:
    """A block whose Config is no config."""

    class Config:
        """Of Python alone."""


def refused(path: Path, *overrides: str) -> list[str]:
    """The lines of the error, without the file's name."""
    with pytest.raises(ConfigError) as caught:
        run_config.load(path, overrides)
    return [line.removeprefix(f"{path}: ") for line in str(caught.value).splitlines()]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("sed=1", "sed: unknown key. Did you mean 'seed'? Allowed: name, run_dir, seed, prepare, pretrain, tune, finetune, "
         "evaluate, release, serve, monitor, update."),
        ("prepare.deduplicate.treshold=0.7", "prepare.deduplicate.treshold: unknown key. Did you mean 'threshold'? "
         "Allowed: threshold, ngram, num_bands, rows_per_band, max_task_mb."),
        ("pretrain.checkpoint.every_step=5", "pretrain.checkpoint.every_step: unknown key. Did you mean 'every_steps'? "
         "Allowed: every_steps, keep_last, best_by, save_model."),
        ("pretrain.objective.mask_shar=0.2", "pretrain.objective.mask_shar: unknown key. Did you mean 'mask_share'? "
         "Allowed: type, mask_share"),
        ("serve.record.zzz=1", "serve.record.zzz: unknown key. Allowed: enabled, max_rows, "),
        ("seed=-1", "seed: input should be greater than or equal to 0, got -1."),
        ("seed=many", "seed: input should be a valid integer, unable to parse string as an integer, got 'many'."),
        ("pretrain.max_steps=1.5", "pretrain.max_steps: input should be a valid integer, got a number with a fractional "
         "part, got 1.5."),
        ("pretrain.optimizer=adam", "pretrain.optimizer: give a mapping of keys, got 'adam'."),
        ("monitor=null", "monitor: give a mapping of keys, got None."),
        ("prepare.filters=length", "prepare.filters: give a list, got 'length'."),
        ("tune={search: 3}", "tune.search: give a mapping, got 3."),
        ("name=2024", "name: input should be a valid string, got 2024; quote it if it is text (on the command line inside "
         "other quotes)."),
        ("prepare.filters=[{type: language, languages: [no]}]", "prepare.filters.0.languages.0: input should be a valid "
         "string, got False; quote it if"),
        ("prepare.source.path=2024-11-01", "prepare.source.path: input should be a valid string, got "
         "datetime.date(2024, 11, 1); quote it if"),
        ("prepare.tokenizer.type=unigram", "prepare.tokenizer.type: input should be 'bpe' or 'wordpiece', got 'unigram'."),
        ("prepare.source.txt_unit=page", "prepare.source.txt_unit: input should be 'file', 'paragraph' or 'line',"),
        ("pretrain.max_steps=yes", "pretrain.max_steps: give a number, got True."),
        ("pretrain.ema_decay=off", "pretrain.ema_decay: give a number, got False."),
        ("finetune.labels_per_class=on", "finetune.labels_per_class: give a number, got True."),
        ("pretrain.precision=fp8", "pretrain.precision: input should be 'auto', 'fp32' or 'bf16', got 'fp8'."),
        ("pretrain.model.preset=[bert-tiny]", "pretrain.model.preset: input should be a valid string, got ['bert-tiny']."),
        ("pretrain.model.width=30", "pretrain.model: num_heads must divide width, got 4 heads for width 30."),
        ("prepare.split.test=0.95", "prepare.split: validation + test must stay below 1, got 1.0."),
        ("serve.min_replicas=3", "serve: max_replicas must be at least min_replicas, got 1 < 3."),
        ("serve.port=80000", "serve.port: input should be less than or equal to 65535, got 80000."),
        ("name=a/b", "name: a name is letters, digits, '.', '_' and '-', got 'a/b'."),
        ("prepare=null", "prepare: give a mapping of keys, got None."),
        ("pretrain.objective=brt", "pretrain.objective: Unknown objective 'brt'. Did you mean 'bert'? Choose from bert, "
         "contrastive_text, gpt, mae, simclr, or give `module:Class`."),
        ("pretrain.objective={mask_share: 0.1}", "pretrain.objective: `type:` is missing. Choose from bert, "
         "contrastive_text, gpt, mae, simclr, or `module:Class`."),
        ("pretrain.objective=3", "pretrain.objective: give a name, or a mapping with `type:`, got 3."),
        ("prepare.source.type=nowhere:Mine", "prepare.source: Unknown source 'nowhere:Mine': no module 'nowhere' on the "
         "Python path."),
        ("prepare.source={type: 'tests.test_config:Odd'}", "prepare.source: the `Config` of 'tests.test_config:Odd' has "
         "to be a raysl.config.PluginConfig (see CONTRIBUTING.md)."),
        ("prepare.source.type=json:Mine", "prepare.source: Unknown source 'json:Mine': module 'json' has no 'Mine'."),
        ("prepare.source.type=:Mine", "prepare.source: Unknown source ':Mine'. Choose from digits, files, images, "
         "interactions, python_docs, or give `module:Class`."),
    ],
)  # fmt: skip
def test_mistake_is_one_line(smallest_yaml: Path, override: str, line: str) -> None:
    lines = refused(smallest_yaml, override)
    assert len(lines) == 1
    assert lines[0].startswith(line)


def test_every_mistake_has_its_line(smallest_yaml: Path) -> None:
    lines = refused(smallest_yaml, "seed=x", "pretrain.max_step=3", "serve.tasks=[classfy]")
    assert [line.split(":")[0] for line in lines] == ["seed", "pretrain.max_step", "serve.tasks.0"]


def test_missing_key_is_named(smallest_yaml: Path) -> None:
    smallest_yaml.write_text("name: x\nprepare: {source: {type: files, path: y}}\npretrain: {objective: bert}\n")
    assert refused(smallest_yaml) == ["pretrain.model: this key is needed and missing."]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [a\nseed: 1\n", "line 2, column 5: not valid YAML: expected ',' or ']', but got ':'"),
        ("name: a\n\tseed: 1\n", "line 2, column 1: not valid YAML: found character '\\t' that cannot start any token"),
        ("name: a\nseed: 1\nname: b\n", "line 3, column 1: not valid YAML: the key 'name' stands twice"),
        (
            "a: &a {b: &b {x: 1}, c: &c {<<: *b, x: 2}}\nd: {<<: *c, y: 3, y: 4}\n",
            "line 2, column 19: not valid YAML: the key 'y'",
        ),
        ("split: {from: 2011-06-31}\n", "line 1, column 15: not valid YAML: '2011-06-31': day is out of range for month"),
        ("at: 2011-06-30 25:00:00\n", "line 1, column 5: not valid YAML: '2011-06-30 25:00:00': hour must be in 0..23"),
        ("seed: !!bool x\n", "line 1, column 7: not valid YAML: 'x': 'x'"),
        ("just text\n", ": a config is a mapping of keys to values, got 'just text'"),
        ("", ": a config is a mapping of keys to values, got None"),
    ],
)
def test_yaml_that_does_not_parse_names_the_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        run_config.load(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_key_may_replace_one_that_a_merge_brings(tmp_path: Path) -> None:
    path = tmp_path / "merged.yaml"
    path.write_text("a:\n  b: &b {steps: 1}\n  c: &c {<<: *b, steps: 2}\nd: {<<: *c, rate: 3}\n")
    assert base.read_yaml(path) == {"a": {"b": {"steps": 1}, "c": {"steps": 2}}, "d": {"steps": 2, "rate": 3}}


def test_file_that_is_not_there_or_not_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Cannot read the config .*absent\.yaml.*No such file"):
        run_config.load(tmp_path / "absent.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"Cannot read the config .*binary\.yaml"):
        run_config.load(tmp_path / "binary.yaml")
    with pytest.raises(ConfigError, match="Cannot read the config"):
        run_config.load(tmp_path)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "'seed' is no override. Write key=value, for example pretrain.max_steps=100."),
        ("=3", "'=3' is no override"),
        ("seed=[1", "'seed=[1': the value is not valid YAML: expected ',' or ']', but got '<stream end>'. Quote it."),
        ("name=2011-06-31", "the value is not valid YAML: '2011-06-31': day is out of range for month. Quote it."),
        ("prepare.source={type: files, path: a, path: b}", "the value is not valid YAML: the key 'path' stands twice."),
        ("seed.x=1", "'seed.x=1': 'seed' holds a single value, no keys."),
        ("serve.tasks.4=embed", "'serve.tasks.4=embed': '4' is no place in a list of 1."),
    ],
)
def test_override_that_cannot_be_applied_says_why(smallest_yaml: Path, override: str, message: str) -> None:
    assert message in refused(smallest_yaml, "seed=1", override)[0]


def test_overrides_reach_every_depth(smallest_yaml: Path) -> None:
    config = run_config.load(
        smallest_yaml, ["seed=7", "pretrain.compile=yes", "pretrain.optimizer.learning_rate=1e-4",
                        "pretrain.objective.mask_share=0.3", "serve.tasks.0=embed"]
    )  # fmt: skip
    assert config.seed == 7
    assert config.training.compile
    assert config.pretrain.optimizer.learning_rate == 1e-4  # PyYAML reads 1e-4 as text
    assert config.pretrain.objective.model_dump()["mask_share"] == 0.3
    assert config.serve is not None
    assert config.serve.tasks[0].type == "embed"


def test_a_new_preset_fills_what_the_old_one_filled(smallest_yaml: Path, tmp_path: Path) -> None:
    given = ["pretrain.model={type: bert, preset: bert-tiny, context_length: 64}"]
    (tmp_path / "again.yaml").write_text(base.dump(run_config.load(smallest_yaml, given)), encoding="utf-8")
    new = "pretrain.model.preset=bert-base"
    for overrides, layers in (([new], 12), (["pretrain.model.num_layers=2", new], 2)):  # the 2 is said here, so it stays
        model = vars(run_config.load(tmp_path / "again.yaml", overrides).training.model)
        assert (model["width"], model["num_layers"], model["context_length"]) == (768, layers, 64)


def test_a_path_may_begin_at_home(smallest_yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ray")
    given = ["run_dir", "prepare.source.path", "prepare.tokenizer.path", "pretrain.init_from", "pretrain.feed.shards",
             "pretrain.feed.cache_dir"]  # fmt: skip
    config = run_config.load(smallest_yaml, [f"{key}=~/{key}" for key in given]).model_dump()
    for key in given:
        value = functools.reduce(lambda data, name: data[name], key.split("."), config)
        assert value == f"/home/ray/{key}"
    assert run_config.load(smallest_yaml, ["prepare.source.path=~notes"]).prepare.source.model_dump()["path"] == "~notes"


def test_config_cannot_change(smallest_yaml: Path) -> None:
    config = run_config.load(smallest_yaml)
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3  # type: ignore[misc]


def test_written_config_repeats_the_run(smallest_yaml: Path, tmp_path: Path) -> None:
    config = run_config.load(smallest_yaml, ["pretrain.optimizer.learning_rate=3e-4"])
    (tmp_path / "again.yaml").write_text(base.dump(config), encoding="utf-8")
    assert run_config.load(tmp_path / "again.yaml") == config


def test_section_that_a_command_needs_is_named(smallest_yaml: Path) -> None:
    config = run_config.load(smallest_yaml, ["release=null"])
    with pytest.raises(ConfigError, match=r"run 'smallest' has no section `release:`"):
        run_config.needed(config, "release")


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
nested = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    key=st.sampled_from(["seed", "prepare", "prepare.source", "prepare.filters", "pretrain.model", "serve.tasks", "x"]),
    value=nested,
)
def test_any_value_is_taken_or_refused_with_lines(smallest_yaml: Path, key: str, value: Any) -> None:
    override = f"{key}={yaml.safe_dump(value, default_flow_style=True, allow_unicode=True)}"
    with contextlib.suppress(ConfigError):  # anything else that rises is a fault
        run_config.load(smallest_yaml, [override])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=60))
def test_any_text_as_yaml_is_refused_with_a_message(tmp_path: Path, text: str) -> None:
    path = tmp_path / "any.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ConfigError):
        run_config.load(path)
