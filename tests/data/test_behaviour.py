"""Events to sequences, without Ray: what goes where, by hand and for any events."""

import pickle
from collections import Counter
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from raysl import schema, storage
from raysl.data.behaviour_recipe import BehaviourRecipe
from raysl.data.clean import STATS
from raysl.data.events import BucketWriter, read_bucket
from raysl.data.sources.interactions import Interactions
from raysl.errors import DataError
from tests.data.behaviour import (
    LocalStep,
    Row,
    held_out,
    make_config,
    prepare_in_pieces,
    prepare_locally,
    sequences,
    tokens_of,
    write_rows,
)

UNKNOWN, SEPARATOR = 1, 3
CUTS = {"split": {"validation_from": "1970-01-01T00:00:08", "test_from": "1970-01-01T00:00:14"}}
FIRST, SECOND = 8, 14


def event(user: str, item: str, time: int, group: str | None = None, text: str | None = None) -> Row:
    return {"user": user, "item": item, "time": time, "group": group, "text": text}


def prepare(folder: Path, rows: list[Row], num_files: int = 1, **options: Any) -> tuple[Path, dict[str, Any]]:
    config = make_config(write_rows(folder / "rows", rows, num_files), folder / "run", **(CUTS | options))
    return config.folder / "prepare", prepare_locally(config)


def test_sequences_follow_time_and_cuts(tmp_path: Path) -> None:
    rows = [event("ann", item, time) for time, item in enumerate("pqrpqrpqrx")] + [event("ann", "p", 20)]
    rows += [event("bob", item, time) for time, item in enumerate("ppp")]  # three train events are too few
    rows += [event("cat", "q", 15)]  # only ever seen after the second cut
    folder, counts = prepare(tmp_path, rows[::-1], min_user_events=4, min_item_events=2)
    token = tokens_of(folder)
    p, q, r = (token[item] for item in "pqr")
    assert [p, q, r, token["x"]] == [5, 6, 7, UNKNOWN]
    assert sequences(folder, "train") == {"ann": [p, q, r, p, q, r, p, q, SEPARATOR]}
    assert sequences(folder, "validation") == {"ann": [r, UNKNOWN, SEPARATOR]}
    assert sequences(folder, "test") == {"ann": [p, SEPARATOR], "cat": [q, SEPARATOR]}
    rows_of = {(row["user"], row["split"]): row for row in held_out(folder)}
    assert rows_of["ann", "validation"]["context"] == [p, q, r, p, q, r, p, q]
    assert rows_of["ann", "validation"]["target_items"] == ["r", "x"]
    assert rows_of["ann", "test"]["context"] == [p, q, r, p, q, r, p, q, r, UNKNOWN]
    assert rows_of["ann", "test"]["target"] == [p]
    assert rows_of["cat", "test"]["context"] == []
    assert set(rows_of) == {("ann", "validation"), ("ann", "test"), ("cat", "test")}
    assert counts["documents_in"] == 15
    assert counts["dropped"] == {"rare_user": 3}
    assert counts["kept"] == 12


def test_a_user_who_is_not_trained_on_keeps_a_history(tmp_path: Path) -> None:
    rows = [event("ann", "p", time) for time in range(5)] + [event("bob", "p", 1), event("bob", "p", 9)]
    folder, _ = prepare(tmp_path, rows, min_item_events=1)
    assert set(sequences(folder, "train")) == {"ann"}
    assert [(row["user"], row["context"], row["target"]) for row in held_out(folder)] == [("bob", [5], [5])]


def test_what_one_group_holds_happens_at_once_and_at_its_latest_time(tmp_path: Path) -> None:
    rows = [event("ann", "p", time) for time in range(6)]
    rows += [event("ann", item, time, "basket") for item, time in (("q", 7), ("r", 9), ("q", 9))]
    folder, counts = prepare(tmp_path, rows, min_item_events=1)
    (row,) = held_out(folder)
    assert sorted(row["target_items"]) == ["q", "r"]  # the basket ends after the cut: none of it is trained on
    assert row["target_groups"] == [6, 6]
    assert len({*row["target_times"]}) == 1
    assert counts["dropped"] == {"exact_repeat": 1}


