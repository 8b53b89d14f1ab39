"""Limits of `prepare` change no byte of what comes out: the work goes on with others, finished or not."""

from pathlib import Path

import pytest

from raysl.catalog import SOURCES
from raysl.data.pipeline import prepare, stage_of
from raysl.data.steps import WORK
from raysl.run import claim_folder
from raysl.run_config import RunConfig
from raysl.stage import Stage
from tests.data.corpus import make_config

OTHER = {"max_bad_share": 0.9, "deduplicate": {"max_task_mb": 30}}


def stage(config: RunConfig) -> Stage:
    return stage_of(config, SOURCES.load("files")(config.prepare.source))


@pytest.mark.parametrize("earlier", [False, True], ids=["now", "written down by an earlier raysl"])
def test_clean_units_stay_where_only_limits_change(tmp_path: Path, earlier: bool) -> None:
    config, other = make_config(tmp_path, **OTHER), make_config(tmp_path)
    begun = stage(config)
    if earlier:
        given = {"seed": config.seed, "prepare": config.prepare.model_dump(mode="json")}
        begun = Stage(begun.run_folder, "prepare", given, begun.inputs)
    unit = begun.begin() / "work" / "clean-00000"
    unit.mkdir(parents=True)
    for one in (other, config):
        stage(one).begin()
        assert unit.is_dir()
    begun.finish({}, {}, {})
    for one in (config, other):
        claim_folder(one, (), redo=False)
        assert stage(one).done() is not None
    threshold = make_config(tmp_path, deduplicate={"threshold": 0.7})
    assert stage(threshold).done() is None
    stage(threshold).begin()
    assert not unit.exists()


def test_limits_at_their_defaults_leave_the_mark_that_they_always_left(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    assert stage(config).config == {"seed": config.seed, "prepare": config.prepare.model_dump(mode="json")}
    assert stage(config).limits == {("prepare", "max_bad_share"): 0.5, ("prepare", "deduplicate", "max_task_mb"): 1000.0}


def test_work_that_a_kill_left_beside_a_finished_stage_goes(tmp_path: Path) -> None:
    """It is larger than the outputs, and nobody would look for it."""
    config = make_config(tmp_path)
    made = stage(config)
    (made.begin() / WORK / "clean-00000").mkdir(parents=True)
    made.finish({"kept": 7}, {}, {})
    assert prepare(config).counts == {"kept": 7}
    assert not (made.folder / WORK).exists()
