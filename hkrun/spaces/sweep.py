"""What a search space says once it is read: cells, seeds, and what they are compared with."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hkrun.config import Cell, Setting, Value, get_value, keys, restore_cell
from hkrun.methods import declaration_document, restore_declaration

# Percentage points. The paper calls results insensitive without a margin; this is about the largest gain that
# it reports of a term of the loss.
MARGIN = 0.5
MEASURES = ("error", "stability")
FAMILIES = TABLE_FAMILY, STUDY_FAMILY = ("table", "all")
_TUPLES = ("seeds", "published", "claims", "command")  # fields that JSON holds as lists
# Fields that documents without them leave at their defaults.
_OPTIONAL = ("asks_equivalence", "s2_factor", "measure", "family")
# What a cell holds besides its keys: the state of files when it was built.
_FIXED = (
    *("dataset_sha256", "sources", "own_widths", "own_descriptors", "declared", "own_values"),
    *("teacher_file_sha256", "student_file_sha256"),
)


@dataclass(frozen=True, kw_only=True)
class NamedCell:
    """A cell and what the search space calls it. Two names may stand for one configuration.

    Attributes:
        name: Distinct within the sweep.
        group: The name of the cell in the file, which all points of its axes share.
        point: The values of the axes that vary it, by key; empty where none does.
    """

    name: str
    cell: Cell
    group: str = ""
    point: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What holds for all work on one data set.

    Attributes:
        window: How many last epochs the stability S is taken over.
        cell: The recipe's keys alone, all others at their defaults.
        evidence: Labelled figures by name, such as `student_alone_error_pct`: tables with a "label" and,
            unless that is "not run here", a "value".
    """

    dataset: str
    window: int
    cell: Cell
    evidence: Mapping[str, Mapping[str, object]]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Configurations, their seeds, and the question they answer.

    Attributes:
        name: The file's name without its ending; of a study, what it is called in the store.
        question: What it is run to find out; may be empty.
        seeds: The seeds of every cell, distinct.
        reference: Name of the cell that the others are compared with, if any.
        cells: In the order of the file, with distinct names.
        window: How many last epochs the stability S is taken over.
        ddof: Delta degrees of freedom of S.
        published: Tables of the paper that this is set against; their rows are the cells of the same names.
        source: The file, as messages show it.
        claims: Ids of claims of the paper that belong to no table and that this sweep judges.
        margin: How far apart two errors may lie, in percentage points, to count as equivalent.
        asks_equivalence: Whether the file sets that margin, and so asks for what lies within it.
        s2_factor: Within which factor, above 1, two S2 count as equal; None where the file sets none.
        measure: What the question is about, "error" or "stability"; empty where the file does not say.
        family: Which tests are corrected together: those of a "table", or "all" of the study.
        command: What gets this sweep again but for data set and seeds: "hkrun", the verb, what was named (a
            search space as it was typed), and the overrides.
    """

    name: str
    title: str
    question: str
    dataset: str
    seeds: tuple[int, ...]
    reference: str | None
    cells: tuple[NamedCell, ...]
    window: int
    ddof: int
    published: tuple[str, ...]
    recipe: Recipe
    source: str
    claims: tuple[str, ...] = ()
    margin: float = MARGIN
    asks_equivalence: bool = False
    s2_factor: float | None = None
    measure: str = ""
    family: str = TABLE_FAMILY
    command: tuple[str, ...] = ()

    @property
    def changes(self) -> tuple[str, ...]:
        """What the command line changed of the search space or the recipe: `student.epochs=3` each."""
        return self.command[3:] if self.command[1:2] == ("sweep",) else self.command[2:]

    @property
    def heading(self) -> str:
        """What stands above its tables: title, data set, and the keys that the command line changed."""
        changed = f", {', '.join(self.changes)}" if self.changes else ""
        comma = "" if self.title.endswith(("?", "!", ".")) else ","
        return f"{self.title}{comma} {self.dataset}{changed}"

    @property
    def subtitle(self) -> str:
        """Its question, where that says more than the title; else empty."""
        return "" if self.question.casefold() == self.title.casefold() else self.question


def with_content(sweep: Sweep, dataset_sha256: str) -> Sweep:
    """The sweep with the content of its data set fixed in every cell; needed for `folder` and `imagenet`."""

    def fix(cell: Cell) -> Cell:
        return dataclasses.replace(cell, dataset_sha256=dataset_sha256)

    cells = tuple(dataclasses.replace(named, cell=fix(named.cell)) for named in sweep.cells)
    recipe = dataclasses.replace(sweep.recipe, cell=fix(sweep.recipe.cell))
    return dataclasses.replace(sweep, cells=cells, recipe=recipe)


def sweep_document(sweep: Sweep) -> dict[str, object]:
    """The sweep as JSON holds it; `restore_sweep` is the inverse."""
    return {
        **{
            name: getattr(sweep, name)
            for spec in dataclasses.fields(sweep)
            if (name := spec.name) not in _OPTIONAL or getattr(sweep, name) != spec.default
        },
        **{name: list(getattr(sweep, name)) for name in _TUPLES},
        "cells": [
            {
                "name": named.name,
                "cell": _cell_document(named.cell),
                "group": named.group,
                "point": {key: _plain(value) for key, value in named.point.items()},
            }
            for named in sweep.cells
        ],
        "recipe": {
            "dataset": sweep.recipe.dataset,
            "window": sweep.recipe.window,
            "cell": _cell_document(sweep.recipe.cell),
            "evidence": {name: dict(figure) for name, figure in sweep.recipe.evidence.items()},
        },
    }


def restore_sweep(document: Mapping[str, Any], *, where: str) -> Sweep:
    """Builds a sweep from its document, wherever the user's own files are by now.

    `where` the document comes from is for messages.

    Raises:
        InputError: A cell has keys or values that this version does not know.
    """
    recipe = document["recipe"]
    cells = tuple(
        NamedCell(**{**named, "cell": cell, "point": {key: get_value(cell, key) for key in named["point"]}})
        for named in document["cells"]
        for cell in [_restore_cell(named["cell"], where)]
    )
    restored = {
        **{name: tuple(document[name]) for name in _TUPLES},
        "cells": cells,
        "recipe": Recipe(**{**recipe, "cell": _restore_cell(recipe["cell"], where)}),
    }
    return Sweep(**{**document, **restored})


def _cell_document(cell: Cell) -> dict[str, object]:
    return {
        **{key: _plain(get_value(cell, key)) for key in keys()},
        "dataset_sha256": cell.dataset_sha256,
        "sources": dict(cell.sources),
        "own_widths": {key: list(widths) for key, widths in cell.own_widths},
        "own_descriptors": dict(cell.own_descriptors),
        "declared": {key: declaration_document(part) for key, part in cell.declared},
        "own_values": {key: _plain(value) for key, value in cell.own_values},
        "teacher_file_sha256": cell.teacher_file_sha256,
        "student_file_sha256": cell.student_file_sha256,
    }


def _plain(value: Value) -> object:
    return list(value) if isinstance(value, tuple) else value


def _frozen(value: Any) -> Value:
    return tuple(value) if isinstance(value, list) else value


def _restore_cell(document: Mapping[str, Any], where: str) -> Cell:
    older = {key: _plain(info.earlier) for key, (_, _, info) in keys().items() if info.earlier is not None}
    settings = [
        Setting(key=key, value=value, where=where)
        for key, value in {**older, **document}.items()
        if key not in _FIXED
    ]
    declared = {key: restore_declaration(part) for key, part in document.get("declared", {}).items()}
    own_values = {key: _frozen(value) for key, value in document.get("own_values", {}).items()}
    return dataclasses.replace(
        restore_cell(settings, declared=declared, own_values=own_values),
        dataset_sha256=str(document["dataset_sha256"]),
        sources=tuple(document.get("sources", {}).items()),
        own_widths=tuple((key, tuple(widths)) for key, widths in document.get("own_widths", {}).items()),
        own_descriptors=tuple(document.get("own_descriptors", {}).items()),
        teacher_file_sha256=str(document.get("teacher_file_sha256", "")),
        student_file_sha256=str(document.get("student_file_sha256", "")),
    )
