"""Finds the curves and grids among a sweep's cells, and tests whether their results are equivalent."""

from collections.abc import Mapping, Sequence

from hkrun import config
from hkrun.report import comparing
from hkrun.report.comparison import Comparison
from hkrun.report.families import Families
from hkrun.report.summary import CellSummary, Scan, ScanPoint
from hkrun.spaces import NamedCell, Sweep

MOST_KEYS = 2  # what a figure can show


def find_scans(
    sweep: Sweep, cells: Mapping[str, CellSummary], comparisons: Sequence[Comparison], families: Families
) -> tuple[Scan, ...]:
    """The cells that axes of the search space vary, by group and keys; those over three keys are left out.

    Every point is tested for equivalence with the scan's reference: the sweep's where it is on the scan, else
    the point with the keys' default values. The tests of a scan are one family. Whether a point differs at
    all is what the sweep's comparison of the same pair says, where there is one.
    """
    groups: dict[tuple[str, tuple[str, ...]], list[NamedCell]] = {}
    for named in sweep.cells:
        if 1 <= len(named.point) <= MOST_KEYS:
            groups.setdefault((named.group, tuple(named.point)), []).append(named)
    return tuple(
        _scan(group, keys, points, sweep, cells, comparisons, families)
        for (group, keys), points in groups.items()
        if len(points) > 1
    )


def find_equivalences(
    cells: Sequence[CellSummary], reference: CellSummary | None, sweep: Sweep, families: Families
) -> tuple[Comparison, ...]:
    """Of a sequential study whose search space sets a margin: the cells' errors against the reference's."""
    asked = sweep.asks_equivalence and any(cell.monitoring.sequential for cell in cells)
    return tuple(_compare_with_margin(cells, reference, sweep, families)) if asked else ()


def _compare_with_margin(
    cells: Sequence[CellSummary], reference: CellSummary | None, sweep: Sweep, families: Families
) -> list[Comparison]:
    """Tests which cells' errors are equivalent to one's within the sweep's margin, as a table of tests."""
    if reference is None:
        return []
    base = comparing.cell_side(reference)
    tests = (
        comparing.compare_equivalence(side, base, margin=sweep.margin, one_sided=False)
        for side in map(comparing.cell_side, cells)
    )
    return families.correct_comparisons([comparison for comparison in tests if comparison is not None])


def _scan(
    group: str,
    keys: tuple[str, ...],
    points: list[NamedCell],
    sweep: Sweep,
    cells: Mapping[str, CellSummary],
    comparisons: Sequence[Comparison],
    families: Families,
) -> Scan:
    reference = _reference(keys, points, sweep, cells)
    varied = [cells[named.name] for named in points]
    known = {comparison.test: comparison for comparison in comparisons}
    differences = [
        known.get(comparison.test, comparison)
        for comparison in comparing.compare_with_reference("error", varied, reference, sweep, families)
    ]
    corrected = _compare_with_margin(varied, reference, sweep, families)
    equivalences = {item.cell: item for item in comparing.bound_by(differences, corrected)}
    by_test = {comparison.test: comparison for comparison in differences}
    return Scan(
        group=group,
        keys=keys,
        points=tuple(
            ScanPoint(
                values=tuple(named.point[key] for key in keys),
                cell=cells[named.name],
                comparison=(found := equivalences.get(named.name)),
                difference=by_test.get(found.test) if found else None,
            )
            for named in points
        ),
        reference=reference,
        role=_role(reference, sweep, cells),
    )


def _role(reference: CellSummary | None, sweep: Sweep, cells: Mapping[str, CellSummary]) -> str:
    named = cells.get(sweep.reference or "")
    same = reference is not None and named is not None and reference.cell_id == named.cell_id
    return "reference" if same else "default"


def _reference(
    keys: tuple[str, ...], points: list[NamedCell], sweep: Sweep, cells: Mapping[str, CellSummary]
) -> CellSummary | None:
    chosen = cells.get(sweep.reference or "")
    for named in points:
        if chosen is not None and cells[named.name].cell_id == chosen.cell_id:
            return cells[named.name]
    known = config.cell_keys(points[0].cell)
    defaults = {key: known[key][1] for key in keys if key in known}
    return next((cells[named.name] for named in points if dict(named.point) == defaults), None)
