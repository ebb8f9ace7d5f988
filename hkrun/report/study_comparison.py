"""Two studies side by side: their errors and S cell by cell, paired where seeds, data and teacher agree."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hkrun import stats
from hkrun.report.comparing import cell_side, compare_errors, compare_stability
from hkrun.report.comparison import Comparison
from hkrun.report.families import Families
from hkrun.report.monitoring import UNMONITORED
from hkrun.report.study_pairing import DATA_KEYS, ComparedStudy, Match, match_cells
from hkrun.report.summary import CellSummary
from hkrun.report.wording import count, join

# Common seeds, as a share of those of the smaller cell, from which on runs are paired: below, more would be
# lost by leaving the others out than is won by pairing.
PAIRED_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class CellPair:
    """A cell of each study, and how they compare.

    Attributes:
        seeds: Those that both finished.
        why_unpaired: Why their errors are not compared seed by seed, as a sentence's part; empty where they
            are.
        error: The second minus the first: by seed, else of all their runs (Welch); None where that says
            nothing.
        stability: Of S; None where no test compares them.
        why_no_test: Why none compares S; empty where one does.
        same_runs: Whether it is one configuration, and every common seed ended with the same error.
    """

    match: Match
    seeds: tuple[int, ...]
    why_unpaired: str
    error: Comparison | None
    stability: Comparison | None
    why_no_test: str
    same_runs: bool

    @property
    def paired(self) -> bool:
        """Whether the errors are compared seed by seed."""
        return not self.why_unpaired


@dataclass(frozen=True, kw_only=True)
class StudyComparison:
    """Two studies side by side.

    Attributes:
        pairs: The cells that belong together.
        alone: Names of the cells without a counterpart, of each study.
        cautions: What else differs between them, in sentences.
    """

    first: ComparedStudy
    second: ComparedStudy
    pairs: tuple[CellPair, ...]
    alone: tuple[tuple[str, ...], tuple[str, ...]]
    cautions: tuple[str, ...]


def compare_studies(
    first: ComparedStudy, second: ComparedStudy, *, cells: Sequence[str] = ()
) -> StudyComparison:
    """Compares two studies cell by cell; p values are corrected over all cells, of errors and of S apart.

    `cells` says which belong together where their names do not: see `match_cells`.

    Raises:
        InputError: See `match_cells`.
    """
    pairs = [_compare(match, first, second) for match in match_cells(first, second, cells)]
    families = Families()
    errors = iter(families.correct_comparisons([pair.error for pair in pairs if pair.error is not None]))
    spreads = iter(
        families.correct_comparisons([pair.stability for pair in pairs if pair.stability is not None])
    )
    corrected = tuple(
        dataclasses.replace(
            pair,
            error=None if pair.error is None else next(errors),
            stability=None if pair.stability is None else next(spreads),
        )
        for pair in pairs
    )
    matched = [{getattr(pair.match, side).name for pair in pairs} for side in ("first", "second")]
    ours, theirs = (
        tuple(name for name in study.cells if name not in names)
        for study, names in zip((first, second), matched, strict=True)
    )
    return StudyComparison(
        first=first,
        second=second,
        pairs=corrected,
        alone=(ours, theirs),
        cautions=tuple(_write_cautions(first, second, corrected)),
    )


def _compare(match: Match, first: ComparedStudy, second: ComparedStudy) -> CellPair:
    # Of one configuration too, for its runs may be of other code or of another machine.
    ours, theirs = (
        dataclasses.replace(cell, cell_id=f"{side} {cell.cell_id}", monitoring=UNMONITORED)
        for side, cell in (("A", match.first), ("B", match.second))
    )
    seeds = tuple(seed for seed in ours.seeds if seed in theirs.seeds)
    same_runs = match.same and _errors(ours, seeds) == _errors(theirs, seeds)
    why_unpaired = _find_unlike(match, seeds)
    if match.first.selection or match.second.selection:
        why_no_test, error = "selected on test error", None
    elif not (ours.seeds and theirs.seeds):
        why_no_test, error = why_unpaired, None
    elif same_runs:
        why_no_test, error = "the same configuration", None
    elif why_unpaired:
        why_no_test, error = why_unpaired, _compare_unpaired(theirs, ours)
    else:
        why_no_test, error = "", compare_errors(cell_side(theirs), cell_side(ours))
    sweeps = [study.summary.sweep for study in (first, second)]
    windows = [(sweep.window, sweep.ddof) for sweep in sweeps]
    if not why_no_test and windows[0] != windows[1]:
        why_no_test = "S is over windows of {} and {} epochs (ddof {} and {})".format(
            *(window for window, _ in windows), *(ddof for _, ddof in windows)
        )
    stability = None if why_no_test else compare_stability(theirs, ours, sweeps[0])
    if stability is None and not why_no_test:
        why_no_test = "S is undefined"
    return CellPair(
        match=match,
        seeds=seeds,
        why_unpaired=why_unpaired,
        error=error,
        stability=stability,
        why_no_test=why_no_test,
        same_runs=same_runs,
    )


def _errors(cell: CellSummary, seeds: Sequence[int]) -> list[float]:
    return [float(cell.error_pct[cell.seeds.index(seed), -1]) for seed in seeds]


def _find_unlike(match: Match, seeds: Sequence[int]) -> str:
    """Why runs with the same seed have not enough in common, as a sentence's part; empty where they have."""
    if any(key in match.keys for key in DATA_KEYS):
        names = [cell.cell.dataset for cell in (match.first, match.second)]
        return "other data" if names[0] != names[1] else f"other content of {names[0]}"
    without = [side for side, cell in zip("AB", (match.first, match.second), strict=True) if not cell.seeds]
    if without:
        return f"no finished run in {' and '.join(without)}"
    teachers = [
        {record.seed: record.teacher_hash for record in cell.records if record.teacher_hash is not None}
        for cell in (match.first, match.second)
    ]
    if all(teachers) and any(teachers[0].get(seed) != teachers[1].get(seed) for seed in seeds):
        return "other teacher"
    fewest = min(len(match.first.seeds), len(match.second.seeds))
    if not seeds:
        return "no common seed"
    if len(seeds) < PAIRED_SHARE * fewest:
        return f"only {count(len(seeds), 'common seed')}"
    return ""


