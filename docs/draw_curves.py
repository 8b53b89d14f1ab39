"""Draws the curves of a run: `python docs/draw_curves.py runs/NAME/metrics.jsonl docs/objectives/NAME`.

Writes NAME-loss.svg and, where a labelled file was named, NAME-knn.svg.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raysl.report.figures import loss_curve, probe_curve

LOSSES, PROBE = ("loss", "held_out_loss"), ("knn_accuracy", "knn_largest_class")


def curves(lines: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, list[tuple[int, float]]]:
    """Points (step, value) of each number that pretraining told."""
    told = [line for line in lines if line.get("stage", "pretrain") == "pretrain"]
    points = {name: [(int(line["step"]), float(line[name])) for line in told if name in line] for name in names}
    return {name: own for name, own in points.items() if own}


if __name__ == "__main__":
    metrics, picture = sys.argv[1:]
    lines = [json.loads(line) for line in Path(metrics).read_text(encoding="utf-8").splitlines()]
    Path(f"{picture}-loss.svg").write_text(loss_curve(curves(lines, LOSSES)), encoding="utf-8")
    if probed := curves(lines, PROBE):
        Path(f"{picture}-knn.svg").write_text(probe_curve(probed), encoding="utf-8")
