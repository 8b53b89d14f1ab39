"""Benchmarks: `make bench` lists them, `make bench-NAME` runs benchmarks/NAME.py.

A benchmark is a module with a docstring and `run() -> Iterable[Figure]`. The runner prints one line per figure and ends
with 1 when one falls short of its goal.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One measured number with its goal: `at_most` or `at_least`."""

    name: str
    value: float
    unit: str = ""
    at_most: float | None = None
    at_least: float | None = None

    @property
    def holds(self) -> bool:
        return (self.at_most is None or self.value <= self.at_most) and (
            self.at_least is None or self.value >= self.at_least
        )

    def __str__(self) -> str:
        goals = (("at most", self.at_most), ("at least", self.at_least))
        goal = " and ".join(f"{word} {limit:g} {self.unit}".strip() for word, limit in goals if limit is not None)
        verdict = "holds" if self.holds else "falls short"
        return f"{self.name:<44} {f'{self.value:.4g} {self.unit}':<16} {goal or 'no goal':<24} {verdict if goal else '-'}"
