"""From the store to a summary: which runs are data, and what they say against each other."""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from hkrun import config, stats
from hkrun.config import Cell
from hkrun.errors import StoreError
from hkrun.report.published import Claim, load_published
from hkrun.report.summary import CellSummary, Comparison, Curve, Summary, Teacher, Verdict
from hkrun.report.wording import write_warnings
from hkrun.spaces import NamedCell, Sweep
from hkrun.store import Record, Store

MOST_IMAGES = 100_000  # no test set is larger


def summarise(sweep: Sweep, store: Store, *, world_size: int = 1) -> Summary:
    """Reads what the store holds of a sweep, and computes what it says. The same runs give the same numbers.

    Args:
        sweep: The sweep.
        store: Where its runs are.
        world_size: Workers per run; part of a cell's identity without synchronised BatchNorm.

    Raises:
        StoreError: Runs with one configuration of the teacher had teachers of different weights, or the
            curves of a finished run are incomplete.
    """
    ids = [config.cell_id(named.cell, world_size=world_size) for named in sweep.cells]
    records = {
        cell_id: tuple(record for record in store.records(cell_id) if record.seed in sweep.seeds)
        for cell_id in dict.fromkeys(ids)
    }
    quantum = _quantum(record.error_last_pct for found in records.values() for record in found)
    cells = tuple(
        _summarise_cell(named, cell_id, sweep, store, records=records[cell_id], quantum_pct=quantum)
        for named, cell_id in zip(sweep.cells, ids, strict=True)
    )
    by_name = {cell.name: cell for cell in cells}
    reference = by_name.get(sweep.reference or "")
    pairs = [(cell, reference) for cell in cells if reference and cell.cell_id != reference.cell_id]
    published = load_published()
    summary = Summary(
        sweep=sweep,
        store=store.place,
        cells=cells,
        comparisons=_compare("error", pairs, sweep),
        stability_comparisons=_compare("stability", pairs, sweep),
        teachers=_read_teachers(sweep, cells, store, world_size=world_size),
        published=published.tables.get(sweep.published[0] if sweep.published else ""),
        verdicts=_judge(
            [claim for claim in published.claims if claim.table in sweep.published], by_name, sweep
        ),
        quantum_pct=quantum,
    )
    return replace(summary, warnings=tuple(write_warnings(summary)))


# --- cells --------------------------------------------------------------------------------------------------


def _summarise_cell(
    named: NamedCell,
    cell_id: str,
    sweep: Sweep,
    store: Store,
    *,
    records: tuple[Record, ...],
    quantum_pct: float | None,
) -> CellSummary:
    finished = [record for record in records if record.status == "finished"]
    epochs = named.cell.student.epochs
    errors = np.empty((len(finished), epochs))
    for row, record in enumerate(finished):
        curve = _read_errors(store, record)
        if len(curve) != epochs or not np.isfinite(curve).all():
            raise StoreError(
                f"{store.place}/{store.run_folder(cell_id, record.seed)}: the run is finished, but its "
                f"curves do not have {epochs} epochs of errors; remove the folder and run the sweep again"
            )
        errors[row] = curve
    diverged = [record for record in records if record.status == "diverged"]
    undefined = _undefined(len(finished), epochs, sweep.window)
    return CellSummary(
        cell_id=cell_id,
        name=named.name,
        cell=named.cell,
        records=records,
        seeds=tuple(record.seed for record in finished),
        failed=tuple(record.seed for record in records if record.status == "failed"),
        diverged=tuple(record.seed for record in diverged),
        missing=tuple(sorted(set(sweep.seeds) - {record.seed for record in records})),
        error_pct=errors,
        diverged_curves=tuple(_read_errors(store, record) for record in diverged if record.epochs),
        error_last=stats.summarise_errors(errors[:, -1]) if finished else None,
        error_best=stats.summarise_errors(errors.min(axis=1)) if finished else None,
        stability=None
        if undefined
        else stats.analyse_stability(
            errors,
            window=sweep.window,
            ddof=sweep.ddof,
            generator=_generator("interval of S", cell_id),
            quantum_pct=quantum_pct,
        ),
        undefined=undefined,
    )


