"""Duplicates over many tasks: the same files as in one task, whatever the limit, the units and the kills."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysl import storage
from raysl.data import minhash
from raysl.data.clean import PRINTS
from raysl.data.decisions import DECIDED, Corpus, batches, decide_in_one_task
from raysl.data.dedup import unique_ids
from raysl.data.forests import Forest, forest_of_keys, groups, merged
from raysl.data.ids import id_hashes, renamed
from raysl.data.keyed import Keyed
from raysl.data.prints import Prints, PrintSettings, make_prints, mapped, write_prints
from raysl.schema import RAW_DOCUMENT

SETTINGS = PrintSettings(threshold=0.6, ngram=2, num_bands=20, rows_per_band=3)
ONE_TASK, MANY_TASKS = 100.0, 0.004


def table_of(texts: list[str], ids: list[str] | None = None) -> pa.Table:
    ids = ids or [f"d{number}" for number in range(len(texts))]
    return pa.table({"id": ids, "text": texts, "label": [None] * len(texts)}, schema=RAW_DOCUMENT)


def corpus_of(folder: Path, table: pa.Table, cuts: list[int], max_task_mb: float) -> Corpus:
    bounds = [0, *sorted(cut % (len(table) + 1) for cut in cuts), len(table)]
    sizes = tuple(stop - first for first, stop in pairwise(bounds))
    units = tuple(folder / f"unit{number}" for number in range(len(sizes)))
    for unit, first, size in zip(units, bounds, sizes, strict=False):
        unit.mkdir(parents=True)
        write_prints(make_prints(table.slice(first, size), SETTINGS, compiled=False), unit / PRINTS)
    return Corpus(units, sizes, SETTINGS, max_task_mb)


def run_missing(keyed: Keyed, folder: Path, call: Callable[..., object] = lambda function, *given: function(*given)) -> None:
    """All steps in their order, as the recipe starts them."""
    steps = [(keyed.scatter, [(one, keyed.scattered(one[0])) for one in keyed.scatters()])]
    steps.append((keyed.gather, [((n,), keyed.part(n)) for n in range(keyed.num_parts)]))
    steps += [(keyed.merge, [(one, one[1]) for one in level]) for level in keyed.levels()]
    for function, calls in steps:
        for given_, path in calls:
            if not path.exists():
                call(function, *given_)
    for group in range(keyed.num_groups()):
        if not keyed.compared(group).exists():
            call(keyed.compare, group)
    keyed.collect(folder)


def files_of(folder: Path) -> dict[str, str]:
    return storage.hash_folder(folder)


def edited(random: np.random.Generator, num: int) -> list[str]:
    """Chains of edits: components with kept and removed documents in turn."""
    texts = [" ".join(random.choice(list("abcdefghijkl"), 12))]
    while len(texts) < num:
        words = (texts[-1] if random.random() < 0.7 else " ".join(random.choice(list("abcdefghijkl"), 12))).split()
        words[random.integers(len(words))] = "z"
        texts.append(" ".join(words))
    return texts


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), cuts=st.lists(st.integers(0, 100), max_size=4), limit=st.sampled_from([0.004, 0.02, 0.1]))
def test_many_tasks_decide_as_one_task_and_as_the_plain_function(
    tmp_path_factory: pytest.TempPathFactory, seed: int, cuts: list[int], limit: float
) -> None:
    folder = tmp_path_factory.mktemp("keyed")
    random = np.random.default_rng(seed)
    texts = edited(random, int(random.integers(1, 60)))
    table = table_of(texts, [f"d{n}" for n in random.integers(0, 50, len(texts))])
    corpus = corpus_of(folder / "many", table, cuts, limit)
    run_missing(Keyed(corpus, folder / "keyed"), folder / "decided")
    decide_in_one_task(corpus_of(folder / "one", table, [], ONE_TASK), folder / "expected")
    assert files_of(folder / "decided") == files_of(folder / "expected")

    plain = minhash.deduplicate(table["text"], 0.6, 2, 20, 3, compiled=False)
    decided = mapped(folder / "decided" / "decisions.arrow")
    kept, cluster = np.full(len(texts), -1), np.arange(len(texts))
    kept[decided["document"].to_numpy()] = decided["kept"].to_numpy()
    cluster[decided["document"].to_numpy()] = decided["cluster"].to_numpy()
    assert kept.tolist() == plain.kept.tolist()
    assert cluster.tolist() == plain.cluster.tolist()


def test_a_kill_costs_only_the_call_that_was_in_flight(tmp_path: Path) -> None:
    table = table_of(edited(np.random.default_rng(0), 120))
    corpus = corpus_of(tmp_path / "units", table, [30, 60, 90], MANY_TASKS)
    whole = Keyed(corpus, tmp_path / "whole")
    total = 0

    def count(function: Callable[..., object], *given: object) -> None:
        nonlocal total
        total += 1
        function(*given)

    run_missing(whole, tmp_path / "expected", count)
    assert whole.num_parts > 8  # a merge of merges
    assert whole.num_groups() > 3
    calls = 0
    for stop in range(0, total, 5):  # dies in a call after every fifth, at the moment before its rename

        def die(function: Callable[..., object], *given: object, stop: int = stop) -> None:
            nonlocal calls
            calls += 1
            if calls == stop + 1:
                raise KeyboardInterrupt
            function(*given)

        calls = len(list((tmp_path / "keyed").glob("[!.]*"))) if (tmp_path / "keyed").is_dir() else 0
        with pytest.raises(KeyboardInterrupt):
            run_missing(Keyed(corpus, tmp_path / "keyed"), tmp_path / "decided", die)
        assert len(list((tmp_path / "keyed").glob("[!.]*"))) == stop
    run_missing(Keyed(corpus, tmp_path / "keyed"), tmp_path / "decided")
    assert files_of(tmp_path / "decided") == files_of(tmp_path / "expected")


def test_what_another_limit_of_memory_has_cut_otherwise_is_not_gone_on_with(tmp_path: Path) -> None:
    table = table_of(edited(np.random.default_rng(0), 60))
    few, many = (Keyed(corpus_of(tmp_path / str(mb), table, [20, 40], mb), tmp_path / "keyed") for mb in (0.02, MANY_TASKS))
    few.begin()
    run_missing(few, tmp_path / "expected")
    few.begin()
    assert few.groups.exists()
    many.begin()
    assert not few.groups.exists()
    run_missing(many, tmp_path / "decided")
    assert files_of(tmp_path / "decided") == files_of(tmp_path / "expected")


def test_components_are_the_same_however_keys_are_divided() -> None:
    keys, documents = np.array([7, 7, 3, 3, 9, 9, 1], np.uint64), np.array([0, 4, 4, 2, 5, 6, 8])
    whole = forest_of_keys(keys, documents)
    assert whole.documents.tolist() == [0, 2, 4, 5, 6]
    assert whole.roots.tolist() == [0, 0, 0, 5, 5]
    parts = [forest_of_keys(keys[part], documents[part]) for part in ([5, 4], [6, 0, 1], [3, 2])]
    assert merged(parts).roots.tolist() == whole.roots.tolist()
    assert merged([]).documents.tolist() == []


def test_groups_hold_whole_components_up_to_the_limit() -> None:
    forest = Forest(np.array([0, 1, 2, 3, 4, 5]), np.array([0, 1, 0, 1, 4, 4]))
    sizes = np.full(6, 10)
    assert [group.tolist() for group in groups(forest, sizes, 40)] == [[0, 1, 2, 3], [4, 5]]
    assert [group.tolist() for group in groups(forest, sizes, 1)] == [[0, 2], [1, 3], [4, 5]]
    assert [group.tolist() for group in groups(forest, sizes, 1e9)] == [[0, 1, 2, 3, 4, 5]]
    assert list(groups(merged([]), sizes[:0], 40)) == []


@settings(max_examples=60)
@given(ids=st.lists(st.sampled_from(["a", "b", "a#2", "a#3", "b#2", "a#2#2", "#2", ""]), min_size=1, max_size=14))
def test_ids_found_by_their_hashes_are_those_of_all_ids_together(ids: list[str]) -> None:
    prints = Prints([table_of([""] * len(ids), ids).select(["id"])], 1)
    names = dict(enumerate(ids)) | {
        row["document"]: row["id"] for row in renamed(*id_hashes(prints, 0, 1), prints).to_pylist()
    }
    assert [names[row] for row in range(len(ids))] == unique_ids(ids)


def test_batches_of_units_keep_below_their_limit() -> None:
    assert list(batches([3, 3, 3, 9, 0, 1], 6)) == [(0, 2), (2, 3), (3, 4), (4, 6)]
    assert list(batches([0, 0], 5)) == [(0, 2)]


def test_one_task_is_left_when_its_limit_is_passed(tmp_path: Path) -> None:
    unit = (tmp_path / "unit",)
    assert Corpus(unit, (500_000,), SETTINGS, 100).fits_one_task
    assert not Corpus(unit, (500_001,), SETTINGS, 100).fits_one_task
    assert DECIDED.names == ["document", "kept", "jaccard", "cluster"]
