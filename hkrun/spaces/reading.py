"""Reads search spaces and recipes, and reports everything that is wrong in all of them at once."""

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hkrun.config import Setting, build_cell, cell_id, check_setting, keys, nearest
from hkrun.spaces.arguments import Arguments, check_seeds, read_arguments
from hkrun.spaces.documents import read_document
from hkrun.spaces.places import find_recipe, find_sweep
from hkrun.spaces.sweep import NamedCell, Recipe, Sweep
from hkrun.spaces.tables import Problems, Table

_MIN_WINDOW = 2  # the variance of one epoch is 0 whatever happened
_LABEL = re.compile(r"measured \(.+\)|estimated \(.+\)|published|not run here")
_FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def load_sweep(
    name_or_file: str,
    *,
    dataset: str | None = None,
    seeds: str | None = None,
    epochs: str | None = None,
    overrides: Sequence[str] = (),
) -> Sweep:
    """Reads a search space, the recipe of its data set, and what the command line changes.

    Args:
        name_or_file: Name of a search space, or path of a .toml file.
        dataset: Replaces the file's data set.
        seeds: Replaces the file's seeds: a number of seeds, or seeds separated by commas.
        epochs: The same as an override of `student.epochs`.
        overrides: `key.path=value` each; values are TOML, a bare word is a string.

    Raises:
        InputError: All problems of the files and the arguments, one per line.
    """
    problems = Problems()
    arguments = read_arguments(problems, dataset=dataset, seeds=seeds, epochs=epochs, overrides=overrides)
    path = problems.attempt(find_sweep, name_or_file)
    document = problems.attempt(read_document, path) if path is not None else None
    if path is None or document is None:
        raise problems.error()
    space = _read_space(Table(document, (), document.data, problems), arguments)
    if _FOLDER_NAME.fullmatch(path.stem) is None:
        problems.found.append(f"{document.name}: the name must be of letters, digits, '.', '_' and '-'")
    recipe = _read_recipe(space.dataset, problems, beside=path) if space.dataset is not None else None
    if recipe is None or problems.found:
        raise problems.error()
    variants = [(name, [*recipe.settings, *settings]) for name, settings in space.variants()]
    cells = _build_cells(variants, arguments, problems)
    if problems.found:
        raise problems.error()
    return Sweep(
        name=path.stem,
        title=space.title or path.stem,
        question=space.question,
        dataset=recipe.dataset,
        seeds=space.seeds,
        reference=space.reference,
        cells=cells,
        window=space.window or recipe.window,
        ddof=space.ddof,
        published=space.published,
        recipe=recipe.freeze(),
        source=document.name,
    )


def load_cell(
    *,
    dataset: str | None = None,
    seeds: str | None = None,
    epochs: str | None = None,
    overrides: Sequence[str] = (),
) -> Sweep:
    """A sweep of one cell: a recipe and what the command line changes.

    Args:
        dataset: The data set; digits without it.
        seeds: A number of seeds, or seeds separated by commas; seed 0 without it.
        epochs: The same as an override of `student.epochs`.
        overrides: `key.path=value` each.

    Raises:
        InputError: All problems of the recipe and the arguments, one per line.
    """
    problems = Problems()
    arguments = read_arguments(problems, dataset=dataset, seeds=seeds, epochs=epochs, overrides=overrides)
    chosen = arguments.dataset or str(keys()["dataset"][1])
    recipe = _read_recipe(chosen, problems, beside=None)
    if recipe is None or problems.found:
        raise problems.error()
    changes = ", ".join(f"{setting.key}={_show(setting.value)}" for setting in arguments.overrides)
    name = f"{chosen} [{changes}]" if changes else chosen
    cells = _build_cells([(name, recipe.settings)], arguments, problems)
    if problems.found:
        raise problems.error()
    return Sweep(
        name=f"run-{cell_id(cells[0].cell)}",
        title=name,
        question="",
        dataset=chosen,
        seeds=arguments.seeds or (0,),
        reference=None,
        cells=cells,
        window=recipe.window,
        ddof=0,
        published=None,
        recipe=recipe.freeze(),
        source=recipe.source,
    )


# --- recipes ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _RecipeFile:
    dataset: str
    settings: list[Setting]
    window: int
    evidence: Mapping[str, Mapping[str, object]]
    source: str

    def freeze(self) -> Recipe:
        return Recipe(
            dataset=self.dataset, window=self.window, cell=build_cell(self.settings), evidence=self.evidence
        )