def _compare_unpaired(cell: CellSummary, other: CellSummary) -> Comparison | None:
    """The errors of all runs of two cells, whose seeds have nothing in common."""
    side, reference = cell_side(cell), cell_side(other)
    if not (side.errors and reference.errors):
        return None
    ours, theirs = list(side.errors.values()), list(reference.errors.values())
    found = stats.unpaired_difference(ours, theirs)
    reservation = "; ".join(filter(None, (reference.loss, side.loss)))
    if found.p is None and not reservation:
        reservation = (
            "one run has no spread" if min(found.n, found.n_reference) == 1 else "no spread on either side"
        )
    p = 1.0 if reservation or found.p is None else found.p
    return Comparison(
        measure="error",
        cell=side.name,
        reference=reference.name,
        value=sum(ours) / len(ours),
        reference_value=sum(theirs) / len(theirs),
        ci95=None if reservation else found.ci95,
        p=p,
        p_holm=p,
        test=(reference.identity, side.identity),
        reservation=reservation,
        n=min(found.n, found.n_reference),
    )


# --- what a reader must know --------------------------------------------------------------------------------


def _write_cautions(first: ComparedStudy, second: ComparedStudy, pairs: Sequence[CellPair]) -> Iterator[str]:
    """What differs between the studies besides what is asked, a line each."""
    datasets = [study.summary.sweep.dataset for study in (first, second)]
    if datasets[0] != datasets[1]:
        yield f"Data: {datasets[0]} in A, {datasets[1]} in B; differences hold those of the data too."
    elif any(key in pair.match.keys for pair in pairs for key in DATA_KEYS):
        yield f"Data: {datasets[0]} has other content in B; differences hold those of the data too."
    ours, theirs = (
        {record.code for record in study.summary.records if record.status != "failed"}
        for study in (first, second)
    )
    if any(not code.same_numbers(other) for code in ours for other in theirs):
        names = [", ".join(sorted({code.numbers for code in codes})) for codes in (ours, theirs)]
        yield f"Code: {names[0]} in A, {names[1]} in B; other code may give other numbers."
    lengths = _collect(pairs, lambda cell: str(cell.cell.student.epochs))
    if lengths[0] != lengths[1]:
        yield f"Epochs: {lengths[0]} in A, {lengths[1]} in B."
    teachers = _collect(
        pairs, lambda cell: ", ".join(sorted({r.teacher_hash[:12] for r in cell.records if r.teacher_hash}))
    )
    if all(teachers) and any(pair.why_unpaired == "other teacher" for pair in pairs):
        yield f"Teacher: {teachers[0]} in A, {teachers[1]} in B; differences hold those of the teachers too."
    unequal = [pair for pair in pairs if pair.match.same and pair.seeds and not pair.same_runs]
    if unequal:
        machines = _collect(unequal, _describe_machine)
        told = f" Trained on {machines[0]} in A, {machines[1]} in B." if machines[0] != machines[1] else ""
        yield (
            f"{join([pair.match.name for pair in unequal])}: one configuration with other figures, by code, "
            f"machine or versions of libraries.{told}"
        )
    tested = [pair.error for pair in pairs if pair.error is not None and pair.paired]
    most = max((comparison.n for comparison in tested), default=0)
    needed = stats.smallest_runs(stats.LEVEL / sum(pair.error is not None for pair in pairs)) if tested else 0
    if 0 < most < needed:
        yield (
            f"With {count(most, 'common seed')} no paired difference can be significant, however large: a "
            f"permutation test needs {needed}, after Holm's correction."
        )


def _collect(pairs: Sequence[CellPair], describe: Callable[[CellSummary], str]) -> tuple[str, str]:
    """What the cells of each study say, each text once."""
    told = [
        dict.fromkeys(filter(None, (describe(getattr(pair.match, side)) for pair in pairs)))
        for side in ("first", "second")
    ]
    return ", ".join(told[0]), ", ".join(told[1])


def _describe_machine(cell: CellSummary) -> str:
    """Where the runs of a cell were trained, and with which library."""
    found = {
        f"{record.processor or record.device} with torch {record.versions.get('torch', '?')}"
        for record in cell.records
        if record.status == "finished"
    }
    return ", ".join(sorted(found))
