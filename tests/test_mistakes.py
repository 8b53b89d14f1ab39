"""The mistakes that `make bench-ten_mistakes` puts in are still mistakes in the code as it stands."""

import pytest

from benchmarks._mistakes import MISTAKES, Mistake
from benchmarks.ten_mistakes import ROOT


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.what)
def test_the_text_that_a_mistake_replaces_stands_once(mistake: Mistake) -> None:
    assert (ROOT / "raysl" / mistake.file).read_text(encoding="utf-8").count(mistake.old) == 1
    assert all((ROOT / "tests" / test.split("::")[0]).is_file() for test in mistake.tests)