def _read_recipe(dataset: str, problems: Problems, *, beside: Path | None) -> _RecipeFile | None:
    """Reads a recipe; None where that is impossible, with the reason in `problems`."""
    before = len(problems.found)
    path = problems.attempt(find_recipe, dataset, beside=beside)
    document = problems.attempt(read_document, path) if path is not None else None
    if document is None:
        return None
    table = Table(document, (), document.data, problems)
    analysis = table.table("analysis")
    analysis.allow_only("window")
    window = analysis.integer("window", minimum=_MIN_WINDOW)
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
    if problems.attempt(build_cell, settings) is None:
        return None
    return _RecipeFile(
        dataset=dataset, settings=settings, window=window, evidence=evidence, source=document.name
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


# --- search spaces ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Axis:
    key: str
    values: list[Setting]


@dataclass(frozen=True, kw_only=True)
class _Space:
    """A search space's file, before the recipe is known."""

    title: str | None
    question: str
    dataset: str | None
    seeds: tuple[int, ...]
    reference: str | None
    window: int | None
    ddof: int
    base: list[Setting]
    cells: list[tuple[str, list[Setting]]]
    axes: list[_Axis]
    published: str | None

    def variants(self) -> Iterator[tuple[str, list[Setting]]]:
        """Each cell at each point of the axes: its name, and its settings over the recipe's."""
        for name, settings in self.cells or [("", [])]:
            for point in itertools.product(*(axis.values for axis in self.axes)):
                yield _variant_name(name, point), [*self.base, *settings, *point]


def _variant_name(cell: str, point: Sequence[Setting]) -> str:
    """`L_b [loss.lambda_3=0.1]`; without a cell or a point just the other."""
    values = ", ".join(f"{setting.key}={_show(setting.value)}" for setting in point)
    return f"{cell} [{values}]" if cell and values else cell or values


def _show(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _read_space(table: Table, arguments: Arguments) -> _Space:
    table.allow_only(
        "title", "question", "dataset", "seeds", "reference", "analysis", "base", "cells", "axes", "published"
    )  # fmt: skip
    analysis = table.table("analysis")
    analysis.allow_only("window", "ddof")
    published = table.table("published")
    published.allow_only("table")
    space = _Space(
        title=table.text("title"),
        question=table.text("question") or "",
        dataset=_read_dataset(table, arguments),
        seeds=_read_seeds(table, arguments),
        reference=table.text("reference"),
        window=analysis.integer("window", minimum=_MIN_WINDOW),
        ddof=analysis.integer("ddof", minimum=0, maximum=1) or 0,
        base=_read_settings(table.table("base")),
        cells=_read_cells(table),
        axes=_read_axes(table, arguments),
        published=published.text("table"),
    )
    if not space.cells and not space.axes and not (table.data.get("cells") or table.data.get("axes")):
        table.refuse("cells", "missing; each configuration stands under its own [[cells]]")
    names = [name for name, _ in space.variants()]
    if space.reference is not None and space.reference not in names:
        shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        table.refuse(
            "reference", f"{space.reference!r} is no cell; cells: {shown}{nearest(space.reference, names)}"
        )
    return space


def _read_dataset(table: Table, arguments: Arguments) -> str | None:
    """The data set, from the command line or the file; None where it is missing or wrong."""
    if "dataset" not in table.data:
        if arguments.dataset is None:
            table.refuse("dataset", "missing; name it here or give --dataset")
        written = None
    else:
        setting = Setting(key="dataset", value=table.data["dataset"], where=table.document.where("dataset"))
        _, found = check_setting(setting)
        table.problems.found += found
        written = str(setting.value) if not found else None
    return arguments.dataset or written


def _read_seeds(table: Table, arguments: Arguments) -> tuple[int, ...]:
    """The seeds, from the command line or the file; none where they are missing or wrong."""
    written: tuple[int, ...] = ()
    if "seeds" in table.data:
        written, found = check_seeds(table.data["seeds"])
        for problem in found:
            table.refuse("seeds", problem)
    elif arguments.seeds is None:
        table.refuse("seeds", "missing; a number such as 20 here, or --seeds")
    return arguments.seeds or written


def _read_settings(table: Table, *, without: Sequence[str] = ()) -> list[Setting]:
    """The keys of a cell that a table sets; the data set is none of them."""
    if "dataset" in table.data:
        table.refuse(
            "dataset", "all cells of a search space share one data set; it stands at the top of the file"
        )
    settings = table.settings(without=(*without, "dataset"))
    table.problems.check(settings)
    return settings


def _read_cells(table: Table) -> list[tuple[str, list[Setting]]]:
    cells: dict[str, list[Setting]] = {}
    for cell in table.tables("cells"):
        settings = _read_settings(cell, without=("name",))
        name = cell.text("name")
        if "name" not in cell.data:
            cell.refuse("name", "missing")
        if name in cells:
            cell.refuse("name", f"{name!r} is the name of another cell too")
        if name is not None:
            cells[name] = settings
    return list(cells.items())


def _read_axes(table: Table, arguments: Arguments) -> list[_Axis]:
    overridden = {setting.key: setting for setting in arguments.overrides}
    axes: list[_Axis] = []
    for axis in table.tables("axes"):
        axis.allow_only("key", "values")
        key, values = axis.text("key"), axis.data.get("values")
        if "key" not in axis.data:
            axis.refuse("key", "missing; the key of a cell that the axis varies")
        if not isinstance(values, list) or not values:
            axis.refuse("values", "must be a list of at least one value")
            values = []
        if key is None:
            continue
        if key not in keys():
            setting = Setting(key=key, value=None, where=axis.document.where(*axis.path, "key"))
            table.problems.check([setting])
            continue
        if key == "dataset":
            axis.refuse("key", "a data set is no axis: its recipe changes with it; use --dataset")
        if key in (other.key for other in axes):
            axis.refuse("key", f"{key} is an axis already")
        if key in overridden:
            where = overridden[key].where
            table.problems.found.append(
                f"{where}: {key}: is an axis of this search space, so it cannot be set"
            )
        settings = [
            Setting(key=key, value=value, where=axis.document.where(*axis.path, "values", index))
            for index, value in enumerate(values)
        ]
        table.problems.check(settings)
        checked = [check_setting(setting)[0] for setting in settings]
        for index, value in enumerate(checked):
            if value is not None and value in checked[:index]:
                table.problems.found.append(f"{settings[index].where}: {key}: {value!r} is repeated")
        axes.append(_Axis(key=key, values=settings))
    return axes


def _build_cells(
    variants: Sequence[tuple[str, list[Setting]]], arguments: Arguments, problems: Problems
) -> tuple[NamedCell, ...]:
    """Builds the cells; what is wrong with values together goes to `problems`."""
    cells = []
    for name, settings in variants:
        cell = problems.attempt(build_cell, [*settings, *arguments.overrides])
        if cell is not None:
            cells.append(NamedCell(name=name, cell=cell))
    return tuple(cells)
