"""The index of published studies: what each found, a line for each claim of the paper."""

from collections.abc import Iterable, Mapping
from typing import Any

from hkrun.report.table import MINUS
from hkrun.report.wording import OUTCOMES, count, count_outcomes, digits, equals, plus_minus

INDEX_MARK = "<!-- Written by `hkrun report`: changes are lost. -->"
Document = Mapping[str, Any]
_ON = {"S": ", by S as published", "S2": ", by S2"}


def render_index(studies: Mapping[str, Document]) -> bytes:
    """The index as Markdown.

    Args:
        studies: The documents of `results.json`, by the name of the study's folder.

    Raises:
        KeyError: One is of another version of hkrun and lacks something.
    """
    from hkrun.report.rendering import render_template  # only here: most reports are not published

    entries = [_describe_study(folder, study) for folder, study in studies.items()]
    # Studies that share cells judge the same claims.
    distinct = {
        (study["dataset"], claim["id"], claim["judged_on"], claim["outcome"])
        for study in studies.values()
        for claim in _judged(study)
    }
    counts, on_s2 = (
        count_outcomes([outcome for *_, figure, outcome in distinct if (figure == "S2") == is_s2])
        for is_s2 in (False, True)
    )
    verdicts = f" Claims of the paper that they judge: {counts}." if counts else ""
    apart = f"On S2, which the paper does not have, those about S: {on_s2}." if on_s2 else ""
    studied = "1 study." if len(entries) == 1 else f"{len(entries)} studies."
    return render_template(
        "results.md",
        {"mark": INDEX_MARK, "summary": studied + verdicts, "on_s2": apart, "studies": entries},
    )


def _describe_study(folder: str, study: Document) -> dict[str, object]:
    conditions = study["conditions"]
    where = conditions.get("Processor") or conditions["Device"]
    started = conditions["Started (UTC)"][:10]  # of "2026-11-29 15:14 to 2026-11-29 15:16": the day
    seeds = max((len(cell["seeds"]) for cell in study["cells"]), default=0)
    return {
        "folder": folder,
        "title": study["title"],
        "question": study["question"],
        "dataset": study["dataset"],
        "facts": [
            study["dataset"],
            count(len({cell["cell_id"] for cell in study["cells"]}), "configuration"),
            count(seeds, "seed"),
            f"measured ({started}, {where})",
            study["command"],
        ],
        "claims": [
            {
                "statement": f"{claim['statement']}{_ON.get(claim['judged_on'], '')}",
                "outcome": " ".join(filter(None, (claim["outcome"], claim.get("condition")))),
                "evidence": _describe_evidence(claim),
            }
            for claim in _judged(study)
        ],
        "findings": study["findings"],
    }


def _judged(study: Document) -> list[Document]:
    """The claims that a study judges, those about S on S2 right after the published."""
    on_s2 = {claim["id"]: claim for claim in study["s2_claims"]}
    return [
        one
        for claim in study["claims"]
        for one in (claim, on_s2.get(claim["id"]))
        if one is not None and one["outcome"] in OUTCOMES
    ]


def _describe_evidence(claim: Document) -> str:
    """The runs that decide a claim by diverging; else its one comparison, or how many show what it says."""
    if claim.get("condition"):
        return str(claim["reason"])
    comparisons = claim["comparisons"]
    if len(comparisons) == 1:
        return _describe_comparison(comparisons[0])
    parts = [f"{sum(found['supports'] for found in comparisons)} of {len(comparisons)} comparisons show it"]
    if contrary := sum(found["opposes"] for found in comparisons):
        parts.append(f"{contrary} the contrary")
    return f"{', '.join(parts)}; {_describe_span([found['difference'] for found in comparisons])}"


def _describe_span(differences: Iterable[float]) -> str:
    ordered = sorted(differences)
    ends = " to ".join(plus_minus(end, None, signed=True) for end in (ordered[0], ordered[-1]))
    return f"differences {ends.replace('-', MINUS)} pp"


def _describe_comparison(found: Document) -> str:
    p = "withheld" if found["p_holm"] is None else f"p {equals(found['p_holm'])}"
    if found["measure"] == "s2":
        values = f"S2 {digits(found['value'])} against {digits(found['reference_value'])}"
        return f"{values} ({digits(found['ratio'])} times, {p})" if found["ratio"] else f"{values} ({p})"
    if found["measure"] == "stability":
        return f"S {digits(found['value'])} against {digits(found['reference_value'])} ({p})"
    difference = plus_minus(found["difference"], found["ci95"], signed=True)
    return f"{difference.replace('-', MINUS)} pp ({p})"
