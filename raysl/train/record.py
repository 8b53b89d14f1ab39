"""Which rows each optimizer step read, written by every worker: the proof that none is lost or repeated.

A start of the run writes files of its own, rows/from-<step>-rank-<r>-of-<n>.jsonl, in place of those of an earlier start
from the same step. A step that was done again after a restart counts as its last start did it: the weights of the earlier
one were thrown away.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

_NAME = re.compile(r"from-(\d+)-rank-(\d+)-of-(\d+)\.jsonl")


class RowRecord:
    """One rank's file."""

    def __init__(self, folder: Path, first_step: int, rank: int, size: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob(f"from-{first_step:09d}-rank-*.jsonl"):
            if not path.name.endswith(f"-of-{size}.jsonl"):
                path.unlink(missing_ok=True)  # of a start with another number of ranks
        name = f"from-{first_step:09d}-rank-{rank}-of-{size}.jsonl"
        self._file: TextIO = open(folder / name, "w", buffering=1, encoding="utf-8")  # noqa: SIM115  # lives as long as the rank

    def __call__(self, step: int, rows: Sequence[int]) -> None:
        self._file.write(json.dumps({"step": step, "rows": [int(row) for row in rows]}) + "\n")


def read(folder: Path) -> dict[int, list[int]]:
    """Step -> the sorted numbers of the rows that all ranks read for it, in the start whose weights went on."""
    starts: dict[int, dict[int, list[int]]] = {}
    for path in sorted(folder.glob("from-*.jsonl")):
        match = _NAME.fullmatch(path.name)
        assert match is not None, path
        steps = starts.setdefault(int(match[1]), {})
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.endswith("}"):
                one = json.loads(line)
                steps.setdefault(one["step"], []).extend(one["rows"])
    merged: dict[int, list[int]] = {}
    for first in sorted(starts):
        merged = {step: rows for step, rows in merged.items() if step <= first} | starts[first]
    return {step: sorted(rows) for step, rows in sorted(merged.items())}
