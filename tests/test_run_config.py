"""Mistakes that the YAML alone shows are told when it is read, before `prepare` and before a cluster starts."""

from pathlib import Path

import pytest

from raysl import run_config
from raysl.errors import ConfigError
from raysl.objectives.config import BertConfig

SMOKE = Path(__file__).parents[1] / "configs" / "smoke"


def refused(name: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        run_config.load(SMOKE / f"{name}.yaml", overrides)
    return str(caught.value).removeprefix(f"{SMOKE / name}.yaml: ")


@pytest.mark.parametrize(
    ("name", "overrides", "line"),
    [
        ("gpt", ["pretrain.model={type: bert}"], "pretrain: objective 'gpt' does not train model 'bert'. Choose model gpt."),
        ("bert", ["pretrain.objective=bert", "pretrain.model={type: gpt}"],
         "pretrain: objective 'bert' does not train model 'gpt'. Choose model bert."),
        ("bert", ["pretrain.objective={type: contrastive_text, hidden_words_weight: 0.1}", "pretrain.model={type: gpt}"],
         "pretrain: objective.hidden_words_weight=0.1 needs a model that sees both sides of a word, got model 'gpt'. "
         "Choose model bert, or hidden_words_weight=0."),
        ("mae", ["pretrain.model={type: resnet}"],
         "pretrain: objective 'mae' does not train model 'resnet'. Choose model vit."),
    ],
)  # fmt: skip
def test_an_objective_is_not_given_a_model_that_it_does_not_train(name: str, overrides: list[str], line: str) -> None:
    assert refused(name, *overrides) == line


@pytest.mark.parametrize(
    ("name", "objective", "model"),
    [
        ("bert", "{type: contrastive_text}", "{type: gpt}"),
        ("simclr", "{type: simclr}", "{type: vit, patch_size: 2}"),
    ],
)
def test_an_objective_is_given_any_model_that_it_trains(name: str, objective: str, model: str) -> None:
    run_config.load(SMOKE / f"{name}.yaml", [f"pretrain.objective={objective}", f"pretrain.model={model}"])


def test_a_model_outside_the_catalog_is_looked_at_when_it_is_built() -> None:
    BertConfig().check_model("my_model:Mine")


@pytest.mark.parametrize(
    ("name", "override", "line"),
    [
        ("simclr", "pretrain.accumulation_steps=2", "pretrain: objective 'simclr' compares the rows of a batch with each "
         "other, so a part of it has another loss. Use accumulation_steps=1, and more workers for larger batches, got 2."),
        ("mae", "pretrain.model.patch_size=5", "pretrain.model.patch_size must divide prepare.images.size=8, got 5."),
        ("mae", "pretrain.model.patch_size=16", "pretrain.model.patch_size must divide prepare.images.size=8, got 16."),
        ("mae", "pretrain.model.patch_size=8", "objective 'mae' hides some patches of an image and shows the others: "
         "pretrain.model.patch_size must be smaller than prepare.images.size=8, got 8."),
        ("mae", "pretrain.model.patch_size=1", "objective 'mae' predicts a patch up to its own mean and deviation, and one "
         "grey pixel has none: use pretrain.objective.normalize_target=false, or a pretrain.model.patch_size above 1."),
        ("simclr", "pretrain.probe.source={type: files, path: x.jsonl}",
         "pretrain: probe.source is for text, not for images; leave it out: the labels come from `prepare`."),
        ("bert", "pretrain.probe.source=digits",
         "pretrain: probe.source is for text, not for images; leave it out: the labels come from `prepare`."),
    ],
)  # fmt: skip
def test_what_cannot_work_is_told_at_once(name: str, override: str, line: str) -> None:
    assert refused(name, override) == line


def test_a_grey_pixel_is_predicted_as_it_is() -> None:
    run_config.load(SMOKE / "mae.yaml", ["pretrain.model.patch_size=1", "pretrain.objective.normalize_target=false"])


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("monitor.window_rows=99",
         "monitor: window_rows must be at least min_rows, got 99 < 100: no window would get a verdict."),
        ("serve.record.max_rows=99",
         "serve.record.max_rows must be at least monitor.min_rows, got 99 < 100: no window would get a verdict. To keep no "
         "requests set serve.record.enabled=false."),
    ],
)  # fmt: skip
def test_a_monitor_that_could_not_give_a_verdict_is_refused(override: str, line: str) -> None:
    assert refused("bert", override) == line
    run_config.load(SMOKE / "bert.yaml", [override, "monitor.min_rows=99"])


def test_without_records_their_number_does_not_matter() -> None:
    run_config.load(SMOKE / "bert.yaml", ["serve.record={enabled: false, max_rows: 1}"])


