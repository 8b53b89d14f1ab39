"""`prepare` on a real Ray cluster: what it leaves behind, and that it is the same after every interruption."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from ray._private import state
from ray._private.ray_constants import DEFAULT_DASHBOARD_AGENT_LISTEN_PORT
from tokenizers import Tokenizer

from raysl import cluster, schema, storage
from raysl.data.dedup import add_to_index, deduplicate_against
from raysl.data.pipeline import prepare
from raysl.data.shards import TokenRows, open_shard
from raysl.data.sources import BadRows, Files, Partition
from raysl.data.sources.base import Row
from raysl.data.text_recipe import TextRecipe
from raysl.errors import ConfigError, DataError
from raysl.stage import Manifest, read_manifest
from tests.data.corpus import NUM_BASE, make_config, make_rows

pytestmark = pytest.mark.ray

DRIVER = """
import sys
from raysl import cluster
from raysl.data.pipeline import prepare
from raysl.run_config import load
cluster.connect(num_cpus=int(sys.argv[2]))
print("made", prepare(load(sys.argv[1])).content_hash)
"""


@pytest.fixture(scope="module")
def prepared(ray_cluster: Path) -> tuple[Path, Manifest]:
    config = make_config(ray_cluster)
    return config.folder / "prepare", prepare(config)


def documents_of(folder: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in sorted((folder / "documents").glob("*.parquet")))


def test_every_document_is_kept_or_named_with_a_reason(prepared: tuple[Path, Manifest]) -> None:
    folder, manifest = prepared
    assert manifest.counts["documents_in"] == len(make_rows()) + 2
    assert manifest.counts["dropped"] == {
        "broken_line": 1, "exact_duplicate": 20, "missing_text": 1, "near_duplicate": 20, "too_short": 12,
    }  # fmt: skip
    assert manifest.counts["kept"] == NUM_BASE
    removed = pq.read_table(folder / "removed.parquet")
    assert removed.schema.equals(schema.REMOVED)
    assert len(removed) == sum(manifest.counts["dropped"].values())
    by_id = {row["id"]: row for row in removed.to_pylist()}
    assert by_id["copy3"] == {"id": "copy3", "reason": "exact_duplicate", "kept_id": "base3", "jaccard": 1.0}
    assert by_id["near25"]["kept_id"] == "base25"
    assert by_id["near25"]["jaccard"] == pytest.approx(56 / 58)
    assert by_id["short3"]["kept_id"] is None


def test_documents_keep_their_order_and_clusters_keep_to_one_split(prepared: tuple[Path, Manifest]) -> None:
    documents = documents_of(prepared[0])
    assert documents.schema.equals(schema.DOCUMENT)
    assert documents["id"].to_pylist() == [f"base{n}" for n in range(NUM_BASE)]
    assert documents["text"].to_pylist() == [row["text"] for row in make_rows()[:NUM_BASE]]
    assert set(documents["split"].to_pylist()) == set(schema.SPLITS)


def test_labels_that_disagree_are_reported(prepared: tuple[Path, Manifest]) -> None:
    folder, manifest = prepared
    conflicts = pq.read_table(folder / "label_conflicts.parquet").to_pylist()
    assert manifest.counts["label_conflicts"] == len(conflicts) == 20
    assert conflicts[1] == {"id": "base1", "label": "topic1", "labels": ["topic1", "other"]}


def test_token_shards_hold_each_document_and_a_separator(prepared: tuple[Path, Manifest]) -> None:
    folder, manifest = prepared
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert [tokenizer.id_to_token(n) for n in range(5)] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    documents = documents_of(folder)
    for split in schema.SPLITS:
        texts = documents.filter(pc.equal(documents["split"], split))["text"].to_pylist()
        rows = TokenRows(folder / "tokens" / split, "documents", 64)
        assert len(rows) == len(texts)
        assert rows.row(0).tolist() == [*tokenizer.encode(texts[0], add_special_tokens=False).ids, 3]
        assert tokenizer.decode(rows.row(0)[:-1].tolist()).strip() == texts[0]
    for path in (folder / "tokens").rglob("*.arrow"):
        assert open_shard(path).batch.schema.equals(schema.TOKENIZED)
    counted = sum(len(open_shard(path).values) for path in (folder / "tokens" / "train").glob("*.arrow"))
    assert manifest.counts["tokens"]["train"] == counted


def test_report_shows_examples_and_rates(prepared: tuple[Path, Manifest]) -> None:
    report = storage.read_json(prepared[0] / "report.json")
    assert len(report["examples"]["near_duplicate"]) == 10
    assert all(example["text"].startswith("word") for example in report["examples"]["near_duplicate"])
    assert report["drop_rates"]["too_short"] == pytest.approx(12 / 294)
    assert report["labels"]["topic0"] == 60
    assert report["token_statistics"]["bytes_per_token"] > 1
    assert report["token_statistics"]["unknown_rate"] == 0
    assert set(report["usage"]) == {"clean", "deduplicate", "plan", "tokenizer", "tokenize"}


def test_a_finished_stage_is_skipped_and_another_config_refused(ray_cluster: Path, prepared: tuple[Path, Manifest]) -> None:
    before = (prepared[0] / "manifest.json").stat().st_mtime_ns
    assert prepare(make_config(ray_cluster)).content_hash == prepared[1].content_hash
    assert (prepared[0] / "manifest.json").stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match="vocab_size: 400 -> 500"):
        prepare(make_config(ray_cluster, tokenizer={"vocab_size": 500}))
    assert documents_of(prepared[0]).num_rows == NUM_BASE


def test_made_again_it_has_the_same_bytes(ray_cluster: Path, prepared: tuple[Path, Manifest]) -> None:
    again = prepare(make_config(ray_cluster), redo=True)
    assert again.files == prepared[1].files
    assert not (prepared[0] / "work").exists()


def test_a_cluster_of_our_own_runs_the_tasks_and_no_process_that_a_shared_one_needs(
    prepared: tuple[Path, Manifest],
) -> None:
    assert cluster.own()
    assert not state.actors()
    running = " ".join(command(pid) for pid in descendants(os.getpid()))
    assert "raylet" in running
    assert not [name for name in ("dashboard.py", "monitor.py", "_StatsActor", "Coordinator") if name in running]
    assert f"--listen-port={DEFAULT_DASHBOARD_AGENT_LISTEN_PORT}" not in running  # a second cluster would wait for it


def test_new_rows_are_compared_with_the_kept_ones(ray_cluster: Path) -> None:
    config = make_config(ray_cluster / "update")
    prepare(config)
    index = config.folder / "prepare" / "dedup_index"
    old = make_rows()
    new = pa.table(
        {
            "id": ["again", "fresh", "fresh twin"],
            "text": [f"{old[5]['text']} again", "something new entirely " * 3, "Something new, entirely! " * 3],
            "label": pa.array([None, "topic1", None], pa.string()),
        }
    )
    found = deduplicate_against(index, new)
    assert found.kept["id"].to_pylist() == ["fresh"]
    assert [(row["id"], row["kept_id"]) for row in found.removed.to_pylist()] == [
        ("again", "base5"),
        ("fresh twin", "fresh"),
    ]
    add_to_index(index, found.kept)
    assert deduplicate_against(index, new).kept.num_rows == 0


@pytest.mark.parametrize(
    ("prepare_section", "message"),
    [
        (
            {"filters": [{"type": "length", "min_chars": 10**5}]},
            "nothing is left of 294 documents; most were dropped as 'too_short'",
        ),
        ({"max_bad_share": 0.001}, "2 of 294 rows cannot be used .*broken_line 1"),
    ],
    ids=["all filtered", "mostly bad"],
)
def test_a_run_that_leaves_nothing_says_why(ray_cluster: Path, prepare_section: dict[str, object], message: str) -> None:
    config = make_config(ray_cluster / "nothing", **prepare_section)
    storage.remove(config.folder)
    with pytest.raises(DataError, match=message):
        prepare(config)
    assert read_manifest(config.folder, "prepare") is None


class Deadly(Files):
    """A source whose second partition kills the process that reads it."""

    def rows(self, partition: Partition, bad: BadRows) -> Iterator[Row]:
        if partition[0][0] == "part1.jsonl":
            os.kill(os.getpid(), signal.SIGKILL)
        yield from super().rows(partition, bad)


def test_a_unit_that_kills_every_worker_ends_in_an_error(ray_cluster: Path) -> None:
    (ray_cluster / "deadly").mkdir()
    make_config(ray_cluster / "deadly")
    source = {"type": "tests.data.test_pipeline:Deadly", "path": str(ray_cluster / "deadly" / "corpus")}
    config = make_config(ray_cluster / "deadly", source=source)
    with pytest.raises(Exception, match=r"died|crashed"):
        prepare(config)
    assert (config.folder / "prepare" / "work" / "clean-00000").is_dir()


def test_work_on_other_partitions_of_the_same_source_is_made_again(
    ray_cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[bool] = []

    def stop(recipe: TextRecipe, partitions: object) -> None:
        found.append((recipe.folder / "unit").exists())
        (recipe.folder / "unit").touch()
        raise InterruptedError

    (ray_cluster / "division").mkdir()
    config = make_config(ray_cluster / "division")
    monkeypatch.setattr(TextRecipe, "run", stop)
    first, second, *rest = Files(config.prepare.source).partitions(config.prepare.partition_mb)
    for partitions in ([first, second, *rest], [first, second, *rest], [first + second, *rest]):
        monkeypatch.setattr(Files, "partitions", lambda *_, given=partitions: given)
        with pytest.raises(InterruptedError):
            prepare(config)
    assert found == [False, True, False]


def start(folder: Path, num_cpus: int = 2, **prepare_section: object) -> subprocess.Popen[str]:
    make_config(folder, **prepare_section)
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(folder / "config.yaml"), str(num_cpus)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip


def finished(process: subprocess.Popen[str]) -> str:
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]
    return next(line for line in output.splitlines() if line.startswith("made ")).removeprefix("made ")  # Ray prints too


def kill_when(process: subprocess.Popen[str], path: Path) -> None:
    """Waits until `path` is there, then kills the driver: no handler runs."""
    deadline = time.monotonic() + 240
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    assert process.poll() is None, f"over before {path.name} was there: {process.communicate()[1][-3000:]}"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)


def test_same_bytes_with_one_worker_and_after_kills_of_the_driver_in_every_step(
    prepared: tuple[Path, Manifest], tmp_path: Path
) -> None:
    copy_corpus(prepared, tmp_path)
    folder = tmp_path / "run" / "prepare"
    for number, first in enumerate(
        ["work/clean-00001", "work/plan/stats-00000.json", "tokenizer.json", "work/tokens-00001.stats.json"]
    ):
        kill_when(start(tmp_path, num_cpus=1 + number % 2), folder / first)
        assert read_manifest(tmp_path / "run", "prepare") is None
    assert finished(start(tmp_path, num_cpus=1)) == prepared[1].content_hash
    assert not list(folder.rglob(".*.tmp"))


def copy_corpus(prepared: tuple[Path, Manifest], folder: Path) -> None:
    """The same files, made at the same time, at another place."""
    shutil.copytree(prepared[0].parents[1] / "corpus", folder / "corpus")


MANY_TASKS = {"deduplicate": {"max_task_mb": 0.03}}
"""240 documents do not fit one task: their keys are divided among a dozen."""


def test_same_bytes_when_keys_are_divided_among_tasks_and_only_what_was_in_flight_is_done_again(
    prepared: tuple[Path, Manifest], tmp_path: Path
) -> None:
    copy_corpus(prepared, tmp_path)
    keyed = tmp_path / "run" / "prepare" / "work" / "keyed"
    kill_when(start(tmp_path, **MANY_TASKS), keyed / "part-00003")
    made = inodes(keyed)
    assert {"scattered-00000.arrow", "part-00003"} <= made.keys()
    process = start(tmp_path, **MANY_TASKS)
    while not (keyed / "compared-00000").exists() and process.poll() is None:
        time.sleep(0.002)
    assert made.items() <= inodes(keyed).items()
    finished(process)
    manifest = read_manifest(tmp_path / "run", "prepare")
    assert manifest is not None
    assert manifest.files == prepared[1].files
    assert not keyed.exists()


def inodes(folder: Path) -> dict[str, int]:
    """A file or folder that is made again has another number."""
    return {path.name: path.stat().st_ino for path in folder.glob("[!.]*")}


@pytest.mark.parametrize(
    ("section", "at_work", "over"),
    [({}, ".clean-*", "plan"), (MANY_TASKS, "keyed/*", "tokens-00000.stats.json")],
    ids=["cleaning", "keys"],
)
def test_a_killed_worker_costs_one_unit(
    section: dict[str, object], at_work: str, over: str, prepared: tuple[Path, Manifest], tmp_path: Path
) -> None:
    copy_corpus(prepared, tmp_path)
    process = start(tmp_path, **section)
    work, killed = tmp_path / "run" / "prepare" / "work", set[int]()
    while process.poll() is None and not (work / over).exists() and len(killed) < 2:
        if list(work.glob(at_work)):  # a task is at work
            for pid in descendants(process.pid):
                if "ray::Map" in command(pid) and len(killed) < 2:
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)
        time.sleep(0.002)
    assert killed
    finished(process)
    manifest = read_manifest(tmp_path / "run", "prepare")
    assert manifest is not None
    assert manifest.files == prepared[1].files


def descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:  # the thread has ended meanwhile
            continue
        for child in children:
            found += [int(child), *descendants(int(child))]
    return found


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
