"""Pretraining on Ray Train: workers that die, mistakes that must not be tried again, resources that are not there."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch
from ray._private import state
from ray.train import WorkerGroupError
from safetensors.torch import load_file

from raysl import cluster, stage
from raysl.errors import ConfigError, RayslError, TrainingError
from raysl.models import load
from raysl.run_config import RunConfig
from raysl.train import own_cluster, run, start
from raysl.train.pretrain import pretrain
from tests.tiny_run import make_documents, make_run
from tests.token_shards import random_documents, write_shards

pytestmark = pytest.mark.ray


def config_of(folder: Path, **pretraining: object) -> RunConfig:
    config = make_run(folder, pretrain={
        "objective": {"type": "contrastive_text", "span_length": 4}, "model": {"type": "bert", "num_layers": 1, "width": 16},
        "global_batch_size": 16, "max_steps": 30, "num_workers": 2, "precision": "fp32",
        "checkpoint": {"every_steps": 5}, "log_every_steps": 5, **pretraining,
    })  # fmt: skip
    for split in ("train", "validation"):
        write_shards(folder / "prepare" / "tokens" / split, [random_documents(80), random_documents(40, seed=1)])
    for path in (folder / "pretrain").iterdir():
        path.unlink()
    return config


def weights(config: RunConfig) -> dict[str, torch.Tensor]:
    return load_file(config.folder / "pretrain" / "model.safetensors")


def end_a_worker(how: signal.Signals, moment: Path) -> int:
    """Sends a signal to one training process of this cluster, once a file is there; its id, 0 where there is none."""
    while not moment.exists():
        time.sleep(0.01)
    for process in Path("/proc").iterdir():
        command = process / "cmdline"
        if (
            process.name.isdigit()
            and command.read_bytes().startswith(b"ray::RayTrainWorker")
            and _is_ours(int(process.name))
        ):
            os.kill(int(process.name), how)
            return int(process.name)
    return 0


def _is_ours(pid: int) -> bool:
    """Whether a process descends from this test."""
    while pid > 1:
        if pid == os.getpid():
            return True
        pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    return False


def test_workers_that_are_ended_are_restarted_and_the_weights_are_those_of_a_run_in_one_go(ray_cluster: Path) -> None:
    """One is told to end and saves first, one is killed: two deaths where one restart is allowed without a new checkpoint.

    No checkpoint is due before step 150: what the second start goes on from was saved because of SIGTERM.
    """
    settings = {"max_steps": 300, "evaluate_every_steps": 1000, "checkpoint": {"every_steps": 150}}
    whole = config_of(ray_cluster / "whole", **settings)
    pretrain(whole)
    cut = config_of(ray_cluster / "cut", max_failures=1, **settings)
    moments = {
        cut.folder / "metrics.jsonl": signal.SIGTERM,
        cut.folder / "pretrain" / "checkpoints" / "step-000000150": signal.SIGKILL,
    }
    first, told, killed = starts_of(cut, moments)
    assert first == 0
    assert 0 < told < 150 <= killed < 300
    assert all(torch.equal(weight, weights(cut)[name]) for name, weight in weights(whole).items())


def starts_of(config: RunConfig, moments: Mapping[Path, signal.Signals]) -> list[int]:
    """Steps at which the starts of a run began, one of whose workers gets a signal as soon as each file is there."""
    ended: list[int] = []
    Thread(target=lambda: ended.extend(end_a_worker(how, moment) for moment, how in moments.items()), daemon=True).start()
    messages: list[dict[str, Any]] = []
    assert run.train(config, messages.append)["train_rows"] > 0
    assert len(ended) == len(moments)
    assert 0 not in ended, "no worker was ended"
    found = [message["start"] for message in messages if "start" in message]
    return list(dict.fromkeys(found))  # each start writes the lines of those before it anew


@pytest.mark.parametrize(("goes_on", "attempts"), [(True, 3), (False, 1)])
def test_failures_that_bring_the_training_no_further_end_it(tmp_path: Path, goes_on: bool, attempts: int) -> None:
    done: list[int] = []

    def fit() -> None:
        done.append(1)
        (tmp_path / f"step-{min(len(done), 2):09d}").mkdir(exist_ok=True)
        raise WorkerGroupError("lost", {})

    with pytest.raises(WorkerGroupError):
        run.fit(lambda: SimpleNamespace(fit=fit), tmp_path, goes_on)
    assert len(done) == attempts


def test_paths_in_the_yaml_are_those_of_the_command_on_workers_too(
    ray_cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray gives a worker a current folder of its own."""
    labelled = [{"text": text, "label": label} for text, label in make_documents(12, seed=3)]
    (ray_cluster / "labelled.jsonl").write_text("\n".join(map(json.dumps, labelled)))
    monkeypatch.chdir(ray_cluster)
    source = {"type": "files", "path": "labelled.jsonl", "label_column": "label"}
    config = config_of(ray_cluster / "started", max_steps=5, num_workers=1, init_from="weights", probe={"source": source})
    encoder = load.build(config.training.model, 400)
    start.export(encoder, ray_cluster / "weights", config.folder / "prepare" / "tokenizer.json")
    assert pretrain(config).metrics["knn_rows"] == 12


