"""Prints what sequential studies would have made of real runs: `make statistics-of-runs`.

    PYTHONPATH=.:tests python tests/replayed_studies.py --store STORE [--study NAME] [--planned N]

The seeds of a study are drawn in many random orders, as if they had come in so, with a look after each from
the sixth on, up to the number that is planned. Every cell is compared with the reference. What all seeds say
is taken for the truth.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats
from numpy.typing import NDArray
from statistics_of_runs import collect, make_parser, read_studies
from statistics_tables import print_table

from hkrun.errors import HkrunError
from hkrun.stats import LEVEL, Floats, compare_pair_stability
from hkrun.stats.looks import nominal_level
from hkrun.stats.sequential import plan_looks

Bools = NDArray[np.bool_]

_SEED = 0
ORDERS = 2_000
ORDERS_OF_S2 = 200


@dataclass(frozen=True)
class Outcome:
    """What studies end with.

    Attributes:
        pairs: After how many pairs each question ended, shape [studies, questions].
        different: Which found a difference, likewise.
        equivalent: Which found none, within the margin.
    """

    pairs: NDArray[np.int_]
    different: Bools
    equivalent: Bools


def replay(differences: Floats, margins: Floats, looks: Sequence[int], *, level: float = LEVEL) -> Outcome:
    """Studies with these looks that ask of each comparison whether it differs, or is within its margin.

    Both are families (Holm). It decides as `sequential_difference` and `sequential_equivalence` do: their p
    are up to a level exactly where the smallest p of all looks so far is up to `nominal_level`. With one look
    it is the fixed design.

    Args:
        differences: In the order in which they come in, shape [studies, pairs, questions].
        margins: Of equivalence, shape [questions].
    """
    counts = np.array(looks)[:, None]
    sums, squares = (
        np.cumsum(each, axis=1)[:, np.array(looks) - 1] for each in (differences, differences**2)
    )
    means = sums / counts
    errors = np.sqrt((squares - sums * means) / (counts - 1) / counts)

    def smallest(values: Floats) -> Floats:
        return np.minimum.accumulate(scipy.stats.t.sf(values / errors, counts - 1), axis=1)

    of_difference = np.minimum.accumulate(2 * scipy.stats.t.sf(np.abs(means) / errors, counts - 1), axis=1)
    of_equivalence = np.maximum(smallest(margins + means), smallest(margins - means))
    different = step_down(of_difference, looks, two_sided=True, level=level)
    equivalent = step_down(of_equivalence, looks, two_sided=False, level=level) & ~different
    decided = different | equivalent
    ends = np.where(decided.any(axis=1), decided.argmax(axis=1), len(looks) - 1)
    return Outcome(
        pairs=np.array(looks)[ends],
        different=np.take_along_axis(different, ends[:, None], axis=1)[:, 0],
        equivalent=np.take_along_axis(equivalent, ends[:, None], axis=1)[:, 0],
    )


def step_down(p_values: Floats, looks: Sequence[int], *, two_sided: bool, level: float) -> Bools:
    """What Holm's method rejects, by the smallest nominal p so far: [studies, looks, questions]."""
    questions = p_values.shape[2]
    order = np.argsort(p_values, axis=2)
    levels = [
        nominal_level(tuple(looks), level=level / (questions - rank), two_sided=two_sided)
        for rank in range(questions)
    ]
    passed = np.take_along_axis(p_values, order, axis=2) <= levels
    rejected = np.empty(p_values.shape, dtype=np.bool_)
    np.put_along_axis(rejected, order, np.logical_and.accumulate(passed, axis=2), axis=2)
    return rejected


def draw_orders(seeds: int, planned: int, number: int) -> NDArray[np.intp]:
    """Which seeds come in, in which order: [number, planned]."""
    generator = np.random.default_rng(_SEED)
    return generator.permuted(np.tile(np.arange(seeds), (number, 1)), axis=1)[:, :planned]


def describe(outcome: Outcome, question: int | slice) -> list[str]:
    """Mean number of pairs, and how often there is which answer, in %."""
    different, equivalent = (
        100 * found[:, question].mean() for found in (outcome.different, outcome.equivalent)
    )
    return [f"{outcome.pairs[:, question].mean():.1f}", f"{different:.1f}", f"{equivalent:.1f}"]


