"""Variance components: closed forms, and simulations with known variances."""

import numpy as np
import pytest
import scipy.stats

from hkrun import stats

# Two teachers of two students each, in two columns.
TABLE = np.array([[1.0, 3.0], [2.0, 6.0], [7.0, 9.0], [8.0, 10.0]])


def simulate(generator, *, teachers, students, columns, sds):
    """Values of the model with these standard deviations, and the teacher of each run."""
    of_teacher, of_student, of_column, of_rest = (
        sd * generator.standard_normal(shape)
        for sd, shape in zip(
            sds,
            ((teachers, 1, 1), (teachers, students, 1), (1, 1, columns), (teachers, students, columns)),
            strict=True,
        )
    )
    values = 5.0 + of_teacher + of_student + of_column + of_rest
    return values.reshape(-1, columns), np.repeat(np.arange(teachers), students).tolist()


def test_a_nested_layout_by_hand():
    found = stats.decompose(TABLE, [0, 0, 1, 1])
    # Means of the runs 2, 4, 8, 9; of the teachers 3, 8.5; of the columns 4.5, 7; of all 5.75.
    residual = 2 * (0.25**2 + 0.75**2 + 0.25**2 + 0.25**2) / 3
    within = 2 * (1 + 1 + 0.25 + 0.25) / 2
    between = 2 * 2 * 2 * 2.75**2 / 1
    column = 4 * 2 * 1.25**2 / 1
    assert found.residual.estimate == pytest.approx(residual)
    assert found.student.estimate == pytest.approx((within - residual) / 2)
    assert found.teacher.estimate == pytest.approx((between - within) / 4)
    assert found.column.estimate == pytest.approx((column - residual) / 4)
    assert found.together is None
    assert (found.runs, found.teachers, found.columns) == (4, 2, 2)


def test_teachers_of_unequally_many_students_count_as_so_many_each():
    found = stats.decompose(TABLE, [0, 0, 0, 1])
    runs = TABLE.mean(axis=1)
    within = 2 * ((runs[:3] - runs[:3].mean()) ** 2).sum() / 2
    between = 2 * (3 * (runs[:3].mean() - 5.75) ** 2 + (9 - 5.75) ** 2)
    assert found.teacher.estimate == pytest.approx((between - within) / (2 * (4 - (9 + 1) / 4)))


def test_one_run_per_teacher_tells_the_two_together_alone():
    found = stats.decompose(TABLE, [3, 1, 0, 7])
    assert found.teacher is None
    assert found.student is None
    runs = TABLE.mean(axis=1)
    assert found.together.estimate == pytest.approx(runs.var(ddof=1) - found.residual.estimate / 2)


def test_one_teacher_tells_its_students_alone():
    found = stats.decompose(TABLE, [0, 0, 0, 0])
    apart = stats.decompose(TABLE, [0, 1, 2, 3])
    assert found.teacher is None
    assert found.together is None
    assert found.student.estimate == pytest.approx(apart.together.estimate)


def test_intervals_are_those_of_the_formulas():
    found = stats.decompose(TABLE, [0, 1, 2, 3])
    upper, lower = 2 * TABLE.mean(axis=1).var(ddof=1), found.residual.estimate
    expected = [
        3 * (upper - scipy.stats.f.ppf(tail, 3, 3) * lower) / (2 * scipy.stats.chi2.ppf(tail, 3))
        for tail in (0.975, 0.025)
    ]
    assert found.together.ci95 == pytest.approx(np.maximum(0, expected))
    assert found.residual.ci95 == pytest.approx(
        [3 * lower / scipy.stats.chi2.ppf(tail, 3) for tail in (0.975, 0.025)]
    )


def test_a_negative_estimate_is_kept_and_shown_as_none():
    found = stats.decompose([[1.0, 3.0, 2.0], [3.0, 1.0, 2.0]], [0, 1])
    assert found.together.estimate == pytest.approx(-2.0 / 3)
    assert found.together.variance == 0.0
    assert found.together.ci95[0] == 0.0


def test_no_spread_at_all_is_no_variance():
    found = stats.decompose(np.full((3, 4), 2.5), [0, 1, 2])
    for part in (found.together, found.column, found.residual):
        assert (part.estimate, part.ci95) == (0.0, (0.0, 0.0))
    assert found.lag1 == 0.0


def test_residuals_that_alternate_correlate_negatively_and_slow_ones_positively():
    signs = np.array([1.0, -1.0])[:, None]
    alternating = stats.decompose(signs * np.tile([1.0, -1.0], 10), [0, 1])
    slow = stats.decompose(signs * np.sin(np.linspace(0, 2 * np.pi, 20)), [0, 1])
    assert alternating.lag1 == pytest.approx(-19 / 20)
    assert slow.lag1 > 0.8


@pytest.mark.parametrize(
    ("values", "teachers", "message"),
    [
        ([[1.0, 2.0]], [0], "two complete runs"),
        ([[1.0], [2.0]], [0, 1], "two complete runs"),
        ([[1.0, 2.0], [np.nan, 1.0]], [0, 1], "two complete runs"),
        ([[1.0, 2.0], [3.0, 1.0]], [0], "not one for each of 2 runs"),
    ],
)
def test_what_cannot_be_split_is_refused(values, teachers, message):
    with pytest.raises(ValueError, match=message):
        stats.decompose(values, teachers)


@pytest.mark.parametrize("students", [1, 3])
def test_estimates_are_right_on_average_and_intervals_hold_the_truth(students):
    generator = np.random.default_rng(7)
    sds = (0.5, 0.3, 0.2, 0.4)
    truth = {"teacher": 0.25, "student": 0.09, "column": 0.04, "residual": 0.16}
    if students == 1:
        truth = {"together": 0.34, "column": 0.04, "residual": 0.16}
    found = [
        stats.decompose(*simulate(generator, teachers=8, students=students, columns=12, sds=sds))
        for _ in range(2000)
    ]
    for name, variance in truth.items():
        parts = [getattr(each, name) for each in found]
        estimates = np.array([part.estimate for part in parts])
        error = estimates.std() / np.sqrt(len(estimates))
        assert abs(estimates.mean() - variance) < 4 * error, name
        covered = np.mean([part.ci95[0] <= variance <= part.ci95[1] for part in parts])
        assert 0.935 < covered < 0.975, name  # 0.95 with 3 standard errors of 2000 repetitions


def test_components_that_are_not_there_are_zero_on_average():
    generator = np.random.default_rng(3)
    found = [
        stats.decompose(*simulate(generator, teachers=6, students=2, columns=8, sds=(0, 0, 0, 0.4)))
        for _ in range(1000)
    ]
    for name in ("teacher", "student", "column"):
        estimates = np.array([getattr(each, name).estimate for each in found])
        assert abs(estimates.mean()) < 4 * estimates.std() / np.sqrt(len(estimates)), name
        assert (estimates < 0).mean() > 0.3, name  # unbiased, so as often below
