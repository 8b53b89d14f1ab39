"""Labelled rows of a prepared folder: the classes, the rows of a split, and draws of a few labels."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysl import schema
from raysl.data.decode import EncodedRows
from raysl.data.pixels import PixelRows, Pixels
from raysl.data.prepared import ENCODED, PIXELS
from raysl.errors import DataError
from raysl.progress import say


@dataclass(frozen=True)
class Labelled:
    """Rows of a split, their columns side by side; a label is None where there is none."""

    ids: list[str]
    labels: list[str | None]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, places: Sequence[int] | npt.NDArray[np.int64]) -> Self:
        numbers = [int(place) for place in places]
        return type(self)(**{name: _taken(column, numbers) for name, column in vars(self).items()})

    def of_classes(self, classes: Sequence[str]) -> Self:
        """The rows whose label is one of `classes`, in their order."""
        wanted = set(classes)
        return self.take([place for place, label in enumerate(self.labels) if label in wanted])


@dataclass(frozen=True)
class Documents(Labelled):
    """Rows of text."""

    texts: Sequence[str]


T = TypeVar("T")


class Stored(Sequence[T]):
    """Contents of rows that stay where they lie until they are asked for."""

    def take(self, places: Sequence[int]) -> Self:
        """Those at `places`, as little read as before."""
        raise NotImplementedError

    def _read(self, place: int) -> T:
        raise NotImplementedError

    @overload
    def __getitem__(self, place: int) -> T: ...

    @overload
    def __getitem__(self, place: slice) -> "Stored[T]": ...

    def __getitem__(self, place: int | slice) -> "T | Stored[T]":
        return self.take(range(len(self))[place]) if isinstance(place, slice) else self._read(place)

    def __reduce__(self) -> tuple[type, tuple[list[T]]]:
        """On another machine the files may not be there: the contents travel."""
        return list, (list(self),)


class StoredTexts(Stored[str]):
    """Texts of documents by part and row, read each time they are gone through: a part once, and one at a time."""

    def __init__(self, paths: Sequence[Path], parts: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> None:
        """`parts` are places in `paths`."""
        self._paths, self._parts, self._rows = paths, parts, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        order = np.argsort(self._parts, kind="stable")
        texts = [""] * len(self)
        for places in np.split(order, np.flatnonzero(np.diff(self._parts[order])) + 1):
            if len(places):
                column = pq.read_table(self._paths[self._parts[places[0]]], columns=[schema.TEXT])[schema.TEXT]
                for place, text in zip(places.tolist(), column.take(self._rows[places]).to_pylist(), strict=True):
                    texts[place] = text
        return iter(texts)

    def take(self, places: Sequence[int]) -> Self:
        numbers = np.asarray(places, np.int64)
        return type(self)(self._paths, self._parts[numbers], self._rows[numbers])

    def _read(self, place: int) -> str:
        return next(iter(self.take([place])))


class StoredPixels(Stored[Pixels]):
    """Rows of shards by their numbers, each read, and decoded where pictures were stored, when it is asked for."""

    def __init__(self, rows: PixelRows, numbers: Sequence[int]) -> None:
        self._rows, self._numbers = rows, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def take(self, places: Sequence[int]) -> Self:
        return type(self)(self._rows, [self._numbers[place] for place in places])

    def _read(self, place: int) -> Pixels:
        return self._rows.row(self._numbers[place])


@dataclass(frozen=True)
class Pictures(Labelled):
    """Rows of images."""

    pixels: Sequence[Pixels]


def _taken(column: Any, places: Sequence[int]) -> Any:
    return column.take(places) if isinstance(column, Stored) else [column[place] for place in places]


def read_split(prepared: Path, split: str) -> Labelled:
    """Kept rows of one split that have a label, documents or pictures, in their order; few of many take little memory.

    DataError where the folder holds no rows of any split.
    """
    encoded, pixels = prepared / ENCODED / split, prepared / PIXELS / split
    if encoded.parent.is_dir() or pixels.parent.is_dir():
        folder, kind = (encoded, EncodedRows) if encoded.parent.is_dir() else (pixels, PixelRows)
        if not any(folder.glob("shard-*.arrow")):
            return Pictures([], [], [])
        rows = kind(folder)
        pictures = Pictures(rows.ids, rows.labels, StoredPixels(rows, range(len(rows))))
        return pictures.take([place for place, label in enumerate(pictures.labels) if label is not None])
    return read_documents(prepared, split, with_label=True)


def read_documents(prepared: Path, split: str, with_label: bool = False) -> Documents:
    """Kept documents of one split in their order, all or those `with_label`; their texts stay on the disk until they are
    asked for. DataError where the folder holds none.
    """
    paths = sorted((prepared / "documents").glob("part-*.parquet"))
    if not paths:
        raise DataError(f"No documents in {prepared / 'documents'}. Run `raysl prepare` first.")
    ids, labels, rows = list[str](), list[str | None](), list[npt.NDArray[np.int64]]()
    for path in paths:
        table = pq.read_table(path, columns=[schema.ID, schema.LABEL, schema.SPLIT])
        wanted = pc.equal(table[schema.SPLIT], split)
        if with_label:
            wanted = pc.and_(wanted, pc.is_valid(table[schema.LABEL]))
        rows.append(np.flatnonzero(wanted.to_numpy()))
        table = table.filter(wanted)
        ids += table[schema.ID].to_pylist()
        labels += table[schema.LABEL].to_pylist()
    parts = np.repeat(np.arange(len(paths)), [len(one) for one in rows])
    return Documents(ids, labels, StoredTexts(paths, parts, np.concatenate(rows)))


def draw_texts(prepared: Path, split: str, max_mb: float, seed: int) -> list[str]:
    """Texts of a split in their order: all, or about `max_mb` of them drawn with `seed` where there are more."""
    paths = sorted((prepared / "documents").glob("part-*.parquet"))
    sizes = [pc.binary_length(_texts(path, split)).to_numpy() for path in paths]
    share = max_mb * 1e6 / max(1, sum(int(size.sum()) for size in sizes))
    generator, texts = np.random.default_rng([seed, 5]), list[str]()
    for path, size in zip(paths, sizes, strict=True):
        texts += _texts(path, split).filter(pa.array(generator.random(len(size)) < share)).to_pylist()
    return texts


def _texts(path: Path, split: str) -> pa.ChunkedArray:
    table = pq.read_table(path, columns=[schema.TEXT, schema.SPLIT])
    return table.filter(pc.equal(table[schema.SPLIT], split))[schema.TEXT]


def largest_classes(rows: Labelled, num_classes: int) -> list[str]:
    """The `num_classes` most frequent labels, sorted by name; DataError where there are fewer than two."""
    counts = Counter(label for label in rows.labels if label is not None)
    chosen = sorted(counts, key=lambda label: (-counts[label], label))[:num_classes]
    if len(chosen) < 2:
        raise DataError(f"A classifier needs two labels or more; the train split has {len(chosen)}. Name the label column.")
    return sorted(chosen)


def class_numbers(rows: Labelled, classes: Sequence[str]) -> npt.NDArray[np.int64]:
    """Label of each row as its place in `classes`."""
    place = {label: number for number, label in enumerate(classes)}
    return np.array([place[label] for label in rows.labels if label is not None], np.int64)


def tell_small_classes(stage: str, targets: npt.NDArray[np.int64], per_class: int | None, classes: Sequence[str]) -> None:
    """Says which classes have fewer rows than are asked for: a draw takes all of theirs, and is less than its name says."""
    counts = np.bincount(targets, minlength=len(classes))
    small = int((counts < (per_class or 0)).sum())
    if small:
        fewest = int(counts.argmin())
        say(
            f"{stage}: {small} of {len(classes)} classes have fewer than labels_per_class={per_class} labelled rows in the "
            f"train split, '{classes[fewest]}' the fewest ({counts[fewest]}); every draw takes all of theirs"
        )


def draw_per_class(targets: npt.NDArray[np.int64], per_class: int | None, seed: Sequence[int]) -> npt.NDArray[np.int64]:
    """Places of `per_class` random rows of each class (all of a smaller class), in order; None takes all rows."""
    if per_class is None:
        return np.arange(len(targets))
    generator = np.random.default_rng(list(seed))
    drawn = []
    for number in np.unique(targets):
        places = np.flatnonzero(targets == number)
        drawn.append(generator.choice(places, min(per_class, len(places)), replace=False))
    return np.sort(np.concatenate(drawn))
