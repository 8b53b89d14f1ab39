"""report.html of a run folder: one file that a browser shows without network.

Rebuilt after every stage from what lies in the folder; a part whose stage has not run is left out.
"""

from pathlib import Path

from jinja2 import Environment, PackageLoader, Template
from markupsafe import Markup

from raysl import storage
from raysl.report import contents, figures, prepared
from raysl.run_config import RunConfig


def build(config: RunConfig) -> Path:
    """Writes <run>/report.html and returns its path. Text of documents is escaped; nothing is loaded from elsewhere."""
    folder = config.folder
    few_label, confusion, split = contents.evaluation(folder)
    shown = contents.largest_classes(confusion) if confusion else None
    curves = contents.loss_curves(folder)
    prepare = prepared.read(folder)
    page = _template().render(
        name=config.name,
        folder=str(folder),
        timings=contents.timings(folder),
        prepare=prepare,
        drop_figure=Markup(figures.drop_bars(prepare.drops)) if prepare and prepare.drops else None,
        step_figure=Markup(figures.step_bars(prepare.steps)) if prepare and prepare.steps else None,
        curves={stage: Markup(figures.loss_curve(lines)) for stage, lines in curves.items()},
        probes={stage: Markup(figures.probe_curve(lines)) for stage, lines in contents.probe_curves(folder).items()},
        few_label=few_label,
        split=split,
        few_label_figure=Markup(figures.few_label_bars(few_label)) if few_label else None,
        num_classes=len(confusion["classes"]) if confusion else 0,
        confusion=shown,
        confusion_figure=Markup(figures.confusion_matrix(**shown)) if shown else None,
        release=contents.release(folder),
        versions=contents.versions(),
        yaml=contents.yaml_text(folder),
    )
    storage.write_text(folder / "report.html", page)
    return folder / "report.html"


def _template() -> Template:
    loader = PackageLoader("raysl.report", ".")
    return Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True).get_template("template.html")