def test_a_cluster_of_our_own_runs_the_training_and_nothing_that_watches_over_a_shared_one(ray_cluster: Path) -> None:
    assert cluster.own()
    before = set(state.actors())
    run.train(config_of(ray_cluster / "few", max_steps=5), lambda message: None)
    started = [facts["ActorClassName"] for actor, facts in state.actors().items() if actor not in before]
    assert started == ["RayTrainWorker", "RayTrainWorker"]


def test_an_interrupt_ends_the_workers_and_goes_on_to_the_command(ray_cluster: Path) -> None:
    config = config_of(ray_cluster / "interrupted", max_steps=100_000)
    Thread(target=interrupt, args=(config.folder / "metrics.jsonl",), daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run.train(config, lambda message: None)
    workers = [facts for facts in state.actors().values() if facts["ActorClassName"] == "RayTrainWorker"]
    assert workers[-2:]
    assert all(facts["State"] == "DEAD" for facts in workers)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("lost", [False, True])
def test_an_interrupt_is_heard_even_where_python_goes_on_after_errors(lost: bool) -> None:
    class Held:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    async def work() -> None:
        if lost:
            Held()  # what its end raises is reported as ignored
        else:
            Thread(target=lambda: (time.sleep(0.1), os.kill(os.getpid(), signal.SIGINT)), daemon=True).start()
        await asyncio.sleep(60)

    handler, began = signal.getsignal(signal.SIGINT), time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        own_cluster.finish(work())
    assert time.monotonic() - began < 30
    assert signal.getsignal(signal.SIGINT) is handler


def interrupt(moment: Path) -> None:
    """Ctrl-C in the main thread, once a file is there."""
    while not moment.exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)


def test_a_mistake_is_told_once_and_not_tried_again(ray_cluster: Path) -> None:
    config = config_of(ray_cluster / "nan", optimizer={"learning_rate": 1e30}, num_workers={"min": 1, "max": 2})
    with pytest.raises(TrainingError, match=r"pretrain\.optimizer\.learning_rate"):
        pretrain(config)
    assert stage.read_manifest(config.folder, "pretrain") is None


@pytest.mark.parametrize(
    ("kind", "told"), [("StageError", "first. The command found it: nodes of the"), ("DataError", "first.")]
)
def test_a_folder_that_the_nodes_of_a_cluster_do_not_share_is_told(
    kind: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`Run raysl prepare first` alone sends the user to what is done."""
    ended = SimpleNamespace(return_value={"mistake": (kind, "/shared/prepare is not there. Run `raysl prepare` first.")})
    without_ray(monkeypatch, lambda: ended)
    with pytest.raises(RayslError) as caught:
        run.train(config_of(tmp_path, device="cpu"), lambda message: None)
    assert type(caught.value).__name__ == kind
    assert str(caught.value).partition("`raysl prepare` ")[2].startswith(told)


def without_ray(monkeypatch: pytest.MonkeyPatch, fit: Callable[[], Any]) -> None:
    monkeypatch.setattr(run, "TorchTrainer", lambda *_, **__: SimpleNamespace(fit=fit))
    monkeypatch.setattr(run, "_check_resources", lambda *_: None)
    monkeypatch.setattr(cluster, "own", lambda: False)
    monkeypatch.setattr(cluster, "takes_gpus", lambda device: False)


def test_what_a_worker_died_of_is_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fit() -> None:
        raise WorkerGroupError("[Rank 1 Error Snippet]:\nTraceback\n  in forward\nValueError: too large", {})

    without_ray(monkeypatch, fit)
    with pytest.raises(TrainingError, match=r"failed on its workers: ValueError: too large The run's log has the trace"):
        run.train(config_of(tmp_path, device="cpu"), lambda message: None)
    assert "[Rank 1 Error Snippet]:\nTraceback\n  in forward\nValueError: too large" in caplog.text


def test_ctrl_c_after_the_training_is_not_for_ray_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a joined cluster its handler stays: in a later stage it would stop a training that has ended, and nothing else."""
    before = signal.getsignal(signal.SIGINT)

    def fit() -> SimpleNamespace:
        signal.signal(signal.SIGINT, lambda *_: None)
        return SimpleNamespace(return_value={"loss": 1.0})

    without_ray(monkeypatch, fit)
    try:
        run.train(config_of(tmp_path, device="cpu"), lambda message: None)
        assert signal.getsignal(signal.SIGINT) is before
    finally:
        signal.signal(signal.SIGINT, before)


def test_workers_that_the_cluster_cannot_hold_are_refused(ray_cluster: Path) -> None:
    with pytest.raises(ConfigError, match=r"num_workers=9 needs 9 CPUs and the cluster has 2"):
        pretrain(config_of(ray_cluster / "nine", num_workers=9))


def test_large_tensors_of_a_worker_s_thread_come_from_what_it_has_freed(ray_cluster: Path) -> None:
    """200 MB, again and again: after some rounds (glibc cuts its blocks unevenly at first) no page comes from the system."""

    @ray.remote
    def faults() -> list[int]:
        import resource

        import torch

        from raysl.train.memory import keep_freed_memory

        counted = []

        def train() -> None:
            keep_freed_memory()
            for _ in range(24):
                before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
                torch.ones(50_000_000)
                counted.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

        thread = Thread(target=train)
        thread.start()
        thread.join()
        return counted

    rounds = ray.get(faults.remote())
    assert rounds[0] > 40_000
    assert max(rounds[-4:]) < 1_000
