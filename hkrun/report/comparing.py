"""Paired comparisons of cells, in error and in S, corrected within a family of tests."""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hkrun import stats
from hkrun.config import Cell
from hkrun.report.comparison import Comparison
from hkrun.report.families import Families
from hkrun.report.monitoring import (
    UNMONITORED,
    Monitoring,
    PairedLooks,
    Tested,
    bounded_over_looks,
    difference_over_looks,
    margin_over_looks,
)
from hkrun.report.summary import PERCENT, CellSummary, Curve, Interval, Teacher
from hkrun.spaces import Sweep

OVER = " over "  # "A over B" is the error of A minus that of B
ON = " on "  # "A on cifar10" is the cell A with that data set


@dataclass(frozen=True, kw_only=True)
class Side:
    """One side of a comparison of errors.

    Attributes:
        name: What a reader calls it.
        identity: What it is: equal for two names of one configuration.
        errors: Error of the last epoch in percent by seed.
        lost: Between which errors those of failed and diverged runs could have been, by seed.
        loss: How many were lost, as a sentence's part.
        constant: An error that is one number, whatever the seed, in place of `errors`.
        epochs: Of which epochs the errors are means, as a sentence's part; empty where of the last alone.
        monitoring: When their verdicts are read.
    """

    name: str
    identity: str
    errors: Mapping[int, float]
    lost: Mapping[int, Interval] = field(default_factory=dict)
    loss: str = ""
    constant: float | None = None
    epochs: str = ""
    monitoring: Monitoring = UNMONITORED

    def bounds(self, seed: int) -> Interval | None:
        """Between which errors this seed's is; None where it was not run."""
        known = self.errors.get(seed) if self.constant is None else self.constant
        return self.lost.get(seed) if known is None else (known, known)


def cell_side(cell: CellSummary) -> Side:
    """The errors of a cell's finished runs; none where they were selected on the test error."""
    if cell.selection:
        return Side(name=cell.name, identity=cell.cell_id, errors={}, monitoring=cell.monitoring)
    return Side(
        name=cell.name,
        identity=cell.cell_id,
        errors=dict(zip(cell.seeds, cell.error_pct[:, -1].tolist(), strict=True)),
        lost=dict.fromkeys(cell.lost, PERCENT),
        loss=cell.loss,
        monitoring=cell.monitoring,
    )


def curve_side(cell: CellSummary, epochs: str) -> Side | None:
    """Mean errors of a cell's finished runs over `epochs` of a `Claim`; None where the rate never drops."""
    if epochs == "last":
        return cell_side(cell)
    if epochs == "all":
        return _mean_side(cell, 0, cell.cell.student.epochs)
    drops = drop_epochs(cell.cell)
    if not drops:
        return None
    before = _mean_side(cell, 0, drops[0])
    after = _mean_side(cell, drops[0], cell.cell.student.epochs)
    if epochs == "after drop":
        return after
    assert epochs == "after drop, minus before"
    return replace(gain_side(cell.name, after, before), epochs=f"{after.epochs} minus {before.epochs}")


def _mean_side(cell: CellSummary, first: int, last: int) -> Side:
    """The mean errors over the epochs after the `first` up to the `last`."""
    side = cell_side(cell)
    epochs = f"mean of epochs {first + 1}-{last}" if last - first > 1 else f"error of epoch {last}"
    means = dict(zip(cell.seeds, cell.error_pct[:, first:last].mean(axis=1).tolist(), strict=True))
    return replace(
        side,
        identity=f"{side.identity}, {epochs}",
        errors={seed: means[seed] for seed in side.errors},
        epochs=epochs,
    )


def teacher_side(name: str, teacher: Teacher) -> Side | None:
    """A teacher's error, one number, or each seed's own teacher's; None where the store does not have it."""
    if teacher.error is None:
        return None
    if not teacher.several:
        return Side(name=name, identity=teacher.identity, errors={}, constant=teacher.error.mean)
    errors = {
        seed: own.record.error_pct for own in teacher.trained for seed in own.seeds if own.record is not None
    }
    return Side(name=name, identity=teacher.identity, errors=errors)