def print_errors(differences: dict[str, Floats], shift_sd: float | None, planned: int) -> None:
    """Replays of questions about errors, each alone and all as one study.

    Args:
        differences: Of the last errors, by cell.
        shift_sd: What is added to the differences after their mean is taken off, in their standard deviation;
            None leaves them as they are.
    """
    values = np.stack(list(differences.values()), axis=1)
    margins = values.std(axis=0, ddof=1)
    told = "as they are"
    if shift_sd is not None:
        values = values - values.mean(axis=0) + shift_sd * margins
        told = f"their mean made {shift_sd:g} sd"
    orders = draw_orders(len(values), planned, ORDERS)
    looks = plan_looks(planned)
    rows = []
    for index, cell in enumerate(differences):
        alone, margin = values[:, [index]], margins[[index]]
        truth = replay(alone[None], margin, [len(values)])
        rows.append(
            [
                cell,
                f"{alone.mean() / margin[0]:+.2f}",
                "different" if truth.different[0, 0] else "equal" if truth.equivalent[0, 0] else "open",
                *describe(replay(alone[orders], margin, [planned]), 0),
                *describe(replay(alone[orders], margin, looks), 0),
            ]
        )
    print_table(
        f"Differences {told}, margin 1 sd, each alone: {planned} pairs at once, and with a look after each",
        ["cell", "d_z", "truth", "pairs", "different, %", "equal, %", "pairs", "different, %", "equal, %"],
        rows,
    )
    fixed, sequential = (replay(values[orders], margins, plan) for plan in ([planned], looks))
    needed = sequential.pairs.sum(axis=1) + sequential.pairs.max(axis=1)
    rows = [
        [name, f"{runs:.1f}", *describe(outcome, slice(None))[1:]]
        for name, outcome, runs in (
            ("at once", fixed, planned * (len(differences) + 1)),
            ("sequential", sequential, needed.mean()),
        )
    ]
    print_table(
        f"Differences {told}, as one study (Holm)", ["design", "runs", "different, %", "equal, %"], rows
    )


def print_s2(curves: dict[str, Floats], reference: str, window: int, planned: int) -> None:
    """Replays of questions about S2, as it is and with the fluctuations of the cell's runs made larger."""
    looks = plan_looks(planned)
    orders = draw_orders(len(curves[reference]), planned, ORDERS_OF_S2)
    rows = []
    for cell, ratio in ((cell, ratio) for cell in curves if cell != reference for ratio in (1.0, 2.0)):
        mean = curves[cell].mean(axis=1, keepdims=True)
        louder = mean + np.sqrt(ratio) * (curves[cell] - mean)
        smallest = np.array(
            [
                [
                    compare_pair_stability(
                        louder[order[:look]], curves[reference][order[:look]], window=window
                    ).p
                    for look in looks
                ]
                for order in orders
            ]
        )
        found = np.minimum.accumulate(smallest, axis=1) <= nominal_level(looks)
        ends = np.where(found.any(axis=1), found.argmax(axis=1), len(looks) - 1)
        whole = compare_pair_stability(louder, curves[reference], window=window)
        rows.append(
            [
                cell,
                f"{whole.ratio:.2f}",
                f"{whole.p:.2g}",
                f"{100 * (smallest[:, -1] <= LEVEL).mean():.1f}",
                f"{np.array(looks)[ends].mean():.1f}",
                f"{100 * found.any(axis=1).mean():.1f}",
            ]
        )
    print_table(
        f"S2 against the reference, each alone: {planned} pairs at once, and with a look after each",
        ["cell", "ratio of all", "p of all", "different at once, %", "pairs", "different, %"],
        rows,
    )


def main() -> None:
    """Prints all tables."""
    parser = make_parser(__doc__)
    parser.add_argument("--planned", type=int, default=20, help="seeds at most (default: %(default)s)")
    given = parser.parse_args()
    try:
        (summary,) = read_studies(given.store, given.study, given.dataset)
        plan_looks(given.planned)
    except (HkrunError, ValueError) as error:
        parser.error(str(error))
    runs = collect(summary)
    if given.planned > runs.seeds:
        parser.error(f"--planned {given.planned}: {runs.seeds} seeds finished in every cell")
    reference = next(cell.label for cell in summary.cells if cell.name == summary.sweep.reference)
    last = {cell: errors[:, -1] for cell, errors in runs.errors.items()}
    differences = {cell: values - last[reference] for cell, values in last.items() if cell != reference}
    for shift_sd in (None, 1.0, 1.5):
        print_errors(differences, shift_sd, given.planned)
    print_s2(runs.errors, reference, runs.window, given.planned)


if __name__ == "__main__":
    main()
