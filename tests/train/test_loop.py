"""The loop: what it learns, and that neither workers, micro-batches nor a stop in between change it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from raysl.data.shards import TokenRows
from raysl.errors import ConfigError
from raysl.train import record
from raysl.train.batches import StepBatches, uniform_for
from raysl.train.loop import Trainer
from raysl.train.optimizers import rate_share
from raysl.train.record import RowRecord
from raysl.train.world import World, single
from tests.loop_runs import config_of, loop_shards, objective_of, trainer_of, weights
from tests.ranks import in_ranks


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return loop_shards(tmp_path_factory.mktemp("shards"))


@pytest.mark.parametrize("kind", ["gpt", "bert", "contrastive_text"])
def test_loss_falls(shards: Path, kind: str) -> None:
    losses: list[float] = []
    config = config_of(kind, max_steps=150, global_batch_size=32, optimizer={"learning_rate": 0.01})
    trainer_of(shards, kind, config, single("cpu"), report=lambda m: losses.append(m["loss"])).run()
    assert np.mean(losses[-5:]) < 0.8 * losses[0]


def test_weights_that_the_loss_does_not_reach_are_named_where_others_wait_for_their_gradient(
    shards: Path, tmp_path: Path
) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        for world in (single("cpu"), World(0, 2, torch.device("cpu"))):
            objective = objective_of("gpt")
            objective.encoder.pool_weight.requires_grad_(True)
            rows = TokenRows(shards, objective.row_kind, objective.row_length)
            trainer = Trainer(objective, rows, None, config_of("gpt"), seed=3, world=world)
            if world.size == 1:
                trainer.run()
                continue
            with pytest.raises(ConfigError, match=r"'gpt' does not reach encoder\.pool_weight\.weight \(1 of .*leave_out"):
                trainer.run()
    finally:
        dist.destroy_process_group()


def gradients(trainer: Trainer) -> list[torch.Tensor]:
    """Those of the only step of a run, as the optimizer gets them."""
    trainer.optimizer.step = trainer.optimizer.zero_grad = lambda *_, **__: None  # keep the gradients of the step
    trainer.run()
    return [p.grad.clone() for p in trainer.objective.parameters() if p.grad is not None]


ONE_STEP = {"max_steps": 1, "optimizer": {"max_gradient_norm": 1e9}, "checkpoint": {"every_steps": 100}}


@pytest.mark.parametrize("kind", ["gpt", "bert"])
def test_micro_batches_give_the_gradient_of_the_whole_batch(shards: Path, kind: str) -> None:
    """Target counts differ between micro-batches, so a mean of means would be wrong; 12 rows in 5 parts are uneven."""
    one = gradients(trainer_of(shards, kind, config_of(kind, **ONE_STEP), single("cpu")))
    five = gradients(trainer_of(shards, kind, config_of(kind, **ONE_STEP, accumulation_steps=5), single("cpu")))
    for first, second in zip(one, five, strict=True):
        torch.testing.assert_close(first, second, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("parts", [1, 5])
def test_the_gradient_is_clipped_once_by_its_global_norm(shards: Path, parts: int) -> None:
    config = config_of("bert", **CLIPPED, accumulation_steps=parts)
    check_clipped(shards, [gradients(trainer_of(shards, "bert", config, single("cpu")))])


def check_clipped(shards: Path, found: Sequence[Sequence[torch.Tensor]]) -> None:
    """That each of `found` is the whole batch's gradient, made 0.1 long."""
    free = gradients(trainer_of(shards, "bert", config_of("bert", **ONE_STEP), single("cpu")))
    norm = float(torch.cat([gradient.flatten() for gradient in free]).norm())
    assert norm > 0.2
    for clipped in found:
        for first, second in zip(free, clipped, strict=True):
            torch.testing.assert_close(first * 0.1 / norm, second, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("parts", [1, 4])
def test_each_step_takes_the_rate_of_the_global_batch_and_says_so(shards: Path, parts: int) -> None:
    """Check 8: 12 rows where 4 are meant, so three times the rate; counted in optimizer steps, lowest at the last."""
    optimizer = {"learning_rate": 1e-3, "scale": "linear", "reference_batch_size": 4, "min_learning_rate_share": 0.1}
    config = config_of("gpt", accumulation_steps=parts, optimizer=optimizer)
    logged: list[dict[str, float]] = []
    trainer = trainer_of(shards, "gpt", config, single("cpu"), report=logged.append)
    used: list[float] = []
    step = trainer.optimizer.step

    def note() -> None:
        (rate,) = {group["lr"] for group in trainer.optimizer.param_groups}
        used.append(rate)
        step()

    trainer.optimizer.step = note
    trainer.run()
    assert used == pytest.approx([3e-3 * rate_share(place, 6, config.optimizer) for place in range(6)])
    assert used[-1] == pytest.approx(3e-4)
    assert columns(logged, "learning_rate")["learning_rate"] == pytest.approx(used)


@pytest.mark.parametrize("kind", ["gpt", "bert"])
def test_micro_batches_log_the_loss_of_the_whole_batch(shards: Path, kind: str) -> None:
    losses: dict[int, list[float]] = {1: [], 5: []}
    for parts, found in losses.items():
        config = config_of(kind, **ONE_STEP, accumulation_steps=parts)
        trainer_of(shards, kind, config, single("cpu"), report=lambda m, found=found: found.append(m["loss"])).run()
    assert losses[5] == pytest.approx(losses[1], abs=1e-6)


@dataclass(frozen=True)
class Plan:
    """One run that ranks do together; `name` is the folder of its checkpoints and of the rows that each rank wrote down."""

    name: str
    kind: str
    settings: dict[str, object] = field(default_factory=dict)
    stop_at: int = 0


FIVE_STEPS = {"max_steps": 20, "checkpoint": {"every_steps": 5}}
FIVE_PARTS = {**ONE_STEP, "accumulation_steps": 5}
CLIPPED = {**ONE_STEP, "optimizer": {"max_gradient_norm": 0.1}}
GROWING = {"optimizer": {"scale": "linear", "reference_batch_size": 4, "max_gradient_norm": 0.1}}
"""A rate that depends on the global batch, and gradients that are cut."""
TWO_RANKS = (
    Plan("contrast", "contrastive_text"),
    Plan("bert", "bert"),
    Plan("gpt parts", "gpt", FIVE_PARTS),
    Plan("bert parts", "bert", FIVE_PARTS),
    Plan("clipped parts", "bert", {**CLIPPED, "accumulation_steps": 5}),
    Plan("growing parts", "bert", {**GROWING, "accumulation_steps": 5}),
    Plan("whole", "bert", FIVE_STEPS),
    Plan("2 then 2", "bert", FIVE_STEPS, stop_at=7),
    Plan("2 then 2", "bert", FIVE_STEPS),
    Plan("2 then 1", "bert", FIVE_STEPS, stop_at=7),
    Plan("1 then 2", "bert", FIVE_STEPS),
)
THREE_RANKS = (Plan("contrast", "contrastive_text"),)


class Stop(Exception):
    """The end of a run that is cut off."""


def columns(logged: Sequence[dict[str, float]], *names: str) -> dict[str, list[float]]:
    return {name: [numbers[name] for numbers in logged] for name in names}


def carry_out(plan: Plan, shards: Path, folder: Path, world: World) -> None:
    """Runs a plan on this rank, on from its newest checkpoint, and keeps what came out as <name>.<rank>."""
    config = config_of(plan.kind, **plan.settings)
    trainer = trainer_of(shards, plan.kind, config, world, checkpoints=folder / plan.name)
    logged: list[dict[str, float]] = []
    trainer.report = logged.append
    seeds: list[int] = []
    rows = RowRecord(folder / f"{plan.name} rows", trainer.step, world.rank, world.size)

    def note(step: int, numbers: Sequence[int]) -> None:
        rows(step, numbers)
        seeds.append(torch.initial_seed())
        if step == plan.stop_at:
            raise Stop

    trainer.record = note
    if plan.settings.get("max_steps") == 1:
        found: object = gradients(trainer)
    elif plan.stop_at:
        with pytest.raises(Stop):
            trainer.run()
        return
    else:
        trainer.run()
        found = {"weights": weights(trainer), "seeds": seeds, **columns(logged, "loss", "learning_rate")}
    torch.save(found, folder / f"{plan.name}.{world.rank}")


def _rank(rank: int, size: int, plans: Sequence[Plan], shards: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store-{size}", rank=rank, world_size=size)
    for plan in plans:
        carry_out(plan, shards, folder, World(rank, size, torch.device("cpu")))
        dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_ranks(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes did together; a process costs seconds to start, so all plans share them."""
    folder = tmp_path_factory.mktemp("two")
    carry_out(Plan("1 then 2", "bert", FIVE_STEPS, stop_at=7), shards, folder, single("cpu"))
    in_ranks(_rank, 2, 2, TWO_RANKS, shards, folder)
    carry_out(Plan("2 then 1", "bert", FIVE_STEPS), shards, folder, single("cpu"))
    return folder


@pytest.fixture(scope="module")
def three_ranks(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("three")
    in_ranks(_rank, 3, 3, THREE_RANKS, shards, folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind", "ranks"), [
    ("contrast", "contrastive_text", "two_ranks"), ("contrast", "contrastive_text", "three_ranks"),
    ("bert", "bert", "two_ranks"),
])  # fmt: skip
def test_several_ranks_train_as_one_process_with_the_whole_batch(
    shards: Path, name: str, kind: str, ranks: str, request: pytest.FixtureRequest
) -> None:
    """Six steps: same losses and same weights. A gather without gradient keeps the loss and fails the weights."""
    together = torch.load(request.getfixturevalue(ranks) / f"{name}.0")
    alone_losses: list[float] = []
    alone = trainer_of(shards, kind, config_of(kind), single("cpu"), report=lambda m: alone_losses.append(m["loss"]))
    alone.run()
    assert together["loss"] == pytest.approx(alone_losses, abs=2e-5)
    torch.testing.assert_close(together["weights"], weights(alone), atol=2e-4, rtol=1e-3)


@pytest.mark.slow
def test_micro_batches_on_two_ranks_log_the_loss_and_take_the_rates_of_one_process(shards: Path, two_ranks: Path) -> None:
    logged: list[dict[str, float]] = []
    alone = trainer_of(shards, "bert", config_of("bert", **GROWING), single("cpu"), report=logged.append)
    alone.run()
    together = torch.load(two_ranks / "growing parts.0")
    for name, expected in columns(logged, "loss", "learning_rate").items():
        assert together[name] == pytest.approx(expected, abs=2e-5, rel=1e-5)
    torch.testing.assert_close(together["weights"], weights(alone), atol=2e-4, rtol=1e-3)


@pytest.mark.slow
def test_two_ranks_draw_their_dropout_apart_at_every_step(two_ranks: Path) -> None:
    seeds = [seed for rank in range(2) for seed in torch.load(two_ranks / f"bert.{rank}")["seeds"]]
    assert len(seeds) == len(set(seeds)) == 12


@pytest.mark.slow
def test_two_ranks_clip_the_gradient_of_the_whole_batch(shards: Path, two_ranks: Path) -> None:
    """Check 8: by the global norm, once, after the average over ranks and all micro-batches."""
    check_clipped(shards, [torch.load(two_ranks / f"clipped parts.{rank}") for rank in range(2)])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gpt", "bert"])
def test_micro_batches_on_two_ranks_give_the_gradient_of_the_whole_batch(shards: Path, kind: str, two_ranks: Path) -> None:
    """Check 5: uneven target counts between ranks and between the five micro-batches of each, which are uneven too."""
    alone = gradients(trainer_of(shards, kind, config_of(kind, **ONE_STEP), single("cpu")))
    for rank in range(2):
        for first, second in zip(alone, torch.load(two_ranks / f"{kind} parts.{rank}"), strict=True):
            torch.testing.assert_close(first, second, atol=1e-6, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["1 then 2", "2 then 1", "2 then 2"])
def test_a_run_that_is_cut_off_goes_on_with_another_number_of_ranks_and_loses_no_row(
    shards: Path, name: str, two_ranks: Path, tmp_path: Path
) -> None:
    """Check 7, by the rows that each rank wrote down: cut at step 7 of 20, the newest checkpoint is that of step 5."""
    alone = trainer_of(shards, "bert", config_of("bert", **FIVE_STEPS), single("cpu"))
    alone.record = RowRecord(tmp_path, 0, 0, 1)
    alone.run()
    rows = two_ranks / f"{name} rows"
    assert {path.name.split("-")[1] for path in rows.iterdir()} == {"000000000", "000000005"}
    seen = record.read(rows)
    assert seen == record.read(tmp_path)
    in_order = [row for step in sorted(seen) for row in seen[step]]
    epochs = len(in_order) // len(alone.rows)
    assert epochs >= 1
    assert set(np.bincount(in_order, minlength=len(alone.rows)).tolist()) <= {epochs, epochs + 1}


@pytest.mark.slow
def test_two_ranks_that_go_on_end_bit_equal(two_ranks: Path) -> None:
    cut, whole = (torch.load(two_ranks / f"{name}.0")["weights"] for name in ("2 then 2", "whole"))
    assert torch.equal(cut, whole)


RESUMED = [
    ("bert", {"optimizer": {"type": "adamw"}}),
    ("bert", {"optimizer": {"type": "lars", "learning_rate": 1.0}}),
    ("bert", {"optimizer": {"type": "muon"}, "ema_decay": 0.9}),
    ("contrastive_text", {"ema_decay": 0.9}),
]


@pytest.mark.parametrize(("kind", "more"), RESUMED)
def test_a_resumed_run_ends_bit_equal(shards: Path, kind: str, more: dict[str, object], tmp_path: Path) -> None:
    """Dropout, masks and views included: everything is drawn from (seed, step). 97 rows: the stop lies in an epoch."""
    config = config_of(kind, max_steps=7, checkpoint={"every_steps": 4}, **more)
    whole = trainer_of(shards, kind, config, single("cpu"), dropout=0.1, checkpoints=tmp_path / "whole")
    rates: list[float] = []
    whole.report = lambda m: rates.append(m["learning_rate"])
    whole.run()
    cut = trainer_of(shards, kind, config, single("cpu"), dropout=0.1, checkpoints=tmp_path / "cut")
    cut.report = _stop_at(6)
    with pytest.raises(KeyboardInterrupt):
        cut.run()
    again = trainer_of(shards, kind, config, single("cpu"), dropout=0.1, checkpoints=tmp_path / "cut")
    assert again.step == 4
    resumed_rates: list[float] = []
    again.report = lambda m: resumed_rates.append(m["learning_rate"])
    again.run()
    assert torch.equal(weights(whole), weights(again))
    assert resumed_rates == rates[4:]
    assert rates[-1] == pytest.approx(again.peak_rate * config.optimizer.min_learning_rate_share)


def test_a_run_that_measures_between_steps_ends_bit_equal_to_one_that_does_not(shards: Path) -> None:
    """Check 3: measuring leaves no weight, no mode and no random number behind."""
    runs = [
        trainer_of(shards, "bert", config_of("bert", evaluate_every_steps=n), single("cpu"), dropout=0.1) for n in (1, 99)
    ]
    for trainer in runs:
        trainer.held_out = TokenRows(shards, "packed", 16)
        trainer.run()
    assert torch.equal(*(weights(trainer) for trainer in runs))


def test_each_epoch_has_its_own_order_and_ranks_share_no_row(shards: Path) -> None:
    """Check 7, by what the ranks would read: every row once an epoch between them, in a new order."""
    objective = objective_of("bert")
    rows = TokenRows(shards, objective.row_kind, objective.row_length, objective.min_tokens)
    ranks = [StepBatches(objective, rows, 3, 30, 1, rank, 2) for rank in range(2)]
    steps = -(-2 * len(rows) // 30)
    parts = [[rank.build(step).numbers for rank in ranks] for step in range(steps)]
    order = np.concatenate([np.stack(part, axis=1).ravel() for part in parts])
    first, second = order[: len(rows)], order[len(rows) : 2 * len(rows)]
    assert sorted(first) == sorted(second) == list(range(len(rows)))
    assert not np.array_equal(first, second)


def test_views_and_masks_differ_between_ranks_epochs_and_rows(shards: Path) -> None:
    first = uniform_for(3, 0, 8, np.arange(0, 8, 2))(4)
    second = uniform_for(3, 0, 8, np.arange(1, 8, 2))(4)
    later = uniform_for(3, 50, 8, np.arange(0, 8, 2))(4)
    numbers = np.concatenate([first, second, later])
    assert len(np.unique(numbers)) == numbers.size


@pytest.mark.parametrize(("world_size", "count"), [(1, 3), (2, 3), (4, 2000)])
def test_random_numbers_of_a_row_are_the_same_on_any_number_of_workers(world_size: int, count: int) -> None:
    """Few that are not a rank's are drawn and left, many are stepped over."""
    whole = uniform_for(3, 1, 9, np.arange(9))
    expected = [whole(count), whole(2)]
    for rank in range(world_size):
        for places in (*np.array_split(np.arange(rank, 9, world_size), 2), np.array([rank, 7, 8])):
            own = uniform_for(3, 1, 9, places)
            assert all(np.array_equal(own(numbers.shape[1]), numbers[places]) for numbers in expected)


def _stop_at(step: int):
    def report(metrics: dict[str, float]) -> None:
        if metrics["step"] == step:
            raise KeyboardInterrupt

    return report
