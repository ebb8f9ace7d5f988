"""Variance components: how much of the spread of errors teachers, students and epochs have."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike

from hkrun.stats.errors import LEVEL, Interval
from hkrun.stats.permutations import Floats


@dataclass(frozen=True, kw_only=True)
class Component:
    """One variance component, in squared units of the values.

    Attributes:
        estimate: Unbiased under the model, and so below 0 now and then; a report shows 0 for that.
        ci95: Its 95 % interval, cut off at 0: of Tukey and Williams, approximate; of the residual, exact.
    """

    estimate: float
    ci95: Interval

    @property
    def variance(self) -> float:
        """The estimate, or 0 where that is negative."""
        return max(0.0, self.estimate)


@dataclass(frozen=True, kw_only=True)
class VarianceComponents:
    """The components of `decompose`.

    Attributes:
        teacher: Between teachers; None where no teacher has two runs, or there is one.
        student: Between runs of one teacher; None where no teacher has two.
        together: Between runs, teacher and student in one; None where the two are told apart.
        column: Between columns, common to all runs.
        residual: What is left: each run's own in each column.
        lag1: Correlation of the residuals of neighbouring columns, mean over runs.
        runs: Number of runs.
        teachers: Number of teachers.
        columns: Number of columns.
    """

    teacher: Component | None
    student: Component | None
    together: Component | None
    column: Component
    residual: Component
    lag1: float
    runs: int
    teachers: int
    columns: int


@dataclass(frozen=True)
class _MeanSquare:
    value: float
    df: int


def decompose(values: ArrayLike, teachers: Sequence[int]) -> VarianceComponents:
    """Splits the variance of values of runs by the method of moments (ANOVA).

    The model of run s of teacher t in column e, all effects independent with mean 0:

        y_tse = mean + teacher_t + student_ts + column_e + residual_tse

    Runs lie within teachers, columns across both. Each mean square has, under the model, the residual's
    variance and multiples of others for its expectation, from which the components follow (Searle, Casella
    and McCulloch 1992, chapters 3 and 4; for teachers with unequally many runs, with n_0 =
    (N - sum(n_t^2) / N) / (T - 1) runs each). With one run per teacher the two cannot be told apart.

    Args:
        values: Shape [runs, columns], complete.
        teachers: The teacher of each run.

    Raises:
        ValueError: Fewer than two runs or columns, a value missing, or not one teacher per run.
    """
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.ndim != 2 or min(matrix.shape) < 2 or not np.isfinite(matrix).all():
        raise ValueError(f"values have shape {matrix.shape}: two complete runs and columns are needed")
    num_runs, num_columns = matrix.shape
    if len(teachers) != num_runs:
        raise ValueError(f"{len(teachers)} teachers are not one for each of {num_runs} runs")
    _, group, sizes = np.unique(np.asarray(teachers), return_inverse=True, return_counts=True)
    num_teachers = len(sizes)
    runs, columns = matrix.mean(axis=1), matrix.mean(axis=0)
    mean = matrix.mean()
    rest = matrix - runs[:, None] - columns + mean
    residual = _MeanSquare(
        float((rest**2).sum()) / ((num_runs - 1) * (num_columns - 1)), (num_runs - 1) * (num_columns - 1)
    )
    column = _MeanSquare(num_runs * float(((columns - mean) ** 2).sum()) / (num_columns - 1), num_columns - 1)
    of_teacher = np.bincount(group, weights=runs) / sizes
    teacher = student = together = None
    if num_teachers == num_runs:
        together = _subtract(
            _MeanSquare(num_columns * float(runs.var(ddof=1)), num_runs - 1), residual, num_columns
        )
    else:
        within_df = num_runs - num_teachers
        within = _MeanSquare(
            num_columns * float(((runs - of_teacher[group]) ** 2).sum()) / within_df, within_df
        )
        student = _subtract(within, residual, num_columns)
        if num_teachers > 1:
            spread = num_columns * float((sizes * (of_teacher - mean) ** 2).sum()) / (num_teachers - 1)
            alike = (num_runs - (sizes**2).sum() / num_runs) / (num_teachers - 1)
            teacher = _subtract(_MeanSquare(spread, num_teachers - 1), within, num_columns * float(alike))
    return VarianceComponents(
        teacher=teacher,
        student=student,
        together=together,
        column=_subtract(column, residual, num_runs),
        residual=Component(estimate=residual.value, ci95=_chi_square(residual)),
        lag1=_correlate_neighbours(rest),
        runs=num_runs,
        teachers=num_teachers,
        columns=num_columns,
    )


def _subtract(upper: _MeanSquare, lower: _MeanSquare, times: float) -> Component:
    """The component whose multiple is what the first mean square expects beyond the second."""
    return Component(estimate=(upper.value - lower.value) / times, ci95=_tukey_williams(upper, lower, times))


def _tukey_williams(upper: _MeanSquare, lower: _MeanSquare, times: float) -> Interval:
    """The interval of Tukey and Williams (Searle, Casella and McCulloch 1992, section 3.6)."""
    tails = (1 - LEVEL / 2, LEVEL / 2)
    ends = []
    for tail in tails:
        ratio = scipy.special.fdtri(upper.df, lower.df, tail)
        chi_square = 2 * scipy.special.gammaincinv(upper.df / 2, tail)
        ends.append(max(0.0, float(upper.df * (upper.value - ratio * lower.value) / (times * chi_square))))
    return ends[0], ends[1]


def _chi_square(square: _MeanSquare) -> Interval:
    low, high = (2 * scipy.special.gammaincinv(square.df / 2, tail) for tail in (1 - LEVEL / 2, LEVEL / 2))
    return float(square.df * square.value / low), float(square.df * square.value / high)


def _correlate_neighbours(rest: Floats) -> float:
    """Mean over runs of the lag-1 autocorrelation; 0 where nothing varies."""
    products, squares = (rest[:, 1:] * rest[:, :-1]).sum(axis=1), (rest**2).sum(axis=1)
    varying = squares > 0
    return float((products[varying] / squares[varying]).mean()) if varying.any() else 0.0
