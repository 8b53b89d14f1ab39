"""Few labels: macro-F1 on the installed documentation against TF-IDF, LSA and the same network from scratch."""

from collections.abc import Iterator
from statistics import fmean

from benchmarks import Figure
from benchmarks.smoke_run import finished_run
from raysl import storage

PRETRAINED = ("pretrained, fine-tuned", "pretrained, frozen + LR")
SCRATCH, TFIDF, LSA = "same network from scratch", "TF-IDF + LR", "LSA + LR"


def run() -> Iterator[Figure]:
    """Scores in points of macro-F1; makes the smoke run first where it is not there."""
    report = storage.read_json(finished_run() / "evaluate" / "report.json")
    score = {(e["method"], e["labels_per_class"]): 100 * fmean(e["macro_f1"]) for e in report["few_label"]}
    tuned = PRETRAINED[0]
    for method, budget in sorted(score, key=lambda key: (key[1], -score[key])):
        yield Figure(f"{budget} labels: {method}", score[method, budget], "points")
    yield Figure("5 labels: fine-tuned over scratch", score[tuned, 5] - score[SCRATCH, 5], "points", at_least=10)
    yield Figure("5 labels: fine-tuned over TF-IDF", score[tuned, 5] - score[TFIDF, 5], "points", at_least=3)
    best = max(score[SCRATCH, 20], score[TFIDF, 20], score[LSA, 20])
    yield Figure("20 labels: fine-tuned over the best baseline", score[tuned, 20] - best, "points", at_least=0)
