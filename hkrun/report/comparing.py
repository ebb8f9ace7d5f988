"""What cells say against each other: paired comparisons of errors and of S, corrected within a family."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hkrun import stats
from hkrun.report.summary import CellSummary, Comparison, Curve, Teacher
from hkrun.spaces import Sweep

OVER = " over "  # "A over B" is the error of A minus that of B


@dataclass(frozen=True, kw_only=True)
class Side:
    """One side of a comparison of errors.

    Attributes:
        name: What a reader calls it.
        identity: What it is: equal for two names of one configuration.
        errors: Error of the last epoch in percent by seed.
        constant: An error that is one number, whatever the seed, in place of `errors`.
    """

    name: str
    identity: str
    errors: Mapping[int, float]
    constant: float | None = None


def cell_side(cell: CellSummary) -> Side:
    """The errors of a cell's finished runs; none where they were selected on the test error."""
    errors = {} if cell.selection else dict(zip(cell.seeds, cell.error_pct[:, -1].tolist(), strict=True))
    return Side(name=cell.name, identity=cell.cell_id, errors=errors)


def teacher_side(name: str, teacher: Teacher) -> Side | None:
    """A teacher's error, one number; None where the store does not have it."""
    if teacher.record is None:
        return None
    return Side(name=name, identity=teacher.teacher_id, errors={}, constant=teacher.record.error_pct)


def gain_side(name: str, first: Side, second: Side) -> Side:
    """The error of the first minus that of the second, by seed."""
    errors = {
        seed: first.errors[seed] - second.errors[seed] for seed in first.errors if seed in second.errors
    }
    return Side(name=name, identity=f"{first.identity}-{second.identity}", errors=errors)


def compare_errors(side: Side, other: Side) -> Comparison | None:
    """Compares errors seed by seed; None without a common seed."""
    pair = _pair_errors(side, other)
    if pair is None:
        return None
    ours, theirs = pair
    generator = make_generator("difference", side.identity, other.identity)
    result = stats.paired_difference(ours, theirs, generator=generator)
    constant = next((one.name for one in (side, other) if one.constant is not None), "")
    return Comparison(
        measure="error",
        cell=side.name,
        reference=other.name,
        value=float(np.mean(ours)),
        reference_value=float(np.mean(theirs)),
        by_seed=tuple((ours - theirs).tolist()),
        ci95=result.ci95,
        effect=stats.effect_size(ours - theirs),
        p=result.p,
        p_holm=result.p,
        one_number=constant,
        n=result.n,
    )


def compare_equivalence(side: Side, other: Side, *, margin: float, one_sided: bool) -> Comparison | None:
    """Tests whether two errors are equivalent, or the first no worse; None with fewer than two seeds."""
    pair = _pair_errors(side, other)
    if pair is None or len(pair[0]) < 2:
        return None
    ours, theirs = pair
    result = stats.equivalence(ours - theirs, margin=margin)
    p, p_against = (result.p_below, 1 - result.p_below) if one_sided else (result.p, result.p_beyond)
    return Comparison(
        measure="no worse" if one_sided else "equivalence",
        cell=side.name,
        reference=other.name,
        value=float(np.mean(ours)),
        reference_value=float(np.mean(theirs)),
        by_seed=tuple((ours - theirs).tolist()),
        ci95=result.ci90,
        effect=stats.effect_size(ours - theirs),
        p=p,
        p_holm=p,
        p_against=p_against,
        p_against_holm=p_against,
        margin=margin,
        n=result.n,
    )


def compare_stability(cell: CellSummary, other: CellSummary, sweep: Sweep) -> Comparison | None:
    """Both S are over the same seeds: with different numbers of runs their ranges could not be compared."""
    ours, theirs = pair_curves(cell, other)
    if len(ours) < 2 or min(ours.shape[1], theirs.shape[1]) < sweep.window:
        return None
    result = stats.compare_stability(
        ours[:, -sweep.window :],
        theirs[:, -sweep.window :],
        window=sweep.window,
        ddof=sweep.ddof,
        generator=make_generator("S", cell.cell_id, other.cell_id),
    )
    return Comparison(
        measure="stability",
        cell=cell.name,
        reference=other.name,
        value=result.s,
        reference_value=result.s_reference,
        p=result.p,
        p_holm=result.p,
        n=result.runs,
    )


def correct(comparisons: Sequence[tuple[Comparison, frozenset[str]]]) -> list[Comparison]:
    """Corrects a family of tests by Holm's method.

    Args:
        comparisons: Each with what identifies its test: names that stand for one configuration share one
            test, which counts once, whichever way round it is asked.
    """
    tests = {test: comparison.p for comparison, test in comparisons}
    against = {test: comparison.p_against for comparison, test in comparisons}
    corrected, corrected_against = (
        dict(zip(tests, stats.holm(list(found.values())), strict=True)) for found in (tests, against)
    )
    return [
        replace(comparison, p_holm=corrected[test], p_against_holm=corrected_against[test])
        for comparison, test in comparisons
    ]


def compare_with_reference(
    measure: str, cells: Sequence[CellSummary], reference: CellSummary | None, sweep: Sweep
) -> tuple[Comparison, ...]:
    """Compares every cell with one as a family of tests; a pair without common data is left out."""
    found = []
    for cell in cells:
        if reference is None or cell.cell_id == reference.cell_id:
            continue
        comparison = (
            compare_errors(cell_side(cell), cell_side(reference))
            if measure == "error"
            else compare_stability(cell, reference, sweep)
        )
        if comparison is not None:
            found.append((comparison, frozenset((cell.cell_id, reference.cell_id))))
    return tuple(correct(found))


def pair_curves(cell: CellSummary, other: CellSummary) -> tuple[Curve, Curve]:
    """The errors of both cells, row for row with the same seeds: those that both finished.

    None where the runs of either were selected on the test error.
    """
    selected = cell.selection or other.selection
    common = [] if selected else [seed for seed in cell.seeds if seed in other.seeds]
    ours, theirs = (item.error_pct[[item.seeds.index(seed) for seed in common]] for item in (cell, other))
    return ours, theirs


def make_generator(*words: str) -> np.random.Generator:
    """A generator that depends on what it is for and nothing else."""
    digest = hashlib.sha256("\n".join(("hkrun report", *words)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def _pair_errors(side: Side, other: Side) -> tuple[Curve, Curve] | None:
    known = [set(one.errors) for one in (side, other) if one.constant is None]
    seeds = sorted(set.intersection(*known)) if known else []
    if not seeds:
        return None
    ours, theirs = (
        np.array([one.errors[seed] if one.constant is None else one.constant for seed in seeds])
        for one in (side, other)
    )
    return ours, theirs