def gain_side(name: str, first: Side, second: Side) -> Side:
    """The error of the first minus that of the second, by seed."""
    gains = {
        seed: (ours[0] - theirs[1], ours[1] - theirs[0])
        for seed in (*first.errors, *first.lost)
        if (ours := first.bounds(seed)) is not None and (theirs := second.bounds(seed)) is not None
    }
    return Side(
        name=name,
        identity=f"{first.identity}-{second.identity}",
        errors={seed: low for seed, (low, high) in gains.items() if low == high},
        lost={seed: ends for seed, ends in gains.items() if ends[0] < ends[1]},
        loss=join_losses(first.loss, second.loss),
        monitoring=first.monitoring,
    )


def compare_errors(side: Side, other: Side) -> Comparison | None:
    """Compares errors seed by seed; None without a common seed, or of a configuration with itself."""
    if (pair := _pair_errors(side, other)) is None:
        return None
    generator = make_generator("difference", side.identity, other.identity)
    tested = difference_over_looks(pair.differences, pair.looks, generator)
    constant = next((one.name for one in (side, other) if one.constant is not None), "")
    comparison = _compare("error", side, other, pair, tested, one_number=constant, epochs=side.epochs)
    if side.epochs != other.epochs:
        windows = " and ".join(f"the {one.epochs} of {one.name}" for one in (side, other))
        return _reserve(comparison, f"the errors are {windows}")
    bounds = _bound_pairs(side, other)
    if tested.drift or not len(bounds):
        return comparison
    worst = bounded_over_looks(bounds, pair.looks, generator)
    comparison = replace(comparison, p_by_look=worst.p_by_look, out_of_reach=worst.out_of_reach)
    return _reserve(comparison, join_losses(side.loss, other.loss), p=worst.p)


def compare_equivalence(side: Side, other: Side, *, margin: float, one_sided: bool) -> Comparison | None:
    """Tests whether two errors are equivalent, or the first no worse.

    Where runs of either have no result, nothing is concluded: a t test has no bound over what they could have
    had.

    Returns:
        The comparison; None with fewer than two common seeds, or of a configuration with itself.
    """
    pair = _pair_errors(side, other)
    if pair is None or len(pair.differences) < 2:
        return None
    tested = margin_over_looks(pair.differences, pair.looks, margin=margin, one_sided=one_sided)
    comparison = _compare(
        "no worse" if one_sided else "equivalence", side, other, pair, tested, margin=margin
    )
    if not len(_bound_pairs(side, other)):
        return comparison
    return _reserve(replace(comparison, out_of_reach=True), join_losses(side.loss, other.loss))


def _compare(
    measure: str, side: Side, other: Side, pair: "_Pair", tested: Tested, **described: Any
) -> Comparison:
    comparison = Comparison(
        measure=measure,
        cell=side.name,
        reference=other.name,
        value=float(np.mean(pair.ours)),
        reference_value=float(np.mean(pair.theirs)),
        by_seed=tuple(pair.differences.tolist()),
        effect=stats.effect_size(pair.differences, level=pair.looks.level()),
        ci95=tested.ci,
        p=tested.p,
        p_holm=tested.p,
        p_against=tested.p_against,
        p_against_holm=tested.p_against,
        looks=pair.looks,
        p_nominal=tested.p_nominal if len(pair.looks.counts) > 1 else None,
        p_by_look=tested.p_by_look,
        test=identify_test(side.identity, other.identity),
        n=len(pair.differences),
        **described,
    )
    return _reserve(comparison, tested.drift) if tested.drift else comparison


def identify_test(*identities: str) -> tuple[str, ...]:
    """What a test is of, whichever of its sides comes first."""
    return tuple(sorted(identities))