def test_the_order_inside_a_group_cannot_be_learned(tmp_path: Path) -> None:
    rows = [event(f"user{n}", item, 1, "basket") for n in range(200) for item in "pqrst"]
    rows += [event("late", "p", 9)]
    folder, _ = prepare(tmp_path, rows, min_item_events=1)
    orders = Counter(tuple(tokens[:-1]) for tokens in sequences(folder, "train").values())
    assert len(orders) > 80  # of 120 orders
    firsts = Counter(order[0] for order in orders.elements())
    assert max(firsts.values()) < 70  # 40 of 200 expected for each item


def test_items_say_what_they_are(tmp_path: Path) -> None:
    rows = [event("ann", "p", time, text=text) for time, text in enumerate(["lamp", "lamp", "a lamp", None, None])]
    rows += [event("ann", "tea pot", time, text="pot") for time in range(3)] + [event("ann", "new", 20, text="a novelty")]
    rows += [event("ann", "p", time, text="LAMP!") for time in range(15, 30)]  # later names are not known to training
    folder, counts = prepare(tmp_path, rows, min_item_events=2)
    items = pq.read_table(folder / "items.parquet")
    assert items.schema.equals(schema.CATALOGUE)
    assert items.to_pylist() == [
        {"item": "p", "token": 5, "text": "lamp", "count": 5},
        {"item": "tea pot", "token": 6, "text": "pot", "count": 3},
        {"item": "new", "token": UNKNOWN, "text": "a novelty", "count": 0},
    ]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.encode("p tea␣pot new", add_special_tokens=False).ids == [5, 6, UNKNOWN]
    assert [tokenizer.id_to_token(n) for n in range(5)] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert counts["vocab_size"] == tokenizer.get_vocab_size() == 7


def test_report_names_what_a_model_has_to_beat(tmp_path: Path) -> None:
    rows = [event("ann", "p", time) for time in range(6)] + [event("ann", "q", 6), event("ann", "q", 7)]
    rows += [event("ann", item, time) for time, item in ((9, "p"), (10, "q"), (11, "new"))]
    folder, counts = prepare(tmp_path, rows, min_item_events=1)
    report = storage.read_json(folder / "report.json")
    said = report["token_statistics"]
    assert said["uniform_loss"] == pytest.approx(1.9459, abs=1e-4)  # ln 7
    # Targets p (first of its sequence, no target), q, new ([UNK]), [SEP]; training has p 5, q 2, [SEP] 1 of them, and
    # one is added to each of six tokens: shares q 3/14, [UNK] 1/14, [SEP] 2/14.
    assert said["popularity_loss"] == pytest.approx(2.0418, abs=1e-4)
    # Items p and q: training has p 6, q 2, and one is added to each: 7/10 and 3/10.
    assert said["popularity_loss_of_items"] == pytest.approx(0.7803, abs=1e-4)
    assert said["unknown_rate"] == pytest.approx(1 / 3, abs=1e-6)
    assert counts["cuts"] == {"validation_from": "1970-01-01T00:00:08", "test_from": "1970-01-01T00:00:14"}
    assert report["examples"] == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_item_events": 50}, "No item has 50 events before 1970-01-01T00:00:08. Lower .*min_item_events"),
        ({"min_user_events": 50}, "No item has 1 events"),
    ],
    ids=["items", "users"],
)
def test_nothing_to_train_on_says_why(tmp_path: Path, options: dict[str, int], message: str) -> None:
    rows = [event("ann", "p", time) for time in range(6)]
    with pytest.raises(DataError, match=message):
        prepare(tmp_path, rows, **({"min_item_events": 1} | options))


