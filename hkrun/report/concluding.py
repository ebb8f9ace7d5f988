"""From the cells of a study to what its tests say: comparisons, curves, tables of the paper, verdicts."""

from collections.abc import Mapping
from dataclasses import replace

from hkrun.report.answers import find_best
from hkrun.report.claims import judge_claims
from hkrun.report.comparing import compare_with_reference
from hkrun.report.divergence import compare_divergence
from hkrun.report.families import Families
from hkrun.report.paper import set_beside
from hkrun.report.published import Published
from hkrun.report.ratio_comparing import compare_ratios
from hkrun.report.scans import find_equivalences, find_scans
from hkrun.report.summary import CellSummary, Summary
from hkrun.spaces import STUDY_FAMILY


def conclude(summary: Summary, elsewhere: Mapping[str, CellSummary], published: Published) -> Summary:
    """Adds to the cells and teachers of a summary what the tests say, corrected as its study asks.

    `elsewhere` are the cells of other data sets that its claims need, by their names.
    """
    families = Families()
    concluded = _conclude(summary, elsewhere, published, families)
    if summary.sweep.family == STUDY_FAMILY:
        concluded = _conclude(summary, elsewhere, published, Families(families.tests))
    return replace(concluded, num_tables=families.num_tables, num_tests=len(families.tests))


def _conclude(
    summary: Summary, elsewhere: Mapping[str, CellSummary], published: Published, families: Families
) -> Summary:
    sweep, cells, teachers = summary.sweep, summary.cells, summary.teachers
    by_name = {cell.name: cell for cell in cells}
    reference = by_name.get(sweep.reference or "")
    comparisons, stability_comparisons = (
        compare_with_reference(what, cells, reference, sweep, families) for what in ("error", "stability")
    )
    best = [find_best("error", cells, comparisons, sweep, families)]
    if summary.measure == "stability":
        best.insert(0, find_best("stability", cells, stability_comparisons, sweep, families))
    scans = find_scans(sweep, by_name, comparisons, families)
    verdicts = judge_claims(published, sweep, by_name | dict(elsewhere), teachers, scans, families)
    return replace(
        summary,
        comparisons=comparisons,
        stability_comparisons=stability_comparisons,
        s2_ratios=compare_ratios("s2", cells, reference, sweep, families),
        deviation_ratios=compare_ratios("deviation", cells, reference, sweep, families),
        paper=tuple(
            set_beside(name, published.tables[name], sweep, by_name, teachers, families)
            for name in sweep.published
            if name in published.tables
        ),
        verdicts=tuple(verdict for verdict in verdicts if verdict.claim.judged_on != "S2"),
        s2_verdicts=tuple(verdict for verdict in verdicts if verdict.claim.judged_on == "S2"),
        scans=scans,
        best=tuple(found for found in best if found is not None),
        divergence=compare_divergence(cells, reference, families),
        equivalences=find_equivalences(cells, reference, sweep, families),
    )
