"""Draws the losses of a run as SVG: `python docs/draw_curves.py runs/NAME/metrics.jsonl docs/objectives/NAME.svg`."""

import json
import sys
from pathlib import Path
from typing import Any

from raysl.report.figures import loss_curve


def draw(lines: list[dict[str, Any]]) -> str:
    """Training and held-out loss over steps."""
    curves = {
        name: [(int(line["step"]), float(line[name])) for line in lines if name in line]
        for name in ("loss", "held_out_loss")
    }
    return loss_curve({name: points for name, points in curves.items() if points})


if __name__ == "__main__":
    metrics, picture = map(Path, sys.argv[1:])
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    picture.write_text(draw(lines), encoding="utf-8")
