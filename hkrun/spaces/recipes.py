"""Reads recipes: what holds for all work on one data set."""

import re
from dataclasses import dataclass
from pathlib import Path

from hkrun.config import Setting, build_cell
from hkrun.spaces.places import find_recipe
from hkrun.spaces.sweep import Recipe
from hkrun.spaces.toml_tables import Problems, Table, read_document

MIN_WINDOW = 2  # the variance of one epoch is 0 whatever happened
_LABEL = re.compile(r"measured \(.+\)|estimated \(.+\)|published|not run here")


@dataclass(frozen=True, kw_only=True)
class RecipeFile:
    """A recipe's file, of which each key knows its line."""

    recipe: Recipe
    settings: list[Setting]
    source: str


def read_recipe(dataset: str, problems: Problems, *, beside: Path | None) -> RecipeFile | None:
    """Reads a recipe; None where that is impossible, with the reason in `problems`.

    Beside a search space given by its path, the `recipes` folder there comes first.
    """
    before = len(problems.found)
    path = problems.attempt(find_recipe, dataset, beside=beside)
    document = problems.attempt(read_document, path) if path is not None else None
    if document is None:
        return None
    problems.found += document.broken
    problems.learn_keys(document.data)
    table = Table(document, (), document.data, problems)
    analysis = table.table("analysis")
    analysis.allow_only("window")
    window = analysis.integer("window", minimum=MIN_WINDOW)
    if "window" not in analysis.data:
        analysis.refuse("window", "missing; how many last epochs the stability S is taken over")
    if "dataset" in table.data:
        table.refuse("dataset", "a recipe is for the data set that its file is named after")
    evidence = _read_evidence(table.table("evidence"))
    settings = [
        Setting(key="dataset", value=dataset, where=document.name),
        *table.settings(without=("analysis", "evidence", "dataset")),
    ]
    problems.check(settings)
    if len(problems.found) > before or window is None:
        return None
    cell = problems.attempt(build_cell, settings, problems.keys)
    if cell is None:
        return None
    return RecipeFile(
        settings=settings,
        recipe=Recipe(dataset=dataset, window=window, cell=cell, evidence=evidence),
        source=document.name,
    )


def _read_evidence(table: Table) -> dict[str, dict[str, object]]:
    figures: dict[str, dict[str, object]] = {}
    for name in table.data:
        figure = table.table(name)
        label = figure.text("label") or ""
        if _LABEL.fullmatch(label) is None:
            figure.refuse(
                "label", "must be measured (date, machine), estimated (formula), published, or not run here"
            )
        if (label == "not run here") == ("value" in figure.data):
            figure.refuse("value", "belongs to every figure but those not run here")
        figures[name] = dict(figure.data)
    return figures