def test_stopped_after_every_task_it_repeats_none_and_leaves_the_same_bytes(tmp_path: Path) -> None:
    rows = [event(f"user{n % 7}", "pqrst"[n * n % 5], n % 20) for n in range(300)]
    options = {"min_item_events": 1, "partition_mb": 0.005} | CUTS
    path = write_rows(tmp_path / "rows", rows, num_files=2)
    hashes = []
    for name, run in (("whole", prepare_locally), ("pieces", partial(prepare_in_pieces, tasks_a_start=1))):
        config = make_config(path, tmp_path / name, **options)
        num_starts = run(config)
        folder = config.folder / "prepare"
        num_tasks = len([*(folder / "work").glob("read-*")]) + 2 * len([*(folder / "work").glob("order-*[0-9]")]) + 1
        hashes.append(storage.hash_folder(folder, lambda path: path.name != "report.json"))
    assert hashes[0] == hashes[1]
    assert num_tasks > 5
    assert num_starts == num_tasks  # one task each; the last start also writes the report


def test_buckets_are_no_more_than_a_few_hundred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every bucket looks into every partition: as many as partitions took 400 CPU hours for 50 GB."""
    rows = [event(f"user{n % 7}", "pqrst"[n * n % 5], n % 20) for n in range(300)]
    path = write_rows(tmp_path / "rows", rows, num_files=2)
    many, few = (
        make_config(path, tmp_path / name, partition_mb=0.005, min_item_events=1, **CUTS) for name in ("many", "few")
    )
    partitions = Interactions(many.prepare.source).partitions(0.005)
    assert BehaviourRecipe.cut(many.prepare, partitions) == partitions
    counts = prepare_locally(many)
    monkeypatch.setattr("raysl.data.behaviour_recipe.MAX_BUCKETS", 2)
    assert prepare_locally(few) == counts
    folders = [config.folder / "prepare" for config in (many, few)]
    for split in schema.SPLITS:
        assert sequences(folders[0], split) == sequences(folders[1], split)
    assert [len(list((folder / "held_out").iterdir())) > 2 for folder in folders] == [True, False]
    assert BehaviourRecipe.cut(few.prepare, partitions) == {"partitions": partitions, "buckets": 2}  # earlier work goes


def test_an_order_task_is_not_sent_the_names_of_all_partitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver held them once for every bucket."""
    rows = [event(f"user{n % 7}", "pqrst"[n * n % 5], n % 20) for n in range(300)]
    config = make_config(write_rows(tmp_path / "rows", rows, num_files=2), tmp_path, partition_mb=0.001, **CUTS)
    sent = []
    called = LocalStep.run_calls
    monkeypatch.setattr(LocalStep, "run_calls", lambda *a: sent.append([len(pickle.dumps(c)) for c in a[2]]) or called(*a))
    prepare_locally(config)
    assert len(sent[1]) > 10
    assert max(sent[1]) < 500


GROUPS = st.sampled_from([None, None, "g", "h"])
EVENTS = st.lists(
    st.builds(
        event, st.sampled_from("abcd"), st.sampled_from("pqrstu"), st.integers(0, 20), GROUPS
    ),
    min_size=1, max_size=60,
)  # fmt: skip
TRAINED: list[Row] = [event("trained", "p", time) for time in range(3)]
"""Keeps every drawn set trainable."""


def distinct(rows: list[Row]) -> set[tuple[str, str, int, str | None]]:
    """Events as the page describes them: a group happens at its latest time, repeats count once."""
    latest: dict[tuple[Any, Any], int] = {}
    for row in rows:
        key = row["user"], row["group"]
        latest[key] = max(latest.get(key, 0), int(str(row["time"])))
    return {
        (str(r["user"]), str(r["item"]), latest[r["user"], r["group"]] if r["group"] else int(str(r["time"])), r["group"])  # type: ignore[misc]
        for r in rows
    }


