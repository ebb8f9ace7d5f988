"""Simulated studies with a look after every seed: what the tests of differences and of S2 say at each."""

import numpy as np
import scipy.stats
from curve_models import Model

from hkrun.stats import LEVEL, Floats, plan_looks
from hkrun.stats.jackknife import LeaveOneOut, compare_ratio, equate_ratio
from hkrun.stats.looks import nominal_level


def s2_leave_one_out(errors: Floats, looks: tuple[int, ...]) -> list[LeaveOneOut]:
    """S2 (ddof 0) of the first so many runs, with and without each: [runs, epochs], at each look."""
    runs = len(errors)
    first, second = np.triu_indices(runs, 1)
    variances = np.zeros((runs, runs))
    variances[first, second] = np.abs(errors[first] - errors[second]).var(axis=1)
    variances += variances.T
    found = []
    for look in looks:
        sums = variances[:look, :look].sum(axis=1)
        pairs, total = look * (look - 1) / 2, sums.sum() / 2
        without = (total - sums) / (pairs - (look - 1))
        found.append(LeaveOneOut(whole=float(total / pairs), without=without))
    return found


def s2_nominal_p(models: tuple[Model, Model], studies: int, window: int, *, most: int, seed: int) -> Floats:
    """The p of the test of two S2 at every look of a plan: [studies, looks]."""
    generator, looks = np.random.default_rng(seed), plan_looks(most)
    p = np.empty((studies, len(looks)))
    for study in range(studies):
        sides = [model.draw((1, most, window), generator)[0] for model in models]
        figures = zip(*(s2_leave_one_out(side, looks) for side in sides), strict=True)
        for column, (ours, theirs) in enumerate(figures):
            found = compare_ratio(ours, theirs).p
            p[study, column] = 1.0 if found is None else found
    return p


def s2_factor_nominal_p(
    models: tuple[Model, Model], studies: int, window: int, *, ratio: float, factor: float, most: int
) -> Floats:
    """P of both one-sided tests of S2 within a factor at every look of a plan: [studies, looks, 2].

    The curves of the first model are stretched by the root of `ratio`, which multiplies S2 by it exactly.
    """
    generator, looks = np.random.default_rng(most), plan_looks(most)
    p = np.empty((studies, len(looks), 2))
    for study in range(studies):
        first, second = (model.draw((1, most, window), generator)[0] for model in models)
        sides = (np.sqrt(ratio) * first, second)
        figures = zip(*(s2_leave_one_out(side, looks) for side in sides), strict=True)
        for column, (ours, theirs) in enumerate(figures):
            found = equate_ratio(ours, theirs, factor=factor)
            p[study, column] = found.p_above, found.p_below
    return p


def show_equal(p: Floats, *, most: int, level: float = LEVEL) -> tuple[np.ndarray, Floats]:
    """Which studies a plan shows to be equal, both sides having crossed, and after how many seeds."""
    nominal = nominal_level(plan_looks(most), level=level, two_sided=False)
    crossed = np.logical_or.accumulate(p <= nominal, axis=1).all(axis=2)
    shown = crossed.any(axis=1)
    return shown, np.where(shown, crossed.argmax(axis=1) + plan_looks(most)[0], most).astype(float)


def difference_nominal_p(d_z: float, studies: int, *, most: int, seed: int) -> Floats:
    """The p of Student's t test at every look of a plan, of normal differences: [studies, looks]."""
    values = np.random.default_rng(seed).standard_normal((studies, most)) + d_z
    return np.stack(
        [scipy.stats.ttest_1samp(values[:, :look], 0, axis=1).pvalue for look in plan_looks(most)], axis=1
    )


def t_p(values: Floats, looks: tuple[int, ...]) -> Floats:
    """The two-sided p of a t test at each look; of equal values by their sign alone: [studies, looks]."""
    pairs = np.array(looks)
    sums, squares = (np.cumsum(each, axis=1)[:, pairs - 1] for each in (values, values**2))
    variances = np.maximum(squares - sums**2 / pairs, 0) / (pairs - 1)
    constant = variances < 1e-12
    t = sums / np.sqrt(pairs * np.where(constant, 1, variances))
    signs = np.where(np.abs(sums) > 1e-9, 2 * 0.5**pairs, 1.0)
    return np.where(constant, signs, 2 * scipy.stats.t.sf(np.abs(t), pairs - 1))


def decide(p: Floats, *, most: int) -> tuple[np.ndarray, Floats]:
    """Which studies a plan decides, and after how many seeds each ends."""
    crossed = p <= nominal_level(plan_looks(most))
    decided = crossed.any(axis=1)
    return decided, np.where(decided, crossed.argmax(axis=1) + plan_looks(most)[0], most).astype(float)


def first_small_p(looks: tuple[int, ...], studies: int, *, seed: int) -> float:
    """How often chance shows p up to 5 % at some look, each corrected for those up to it alone."""
    generator, crossed, step = np.random.default_rng(seed), 0, 10_000
    for _ in range(0, studies, step):
        values = generator.standard_normal((step, looks[-1]))
        p = [scipy.stats.ttest_1samp(values[:, :look], 0, axis=1).pvalue for look in looks]
        levels = [nominal_level(looks[: place + 1]) for place in range(len(looks))]
        crossed += int(np.any([found <= level for found, level in zip(p, levels, strict=True)], axis=0).sum())
    return crossed / (-(-studies // step) * step)
