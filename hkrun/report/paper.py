"""Sets what a sweep measured beside the tables of the paper, row by row."""

from collections.abc import Mapping, Sequence

from hkrun.report import comparing
from hkrun.report.claims import find_teachers
from hkrun.report.comparing import Side
from hkrun.report.comparison import Comparison
from hkrun.report.families import Families
from hkrun.report.published import PublishedRow, PublishedTable
from hkrun.report.summary import CellSummary, PaperRow, PaperTable, Teacher
from hkrun.spaces import Sweep


def set_beside(
    identity: str,
    table: PublishedTable,
    sweep: Sweep,
    cells: Mapping[str, CellSummary],
    teachers: Sequence[Teacher],
    families: Families,
) -> PaperTable:
    """One published table with what this sweep has of each row.

    Differences within it, published and measured, refer to the sweep's reference where that is a row, else to
    the table's own; their tests are one family.
    """
    names = [row.name for row in table.rows]
    reference = sweep.reference if sweep.reference in names else table.reference
    measured = {row.name: cells.get(row.name) for row in table.rows}
    theirs = find_teachers([cell for cell in measured.values() if cell is not None], teachers)
    stands_for = {row.name: theirs for row in table.rows if row.is_teacher and measured[row.name] is None}
    comparisons = (
        _compare_stability(measured, reference, sweep, families)
        if table.measure == "stability"
        else _compare_errors(table.rows, measured, stands_for, reference, families)
    )
    return PaperTable(
        id=identity,
        published=table,
        reference=reference,
        rows=tuple(
            PaperRow(
                published=row,
                cell=measured[row.name],
                teachers=stands_for.get(row.name, ()),
                comparison=comparisons.get(row.name),
            )
            for row in table.rows
        ),
    )


def _compare_stability(
    measured: Mapping[str, CellSummary | None], reference: str, sweep: Sweep, families: Families
) -> dict[str, Comparison]:
    cells = [cell for cell in measured.values() if cell is not None]
    found = comparing.compare_with_reference("stability", cells, measured[reference], sweep, families)
    return {comparison.cell: comparison for comparison in found}


def _compare_errors(
    rows: Sequence[PublishedRow],
    measured: Mapping[str, CellSummary | None],
    stands_for: Mapping[str, tuple[Teacher, ...]],
    reference: str,
    families: Families,
) -> dict[str, Comparison]:
    sides: dict[str, Side] = {}
    for row in rows:
        cell, theirs = measured[row.name], stands_for.get(row.name, ())
        side = (
            comparing.cell_side(cell)
            if cell is not None
            else comparing.teacher_side(row.name, theirs[0])
            if len(theirs) == 1  # which one of several would be set against the reference?
            else None
        )
        if side is not None:
            sides[row.name] = side
    base = sides.get(reference)
    found = (comparing.compare_errors(side, base) if base else None for side in sides.values())
    corrected = families.correct_comparisons([comparison for comparison in found if comparison is not None])
    return {comparison.cell: comparison for comparison in corrected}