def compare_stability(cell: CellSummary, other: CellSummary, sweep: Sweep) -> Comparison | None:
    """Compares S over the seeds that both cells finished; None without S over them, or of a cell with itself.

    With different numbers of runs the ranges could not be compared. Where runs of either have no result,
    nothing is concluded, for one curve more can give S any value; nor where the windows are other epochs.
    """
    pair = pair_windows(cell, other, sweep)
    if pair is None:
        return None
    ours, theirs = pair
    result = stats.compare_stability(
        ours,
        theirs,
        window=sweep.window,
        ddof=sweep.ddof,
        generator=make_generator("S", cell.cell_id, other.cell_id),
    )
    reservation = reserve_curves("S", cell, other, sweep)
    looks = cell.monitoring.of_pairs(common_seeds(cell, other))
    p = looks.correct(result.p)
    comparison = Comparison(
        measure="stability",
        cell=cell.name,
        reference=other.name,
        value=result.s,
        reference_value=result.s_reference,
        p=p,
        p_holm=p,
        looks=looks,
        p_nominal=result.p if len(looks.counts) > 1 else None,
        test=identify_test(cell.cell_id, other.cell_id),
        n=result.runs,
    )
    return _reserve(comparison, reservation) if reservation else comparison


def pair_windows(cell: CellSummary, other: CellSummary, sweep: Sweep) -> tuple[Curve, Curve] | None:
    """The last epochs of both cells on common seeds; None without S over them, or of a cell with itself."""
    epochs = min(item.error_pct.shape[1] for item in (cell, other))
    if epochs < sweep.window or cell.cell_id == other.cell_id:
        return None
    ours, theirs = pair_curves(cell, other, last=sweep.window)
    return (ours, theirs) if len(ours) > 1 else None


def reserve_curves(figure: str, cell: CellSummary, other: CellSummary, sweep: Sweep) -> str:
    """Why a figure of both cells' last epochs must not be compared; empty where it may."""
    windows = ""
    if cell.cell.student.epochs != other.cell.student.epochs:
        parts = [f"epochs {write_window(side.cell, sweep.window)} of {side.label}" for side in (cell, other)]
        windows = f"{figure} is over {' and '.join(parts)}"
    lost = join_losses(cell.loss, other.loss) if lost_in_common(cell, other) else ""
    return join_losses(windows, lost)


def drop_epochs(cell: Cell) -> tuple[int, ...]:
    """The last epoch, counted from 1, before each drop of the student's learning rate."""
    student = cell.student
    # The tolerance is that of the training.
    before = (math.ceil(fraction * student.epochs - 1e-9) for fraction in student.drops)
    return tuple(epoch for epoch in before if epoch < student.epochs and student.drop_factor != 1)


def write_window(cell: Cell, window: int) -> str:
    """The epochs that S is taken over: 101-120."""
    return f"{cell.student.epochs - window + 1}-{cell.student.epochs}"


def bound_by(differences: Iterable[Comparison], equivalences: Iterable[Comparison]) -> list[Comparison]:
    """Lets no equivalence test call different what the permutation test of the same pair does not.

    A t test of three seeds may find a difference beyond the margin, which no permutation of three seeds can
    show. One rule decides: whether two cells differ says the permutation test, with the correction of its own
    table; the equivalence test says only how their difference lies to the margin.
    """
    shown = {comparison.test: comparison.p_holm for comparison in differences}
    return [
        replace(item, p_against_holm=max(item.p_against_holm, shown.get(item.test, 0.0)))
        if item.margin is not None
        else item
        for item in equivalences
    ]


def compare_with_reference(
    measure: str,
    cells: Sequence[CellSummary],
    reference: CellSummary | None,
    sweep: Sweep,
    families: Families,
) -> tuple[Comparison, ...]:
    """Compares every cell with one as a table of tests; a pair without common data is left out."""
    if reference is None:
        return ()
    found = (
        compare_errors(cell_side(cell), cell_side(reference))
        if measure == "error"
        else compare_stability(cell, reference, sweep)
        for cell in cells
    )
    return tuple(families.correct_comparisons([comparison for comparison in found if comparison is not None]))


