"""Whether a candidate takes the place of production: both bundles, as they would be served, on the same rows. Torch-free."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from raysl import schema
from raysl.release.bundle import Bundle
from raysl.release.documents import kept
from raysl.release.reference import answer, figures
from raysl.release.runtime import Runner


@dataclass(frozen=True)
class Scores:
    """Macro-F1 of one bundle on rows it has not seen."""

    old: float
    new: float
    all: float


@dataclass(frozen=True)
class Decision:
    """The gate's answer, with its reason in words and numbers."""

    accepted: bool
    reason: str
    production: Scores
    candidate: Scores


def macro_f1(bundle: Bundle, rows: pa.Table, classes: list[str]) -> float:
    """Macro-F1 over the rows whose label is in `classes`; a class the bundle does not know counts as missed."""
    labels = rows[schema.LABEL].to_pylist()
    known = np.array([label in set(classes) for label in labels], bool)
    if not known.any():
        return 0.0
    runner = Runner.of(bundle)
    answers = answer(runner, runner.contents(kept(rows, known)), classifies=True)
    predictions = answers.predictions(bundle.classes)
    return float(figures([label for label in labels if label in set(classes)], predictions, classes)["macro_f1"])


def score(bundle: Bundle, old: pa.Table, new: pa.Table, old_classes: list[str], classes: list[str]) -> Scores:
    """Macro-F1 on old rows (classes of production), new rows and both together (classes of the candidate)."""
    return Scores(
        macro_f1(bundle, old, old_classes),
        macro_f1(bundle, new, classes),
        macro_f1(bundle, pa.concat_tables([old, new]), classes),
    )


def judge(
    production: Bundle, candidate: Bundle, old: pa.Table, new: pa.Table, min_gain: float, max_loss_on_old: float
) -> Decision:
    """Accepts a candidate that gains `min_gain` on all rows and loses at most `max_loss_on_old` on the old ones.

    A candidate that gains nothing at all is refused where `min_gain` is 0: a change has to pay for itself.
    """
    classes, old_classes = list(candidate.classes), list(production.classes)
    before, after = (score(bundle, old, new, old_classes, classes) for bundle in (production, candidate))
    gain, loss = after.all - before.all, before.old - after.old
    if loss > max_loss_on_old:
        return Decision(False, f"loses {loss:.3f} macro-F1 on old rows, allowed is {max_loss_on_old:g}", before, after)
    if gain < min_gain or gain == min_gain == 0:
        needed = f"{min_gain:g}" if min_gain else "more than 0"
        return Decision(False, f"gains {gain:+.3f} macro-F1 on all rows, needed is {needed}", before, after)
    return Decision(
        True, f"gains {gain:+.3f} macro-F1 on all rows, {after.old - before.old:+.3f} on old ones", before, after
    )