def test_the_config_of_a_run_folder_begins_no_other_run_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "project" / "runs" / "smoke-bert"
    folder.mkdir(parents=True)
    path = folder / "config.yaml"
    path.write_text((SMOKE / "bert.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"relative paths begin at {tmp_path}/project, not at .* or give run_dir={folder}"):
        run_config.load(path)
    assert run_config.load(path, [f"run_dir={folder}"]).folder == folder
    (tmp_path / "link").symlink_to("project")
    monkeypatch.chdir(tmp_path / "project")
    for place in ("runs/smoke-bert/config.yaml", path, tmp_path / "link/runs/smoke-bert/config.yaml"):
        assert run_config.load(place).folder == folder
    (tmp_path / "config.yaml").write_text(path.read_text())  # a YAML of one's own may have that name
    assert run_config.load(tmp_path / "config.yaml").folder == folder


def test_contrast_needs_two_rows() -> None:
    line = refused("bert", "pretrain.global_batch_size=1", "pretrain.num_workers=1")
    assert line.endswith("compares the rows of a batch with each other: global_batch_size must be at least 2, got 1.")


def test_shards_that_lie_elsewhere_have_a_size_of_their_own() -> None:
    run_config.load(SMOKE / "mae.yaml", ["pretrain.model.patch_size=16", "pretrain.feed.shards=/elsewhere"])


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("pretrain.optimizer.betas=[0.9, 1.0]", "pretrain.optimizer.betas.1: input should be less than 1, got 1.0."),
        ("pretrain.optimizer.betas=[-1, 0.9]",
         "pretrain.optimizer.betas.0: input should be greater than or equal to 0, got -1."),
        ("seed=4294967296", "seed: input should be less than 4294967296, got 4294967296."),
        ("pretrain.optimizer.weight_decay=.inf",
         "pretrain.optimizer.weight_decay: input should be a finite number, got inf."),
        ("pretrain.objective.temperature=.inf", "pretrain.objective.temperature: input should be a finite number, got inf."),
        ("tune={search: {pretrain.ema_decay: {log_uniform: [1e-4, .inf]}}}",
         "tune.search.pretrain.ema_decay.log_uniform.1: input should be a finite number, got inf."),
        ("tune={search: {seed: {grid: [1, 2]}}}",
         "tune.search: trials share what `prepare` made with its seed; search keys of pretrain, got 'seed'."),
    ],
)  # fmt: skip
def test_a_value_that_torch_would_refuse_is_refused_here(override: str, line: str) -> None:
    assert refused("bert", override) == line


@pytest.mark.parametrize("value", ["0", "two", "true", "1.5", "null"])
def test_workers_are_a_number_or_a_range(value: str) -> None:
    start = "pretrain.num_workers: give a whole number from 1, or a mapping of `min` and `max`, got "
    line = refused("bert", f"pretrain.num_workers={value}")
    assert line.startswith(start)
    assert len(line.splitlines()) == 1


def test_a_range_of_workers_says_what_is_wrong_in_it() -> None:
    unknown = "pretrain.num_workers.mim: unknown key. Did you mean 'min'? Allowed: min, max."
    assert refused("bert", "pretrain.num_workers={mim: 1}") == unknown
    order = "pretrain.num_workers: min must be at most max, got min 3 and max 2."
    assert refused("bert", "pretrain.num_workers={min: 3, max: 2}") == order


TUNE = "tune={{search: {{pretrain.ema_decay: {{grid: [0.1]}}}}, metric: {}}}"


@pytest.mark.parametrize(
    ("override", "line"),
    [
        (TUNE.format("held_out_los"), "tune.metric: 'held_out_los' is not measured with objective 'gpt'. Choose from "
         "held_out_loss, held_out_next_word, embedding_spread, effective_rank, knn_accuracy."),
        (TUNE.format("knn"), "tune.metric: 'knn' is not measured with objective 'gpt'. Choose from held_out_loss, "
         "held_out_next_word, embedding_spread, effective_rank, knn_accuracy."),
        (TUNE.format("knn_accuracy, mode: min"), "tune.mode: more is better of knn_accuracy, got min; leave it out."),
        (TUNE.format("held_out_next_word, mode: max"),
         "tune.mode: less is better of held_out_next_word, got max; leave it out."),
    ],
)  # fmt: skip
def test_a_search_compares_what_is_measured(override: str, line: str) -> None:
    assert refused("gpt", override) == line


def test_a_part_of_weight_0_is_not_compared_unless_the_search_weighs_it() -> None:
    metric, off = TUNE.format("held_out_hidden_words"), "pretrain.objective.hidden_words_weight=0"
    run_config.load(SMOKE / "bert.yaml", [metric])
    assert refused("bert", metric, off).startswith(
        "tune.metric: 'held_out_hidden_words' is not measured with objective 'contrastive_text'. Choose from held_out_loss, "
        "held_out_contrast, embedding_spread"
    )
    searched = metric.replace("pretrain.ema_decay", "pretrain.objective.hidden_words_weight")
    run_config.load(SMOKE / "bert.yaml", [searched, off])


def test_training_needs_rows_that_are_held_out() -> None:
    line = refused("bert", "prepare.split.validation=0")
    assert line == "prepare.split.validation must be above 0, got 0.0: `pretrain` measures its held-out loss on these rows."
    run_config.load(SMOKE / "bert.yaml", ["prepare.split.validation=0", "pretrain.feed.shards=/elsewhere"])


def test_a_search_for_accuracy_needs_the_probe() -> None:
    line = refused("bert", TUNE.format("knn_accuracy"), "pretrain.probe=null")
    assert line == "tune.metric=knn_accuracy needs the probe that measures it; leave `pretrain.probe: null` out."


@pytest.mark.parametrize(("metric", "best"), [("held_out_loss", "min"), ("knn_accuracy", "max"), ("effective_rank", "max")])
def test_the_metric_says_whether_less_or_more_is_better(metric: str, best: str) -> None:
    config = run_config.load(SMOKE / "gpt.yaml", [TUNE.format(metric)])
    assert config.tune is not None
    assert config.tune.direction == best


def test_a_model_too_large_to_release_is_refused_before_it_is_trained() -> None:
    assert refused("gpt", "pretrain.model={type: gpt, preset: gpt2-large}") == (
        "pretrain.model has 719 million weights, and at most 402 million can be released. Choose a smaller one, or leave "
        "the section `release:` out to train it."
    )
    run_config.load(SMOKE / "gpt.yaml", ["pretrain.model={type: gpt, preset: gpt2-large}", "release=null", "serve=null"])
    run_config.load(SMOKE / "gpt.yaml", ["pretrain.model={type: gpt, preset: gpt2-medium}"])
