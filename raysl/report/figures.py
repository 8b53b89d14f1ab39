"""Figures of the report as inline SVG; text stays text, so that it can be searched and read aloud."""

import io
from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from raysl.report.contents import FewLabel
from raysl.report.prepared import Drop

COLOURS = ("#2563a8", "#d97706", "#3f8f5b", "#a63d57", "#6b5ca5", "#777777")
NAME_CHARS = 24
SETTINGS = {"svg.fonttype": "none", "svg.hashsalt": "raysl", "font.family": "sans-serif", "font.size": 9.0}


def drop_bars(drops: Sequence[Drop]) -> str:
    """Rows dropped for each reason, the commonest on top; the axis is logarithmic, because reasons differ by thousands."""
    figure, axes = _figure(7, 0.8 + 0.24 * len(drops))
    names = [drop.reason for drop in reversed(drops)]
    axes.barh(range(len(drops)), [drop.count for drop in reversed(drops)], color=COLOURS[0])
    axes.set_yticks(range(len(drops)), names, parse_math=False)
    axes.set_xscale("log")
    axes.set_xlabel("rows dropped")
    return _svg(figure)


def step_bars(steps: Mapping[str, Mapping[str, float]]) -> str:
    """Wall seconds and CPU seconds of each step of `prepare`, and the peak memory of its largest task."""
    figure = Figure(figsize=(7, 0.9 + 0.34 * len(steps)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2, 1))
    places, used = range(len(steps)), list(steps.values())[::-1]
    left.barh([p + 0.2 for p in places], [one["seconds"] for one in used], 0.38, color=COLOURS[0], label="wall")
    left.barh(
        [p - 0.2 for p in places], [one["cpu_seconds"] for one in used], 0.38, color=COLOURS[1], label="CPU of its tasks"
    )
    right.barh(places, [one["peak_mb"] for one in used], 0.6, color=COLOURS[2])
    left.set_yticks(places, list(steps)[::-1], parse_math=False)
    left.set_xlabel("seconds")
    right.set_xlabel("peak memory of a task, MB")
    left.legend(frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return _svg(figure)


def loss_curve(losses: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    """One line for each loss over steps; `loss` is the training one."""
    figure, axes = _figure(7, 3)
    for colour, (name, points) in zip(COLOURS, losses.items(), strict=False):
        steps, values = zip(*points, strict=True)
        label = "train" if name == "loss" else name.removesuffix("_loss").replace("_", " ")
        axes.plot(steps, values, color=colour, label=label, marker="." if len(points) < 40 else None)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.legend(frameon=False)
    return _svg(figure)


def probe_curve(lines: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    """Accuracy of the kNN probe over steps, with the share of the largest class as a dashed line."""
    figure, axes = _figure(7, 3)
    for colour, (name, points) in zip(COLOURS, lines.items(), strict=False):
        steps, values = zip(*points, strict=True)
        chance = name == "knn_largest_class"
        axes.plot(steps, values, color=COLOURS[-1] if chance else colour, linestyle="--" if chance else "-",
                  label="largest class" if chance else "kNN accuracy", marker=None if chance else ".")  # fmt: skip
    axes.set_xlabel("step")
    axes.set_ylabel("accuracy")
    axes.legend(frameon=False)
    return _svg(figure)


def few_label_bars(rows: Sequence[FewLabel]) -> str:
    """Mean macro-F1 of each method at each label budget; the line on a bar is one standard deviation over the draws."""
    figure, axes = _figure(7, 3)
    budgets = sorted({row.labels_per_class for row in rows})
    methods = list(dict.fromkeys(row.method for row in rows))
    width = 0.8 / len(methods)
    for index, method in enumerate(methods):
        mine = [row for row in rows if row.method == method]
        places = [budgets.index(row.labels_per_class) + (index - (len(methods) - 1) / 2) * width for row in mine]
        axes.bar(places, [row.macro_f1 for row in mine], width * 0.9, yerr=[row.macro_f1_spread for row in mine],
                 color=COLOURS[index % len(COLOURS)], label=method, error_kw={"elinewidth": 1})  # fmt: skip
    axes.set_xticks(range(len(budgets)), [str(budget) for budget in budgets])
    axes.set_xlabel("labels per class")
    axes.set_ylabel("macro-F1")
    axes.set_ylim(0, 1)
    figure.legend(frameon=False, loc="outside right upper")
    return _svg(figure)


def confusion_matrix(classes: Sequence[str], matrix: Sequence[Sequence[int]]) -> str:
    """Rows are the true classes, columns the predicted ones; shade is the share of the row."""
    names = [name if len(name) <= NAME_CHARS else name[: NAME_CHARS - 1] + "…" for name in classes]
    side = 1.0 + 0.08 * max(map(len, names)) + 0.34 * len(names)
    figure, axes = _figure(side + 0.6, side)
    shares = [[count / max(sum(row), 1) for count in row] for row in matrix]
    axes.pcolormesh(shares, cmap="Blues", vmin=0, vmax=1, edgecolors="#ffffff", linewidth=0.5)
    for i, row in enumerate(matrix):
        for j, count in enumerate(row):
            if count:
                axes.text(j + 0.5, i + 0.5, f"{count}", ha="center", va="center", fontsize=7,
                          color="white" if shares[i][j] > 0.6 else "black")  # fmt: skip
    places = [i + 0.5 for i in range(len(classes))]
    axes.set_xticks(places, names, rotation=60, ha="right", rotation_mode="anchor", parse_math=False)
    axes.set_yticks(places, names, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    return _svg(figure)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    with matplotlib.rc_context(SETTINGS):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = buffer.getvalue()
    return text[text.index("<svg") :]
