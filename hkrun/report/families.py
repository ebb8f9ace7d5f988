"""Which tests are corrected together: those of a table, or all of a study."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from hkrun import stats
from hkrun.report.comparison import Comparison

# What is tested, and of which sides: the same wherever a table has it.
Test = tuple[str, ...]
_BEYOND = "beyond the margin"  # what speaks against an equivalence


class Families:
    """Corrects p values by Holm's method, table by table or over all tests of a study.

    A study is corrected in two goes, for its tests are known when all tables were made: the first corrects
    each table alone and keeps its tests, the second all of them. A test that several tables share counts
    once.
    """

    def __init__(self, study: Mapping[Test, float] | None = None) -> None:
        """Begins a family for each table; or with `study`, one of all these tests and their p."""
        self._study = study
        self._of_study = None if study is None else correct_all(study)
        self._tables: list[dict[Test, float]] = []

    def correct(self, tests: Mapping[Test, float]) -> dict[Test, float]:
        """The corrected p of a table's tests."""
        self._tables.append(dict(tests))
        if self._of_study is None:
            return correct_all(tests)
        return {test: self._of_study[test] for test in tests}

    def correct_comparisons(self, comparisons: Sequence[Comparison]) -> list[Comparison]:
        """A table of comparisons, corrected; a test that several of them share counts once."""
        tests = self.correct({(item.measure, *item.test): item.p for item in comparisons})
        against = self.correct(
            {(_BEYOND, *item.test): item.p_against for item in comparisons if item.margin is not None}
        )
        return [
            replace(
                item,
                p_holm=tests[item.measure, *item.test],
                p_against_holm=against.get((_BEYOND, *item.test), item.p_against),
            )
            for item in comparisons
        ]

    def place(self, tests: Mapping[Test, float], test: Test, p: float) -> float:
        """What the correction of a table makes of a p in the place of one of its tests."""
        return correct_all({**(tests if self._study is None else self._study), test: p})[test]

    def size(self, tests: int) -> int:
        """How many tests the first step of the correction of a table with so many is over."""
        return tests if self._study is None else len(self._study)

    @property
    def num_tables(self) -> int:
        """How many tables there are, apart from those of the same tests."""
        return len({frozenset(table) for table in self._tables if table})

    @property
    def tests(self) -> dict[Test, float]:
        """The tests of all tables; random draws give one that two tables share two p, of which the larger."""
        found: dict[Test, float] = {}
        for table in self._tables:
            for test, p in table.items():
                found[test] = max(found.get(test, 0.0), p)
        return found


def correct_all(tests: Mapping[Test, float]) -> dict[Test, float]:
    """The tests as one family."""
    return dict(zip(tests, stats.holm(list(tests.values())), strict=True))