def pair_curves(cell: CellSummary, other: CellSummary, *, last: int) -> tuple[Curve, Curve]:
    """The errors of both cells in the last epochs, row for row with the same seeds: those that both finished.

    None where the runs of either were selected on the test error.
    """
    common = common_seeds(cell, other)
    ours, theirs = (_choose_rows(item, common, last) for item in (cell, other))
    return ours, theirs


def _choose_rows(cell: CellSummary, seeds: Sequence[int], last: int) -> Curve:
    rows = {seed: row for row, seed in enumerate(cell.seeds)}
    chosen = slice(None) if tuple(seeds) == cell.seeds else [rows[seed] for seed in seeds]
    errors: Curve = cell.error_pct[chosen, -last:]
    return errors


def common_seeds(cell: CellSummary, other: CellSummary) -> list[int]:
    """The seeds that both cells finished, in their order; none where the runs of either were selected."""
    if cell.selection or other.selection:
        return []
    return cell.monitoring.order({*cell.seeds} & {*other.seeds})


def make_generator(*words: str) -> np.random.Generator:
    """A generator that depends on what it is for and nothing else."""
    digest = hashlib.sha256("\n".join(("hkrun report", *words)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def _reserve(comparison: Comparison, reservation: str, *, p: float = 1.0) -> Comparison:
    """The comparison of runs that do not stand for all: with the largest p there may be."""
    return replace(
        comparison,
        ci95=None,
        effect=None,
        p=p,
        p_holm=p,
        p_against=1.0,
        p_against_holm=1.0,
        p_nominal=None,
        reservation=reservation,
    )


def lost_in_common(cell: CellSummary, other: CellSummary) -> bool:
    """Whether a seed that both cells ran has no result in one of them."""
    ran, other_ran = ({*item.seeds, *item.lost} for item in (cell, other))
    return bool(ran & other_ran & {*cell.lost, *other.lost})


def _bound_pairs(side: Side, other: Side) -> Curve:
    """Lowest and highest difference of each seed that both ran, [seeds, 2]; of none where none was lost."""
    if not side.lost and not other.lost:
        return np.empty((0, 2))
    ran = [{*one.errors, *one.lost} for one in (side, other) if one.constant is None]
    monitoring = side.monitoring if side.monitoring.looks else other.monitoring
    seeds = monitoring.order(set.intersection(*ran)) if ran else []
    pairs = [(side.bounds(seed), other.bounds(seed)) for seed in seeds]
    ends = [(ours[0] - theirs[1], ours[1] - theirs[0]) for ours, theirs in pairs if ours and theirs]
    bounds = np.array(ends).reshape(-1, 2)
    return bounds if (bounds[:, 0] < bounds[:, 1]).any() else bounds[:0]


def join_losses(*losses: str) -> str:
    """Sentence parts that are not empty, each once."""
    return "; ".join(dict.fromkeys(filter(None, losses)))


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """The errors of two sides on common seeds, in their order, and when they were looked at."""

    ours: Curve
    theirs: Curve
    looks: PairedLooks

    @property
    def differences(self) -> Curve:
        return self.ours - self.theirs


def _pair_errors(side: Side, other: Side) -> _Pair | None:
    known = [set(one.errors) for one in (side, other) if one.constant is None]
    monitoring = side.monitoring if side.monitoring.looks else other.monitoring
    seeds = monitoring.order(set.intersection(*known)) if known else []
    if not seeds or side.identity == other.identity:
        return None
    ours, theirs = (
        np.array([one.errors[seed] if one.constant is None else one.constant for seed in seeds])
        for one in (side, other)
    )
    return _Pair(ours=ours, theirs=theirs, looks=monitoring.of_pairs(seeds))