def _read_errors(store: Store, record: Record) -> Curve:
    curves = store.curves(record.cell_id, record.seed).sort_by("epoch")
    errors: Curve = curves["error_pct"].to_numpy()
    return errors


def _undefined(runs: int, epochs: int, window: int) -> str | None:
    if runs < 2:
        return f"S is the variance of a range over runs: it needs two finished runs, not {runs}"
    if epochs < window:
        return f"S is taken over the last {window} epochs, and the runs have {epochs}"
    return None


def _quantum(errors_pct: Iterable[float | None]) -> float | None:
    """What one test image is worth, from the errors alone: they are shares k / n of the n test images.

    None where there are no errors, or where they are no shares of any plausible number of images.
    """
    found = [error / 100 for error in errors_pct if error is not None]
    shares = [Fraction(error).limit_denominator(MOST_IMAGES) for error in found]
    images = math.lcm(*(share.denominator for share in shares))
    exact = all(abs(float(share) - error) < 1e-12 for share, error in zip(shares, found, strict=True))
    return 100 / images if found and exact and images <= MOST_IMAGES else None


def _generator(*words: str) -> np.random.Generator:
    """A generator that depends on what it is for and nothing else."""
    digest = hashlib.sha256("\n".join(("hkrun report", *words)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


# --- comparisons --------------------------------------------------------------------------------------------


def _compare(
    measure: str, pairs: Sequence[tuple[CellSummary, CellSummary]], sweep: Sweep
) -> tuple[Comparison, ...]:
    """Compares pairs of cells as one family of tests; a pair without common data is left out."""
    compare = _compare_errors if measure == "error" else _compare_stability
    found = {
        (cell.name, other.name): (comparison, (cell.cell_id, other.cell_id))
        for cell, other in pairs
        if (comparison := compare(cell, other, sweep)) is not None
    }
    # Names that stand for one configuration share one test, which counts once.
    tests = {ids: comparison.p for comparison, ids in found.values()}
    corrected = dict(zip(tests, stats.holm(list(tests.values())), strict=True))
    return tuple(replace(comparison, p_holm=corrected[ids]) for comparison, ids in found.values())


def _compare_errors(cell: CellSummary, other: CellSummary, _: Sweep) -> Comparison | None:
    ours, theirs = (errors[:, -1] for errors in _pair(cell, other))
    if not len(ours):
        return None
    generator = _generator("difference", cell.cell_id, other.cell_id)
    result = stats.paired_difference(ours, theirs, generator=generator)
    return Comparison(
        measure="error",
        cell=cell.name,
        reference=other.name,
        value=float(ours.mean()),
        reference_value=float(theirs.mean()),
        by_seed=tuple((ours - theirs).tolist()),
        ci95=result.ci95,
        p=result.p,
        p_holm=result.p,
        n=result.n,
    )


def _compare_stability(cell: CellSummary, other: CellSummary, sweep: Sweep) -> Comparison | None:
    """Both S are over the same seeds: with different numbers of runs their ranges could not be compared."""
    ours, theirs = _pair(cell, other)
    if len(ours) < 2 or min(ours.shape[1], theirs.shape[1]) < sweep.window:
        return None
    result = stats.compare_stability(
        ours[:, -sweep.window :],
        theirs[:, -sweep.window :],
        window=sweep.window,
        ddof=sweep.ddof,
        generator=_generator("S", cell.cell_id, other.cell_id),
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


def _pair(cell: CellSummary, other: CellSummary) -> tuple[Curve, Curve]:
    """The errors of both cells, row for row with the same seeds: those that both finished."""
    common = [seed for seed in cell.seeds if seed in other.seeds]
    ours, theirs = (item.error_pct[[item.seeds.index(seed) for seed in common]] for item in (cell, other))
    return ours, theirs


def _judge(claims: Sequence[Claim], cells: Mapping[str, CellSummary], sweep: Sweep) -> tuple[Verdict, ...]:
    """Judges the claims of one table; all their comparisons of one measure are one family of tests."""
    measured = {
        measure: {
            (comparison.cell, comparison.reference): comparison
            for comparison in _compare(
                measure,
                [
                    (cells[better], cells[worse])
                    for better, worse in dict.fromkeys(
                        pair for claim in claims if claim.kind == measure for pair in claim.pairs
                    )
                    if better in cells and worse in cells
                ],
                sweep,
            )
        }
        for measure in ("error", "stability")
    }
    verdicts = []
    for claim in claims:
        found = [measured.get(claim.kind, {}).get(pair) for pair in claim.pairs]
        comparisons = tuple(comparison for comparison in found if comparison is not None)
        verdicts.append(
            Verdict(claim=claim, outcome=_outcome(comparisons, len(claim.pairs)), comparisons=comparisons)
        )
    return tuple(verdicts)


def _outcome(comparisons: Sequence[Comparison], num_pairs: int) -> str:
    if not comparisons:
        return "not judged"
    if any(comparison.significant and comparison.difference > 0 for comparison in comparisons):
        return "contradicted"
    supporting = [
        comparison for comparison in comparisons if comparison.significant and comparison.difference < 0
    ]
    return "supported" if len(supporting) == num_pairs else "undecided"


# --- teachers -----------------------------------------------------------------------------------------------


def _read_teachers(
    sweep: Sweep, cells: Sequence[CellSummary], store: Store, *, world_size: int
) -> tuple[Teacher, ...]:
    users: dict[str, list[CellSummary]] = {}
    for cell in cells:
        if cell.cell.uses_teacher:
            users.setdefault(config.teacher_id(cell.cell), []).append(cell)
    return tuple(
        _read_teacher(teacher_id, found, sweep, store, world_size=world_size)
        for teacher_id, found in users.items()
    )


def _read_teacher(
    teacher_id: str, cells: Sequence[CellSummary], sweep: Sweep, store: Store, *, world_size: int
) -> Teacher:
    runs: dict[str, list[str]] = {}
    for cell in cells:
        for record in cell.records:
            if record.teacher_hash is not None:
                runs.setdefault(record.teacher_hash, []).append(store.run_folder(cell.cell_id, record.seed))
    if len(runs) > 1:
        parts = [
            f"{len(folders)} with {found[:12]} (such as {folders[0]})" for found, folders in runs.items()
        ]
        raise StoreError(
            f"{store.place}: the runs of {sweep.name!r} had teachers of different weights and cannot be "
            f"compared: {', '.join(parts)}; remove the runs of all but one, then run the sweep again"
        )
    used = next(iter(runs), None)
    trained = store.teacher(teacher_id)
    if trained is not None and used not in (None, trained.teacher_hash):
        trained = None
    alone_pct, alone_source = _student_alone(cells[0].cell, sweep, store, world_size=world_size)
    plateau_pct, _ = _recipe_figure(cells[0].cell, sweep, "student_plateau_error_pct")
    return Teacher(
        teacher_id=teacher_id,
        hash=used or (trained.teacher_hash if trained else None),
        record=trained,
        alone_pct=alone_pct,
        alone_source=alone_source,
        plateau_pct=plateau_pct,
    )


def _student_alone(cell: Cell, sweep: Sweep, store: Store, *, world_size: int) -> tuple[float | None, str]:
    """The test error of a cell's student trained without a teacher: from the store, else from the recipe."""
    supervised = config.cell_id(replace(cell, method="supervised"), world_size=world_size)
    errors = [
        record.error_last_pct
        for record in store.records(supervised)
        if record.status == "finished" and record.error_last_pct is not None
    ]
    if errors:
        return float(np.mean(errors)), f"mean of {len(errors)} supervised runs in the store"
    return _recipe_figure(cell, sweep, "student_alone_error_pct")


def _recipe_figure(cell: Cell, sweep: Sweep, name: str) -> tuple[float | None, str]:
    """A figure of the recipe's evidence and its label, where the cell's student is the recipe's."""
    recipe = sweep.recipe
    evidence = recipe.evidence.get(name, {})
    value = evidence.get("value")
    if isinstance(value, int | float) and (cell.student, cell.augment) == (
        recipe.cell.student,
        recipe.cell.augment,
    ):
        return float(value), f"{evidence.get('label')}, recipe of {recipe.dataset}"
    return None, ""
