"""What a candidate has to gain, and what it may lose."""

import pytest

from raysl.release import gate
from raysl.release.gate import Scores


@pytest.mark.parametrize(
    ("old", "everything", "min_gain", "accepted", "reason"),
    [
        (0.6, 0.65, 0.0, True, "gains +0.050 macro-F1 on all rows, +0.000 on old ones"),
        (0.6, 0.6, 0.0, False, "gains +0.000 macro-F1 on all rows, needed is more than 0"),
        (0.6, 0.6, -0.1, True, "gains +0.000 macro-F1 on all rows, +0.000 on old ones"),
        (0.59, 0.55, -0.1, True, "gains -0.050 macro-F1 on all rows, -0.010 on old ones"),
        (0.6, 0.61, 0.02, False, "gains +0.010 macro-F1 on all rows, needed is 0.02"),
        (0.5, 0.9, 0.0, False, "loses 0.100 macro-F1 on old rows, allowed is 0.02"),
    ],
)
def test_a_candidate_gains_what_is_asked_for(
    old: float, everything: float, min_gain: float, accepted: bool, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gain of exactly 0 was refused also where a loss was allowed."""
    scores = {"production": Scores(0.6, 0.6, 0.6), "candidate": Scores(old, 0.6, everything)}
    monkeypatch.setattr(gate, "score", lambda bundle, *_: scores[bundle.name])
    bundles = [type("Named", (), {"name": name, "classes": ("a", "b")})() for name in scores]
    decision = gate.judge(*bundles, None, None, min_gain, 0.02)  # type: ignore[arg-type]
    assert (decision.accepted, decision.reason) == (accepted, reason)
