"""Where the probe's labelled rows come from."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from raysl.data.prepared import Prepared
from raysl.train.labels import labelled_rows
from tests.tiny_run import make_run


def test_texts_of_a_source_are_read_as_prepare_would_have_written_them(tmp_path: Path) -> None:
    lines = ["socket packet port", "matrix vector sum", "folder path", "read write"]
    rows: dict[str, list[list[int]]] = {}
    for name, texts in {"plain": lines, "typed": [line.replace("o", "o\u200b") + "\r\n" for line in lines]}.items():
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"text": t, "label": "ab"[n % 2]}) + "\n" for n, t in enumerate(texts)))
        source = {"type": "files", "path": str(path), "label_column": "label"}
        pretraining = {"objective": "bert", "model": {"type": "bert", "num_layers": 1}, "probe": {"source": source}}
        config = make_run(tmp_path / name, pretrain=pretraining)
        objective = cast(Any, SimpleNamespace(row_kind="packed", unit="tokens"))
        found = labelled_rows(config, Prepared.of(config), objective)
        assert found is not None
        assert np.bincount(found.targets).tolist() == [2, 2]
        rows[name] = [row.tolist() for row in found.rows]
    assert rows["plain"] == rows["typed"]