@given(rows=EVENTS, num_files=st.integers(1, 3), fewest=st.integers(2, 4))
@settings(max_examples=15)
def test_every_event_is_kept_once_in_its_period_or_counted(rows: list[Row], num_files: int, fewest: int) -> None:
    with TemporaryDirectory() as name:
        rows = rows + TRAINED * (fewest - 1)
        rows += [event("trained", "p", time) for time in range(3, 8)]
        folder, counts = prepare(Path(name), rows, num_files, min_user_events=fewest, min_item_events=1, partition_mb=0.0005)
        token = tokens_of(folder)
        wanted: dict[str, Counter[tuple[str, int]]] = {split: Counter() for split in schema.SPLITS}
        events = distinct(rows)
        early = Counter(user for user, _, time, _ in events if time < FIRST)
        for user, item, time, _ in events:
            split = "train" if time < FIRST else "validation" if time < SECOND else "test"
            if split != "train" or early[user] >= fewest:
                wanted[split][user, token[item]] += 1
        for split in schema.SPLITS:
            found = Counter((user, one) for user, tokens in sequences(folder, split).items() for one in tokens[:-1])
            assert found == wanted[split]
        assert counts["documents_in"] == len(rows) == counts["kept"] + sum(counts["dropped"].values())
        assert counts["dropped"].get("exact_repeat", 0) == len(rows) - len(events)
        targets = Counter((row["split"], row["user"], one) for row in held_out(folder) for one in row["target"])
        assert targets == Counter({(s, *key): n for s in ("validation", "test") for key, n in wanted[s].items()})


@given(rows=EVENTS, later=EVENTS)
@settings(max_examples=8)
def test_training_knows_nothing_of_what_comes_later(rows: list[Row], later: list[Row]) -> None:
    past = [row for row in rows if int(str(row["time"])) < FIRST and not row["group"]] + TRAINED
    future = [row for row in later if int(str(row["time"])) >= FIRST]
    with TemporaryDirectory() as name:
        files = []
        for number, extra in enumerate(([event("late", "p", 19)], future)):
            folder, _ = prepare(Path(name) / str(number), past + extra, min_user_events=2, min_item_events=2)
            known = pq.read_table(folder / "items.parquet", filters=[("token", ">=", 5)])
            files.append(
                (storage.hash_folder(folder / "tokens" / "train"), known, storage.hash_file(folder / "tokenizer.json"))
            )
        assert files[0] == files[1]


@given(rows=EVENTS, random=st.randoms(use_true_random=False))
@settings(max_examples=8)
def test_same_bytes_whatever_the_order_of_the_rows(rows: list[Row], random: Any) -> None:
    rows = rows + TRAINED
    mixed = list(rows)
    random.shuffle(mixed)
    with TemporaryDirectory() as name:
        hashes, parts = [], []
        for number, (order, num_files, partition_mb) in enumerate(((rows, 1, 2.0), (mixed, 3, 2.0), (mixed, 2, 0.0005))):
            folder, counts = prepare(
                Path(name) / str(number), order, num_files, min_user_events=2, min_item_events=1, partition_mb=partition_mb
            )
            storage.remove(folder / "work")
            (folder / "report.json").unlink()  # names the places of rows
            hashes.append(storage.hash_folder(folder))
            parts.append((counts, [sequences(folder, split) for split in schema.SPLITS]))
        assert hashes[0] == hashes[1]
        assert parts[0] == parts[1] == parts[2]  # other buckets divide the same sequences differently between shards


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="needs Linux")
def test_a_bucket_maps_no_file(tmp_path: Path) -> None:
    """It has a piece in every partition, and Linux ends a process with 65,530 mapped files."""
    with BucketWriter(tmp_path / "events.arrow", 2) as writer:
        writer.add(pa.table([["ann", "bob"], ["p", "q"], [1, 2], [None, None], [None, None]], schema=schema.EVENT))
    storage.write_json(tmp_path / STATS, {"buckets": writer.buckets})
    found = [read_bucket([tmp_path], bucket) for bucket in range(2)]
    assert sorted(pa.concat_tables(found)["user"].to_pylist()) == ["ann", "bob"]
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
