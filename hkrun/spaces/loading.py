"""Reads search spaces and recipes, and reports everything that is wrong in all of them at once."""

import dataclasses
import functools
import itertools
import logging
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import get_origin

from hkrun.config import Keys, Setting, build_cell, cell_id, check_setting, get_value, keys, nearest
from hkrun.errors import NotFoundError
from hkrun.spaces.arguments import Arguments, Overrides, Seeds, check_seeds, read_arguments
from hkrun.spaces.axes import Axis, Variant, WrittenCell, expand, read_axes, refuse_idle_axes, show
from hkrun.spaces.dicts import read_dict
from hkrun.spaces.key_effects import (
    describe_duplicates,
    describe_idle_keys,
    describe_replaced,
    describe_unfinished_warmups,
    refuse_merged_cells,
)
from hkrun.spaces.naming import is_study_name, title_name
from hkrun.spaces.places import find_sweep
from hkrun.spaces.recipes import MIN_WINDOW, read_recipe
from hkrun.spaces.references import find_reference
from hkrun.spaces.sweep import FAMILIES, MARGIN, MEASURES, TABLE_FAMILY, NamedCell, Sweep
from hkrun.spaces.toml_tables import Document, Problems, Table, read_document

_TOP = (
    "title", "question", "dataset", "seeds", "reference", "analysis", "base", "cells", "axes", "published"
)  # fmt: skip
_MOST_TRIED = 100  # cells of a file with mistakes: a product that is too large is never made
_log = logging.getLogger("hkrun")


def load_sweep(
    space: str | Path | Mapping[str, object],
    *,
    dataset: str | None = None,
    seeds: Seeds | None = None,
    epochs: str | int | None = None,
    overrides: Overrides = (),
) -> Sweep:
    """Reads a search space, the recipe of its data set, and what the command line or Python changes.

    Logged warnings name keys that change nothing in any cell, overrides that replace different values,
    warm-ups longer than their stage, and cells that differ in nothing but keys without an effect.

    Args:
        space: Name of a search space, path of a .toml file, or a dict with the keys of one.
        dataset: Replaces the file's data set.
        seeds: Replaces the file's seeds: a number of seeds, or which; as text separated by commas.
        epochs: The same as an override of `student.epochs`.
        overrides: `key.path=value` each, values are TOML, a bare word is a string; or values by their keys.

    Raises:
        NotFoundError: There is no such search space.
        InputError: All problems of the files and the arguments, one per line.
    """
    problems, of_file = Problems(), Problems()
    path: Path | None = None
    document: Document | None
    if isinstance(space, Mapping):
        document = of_file.attempt(read_dict, space)
    else:
        path = of_file.attempt(find_sweep, str(space))
        document = of_file.attempt(read_document, path) if path is not None else None
    of_file.found += document.broken if document is not None else ()
    problems.learn_keys(document.data if document is not None else None)
    arguments = read_arguments(problems, dataset=dataset, seeds=seeds, epochs=epochs, overrides=overrides)
    problems.found += of_file.found
    if document is None:
        missing = path is None and not isinstance(space, Mapping)
        raise NotFoundError("\n".join(problems.found)) if missing else problems.error()
    read = _read_space(Table(document, (), document.data, problems), arguments)
    name = title_name(read.title or "") if path is None else path.stem
    if not is_study_name(name):
        problems.found.append(f"{document.name}: the name must be of letters, digits, '.', '_' and '-'")
    recipe = read_recipe(read.dataset, problems, beside=path) if read.dataset is not None else None
    if recipe is None:
        raise problems.error()
    all_variants = ((variant, [*recipe.settings, *settings]) for variant, settings in read.variants())
    if problems.found:
        if not document.broken:
            first = list(itertools.islice(all_variants, _MOST_TRIED))
            _build_cells(_find_sound(first, arguments, problems), arguments, problems)
        raise problems.error()
    variants = list(all_variants)
    cells = _build_cells(variants, arguments, problems)
    if not problems.found:
        refuse_idle_axes(read.axes, cells)
        replaced = _check_overrides(variants, cells, arguments, problems)
    if problems.found:
        raise problems.error()
    written = [*read.base, *(setting for cell in read.cells for setting in cell.settings)]
    idle = describe_idle_keys([*written, *arguments.overrides], cells)
    for line in (*replaced, *idle, *describe_unfinished_warmups(cells), *describe_duplicates(cells)):
        _log.warning("%s", line)
    return Sweep(
        name=name,
        title=read.title or name,
        question=read.question,
        dataset=recipe.recipe.dataset,
        seeds=read.seeds,
        reference=read.reference,
        cells=cells,
        window=read.window or recipe.recipe.window,
        ddof=read.ddof,
        published=read.published,
        recipe=recipe.recipe,
        source=document.name,
        claims=read.claims,
        margin=read.margin or MARGIN,
        asks_equivalence=read.margin is not None,
        s2_factor=read.s2_factor,
        measure=read.measure,
        family=read.family,
        command=(
            "hkrun",
            "sweep",
            name if isinstance(space, Mapping) else str(space),
            *_write_overrides(arguments),
        ),
    )


def load_cell(
    *,
    dataset: str | None = None,
    seeds: Seeds | None = None,
    epochs: str | int | None = None,
    overrides: Overrides = (),
) -> Sweep:
    """A sweep of one cell: a recipe and what the command line changes.

    Logged warnings name the keys that change nothing and warm-ups longer than their stage.

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
    recipe = read_recipe(chosen, problems, beside=None)
    if recipe is None or problems.found:
        raise problems.error()
    changes = ", ".join(_write_overrides(arguments))
    name = f"{chosen} [{changes}]" if changes else chosen
    alone = Variant(name=name, group=name, point=())
    cells = _build_cells([(alone, recipe.settings)], arguments, problems)
    if problems.found:
        raise problems.error()
    for line in (*describe_idle_keys(arguments.overrides, cells), *describe_unfinished_warmups(cells)):
        _log.warning("%s", line)
    return Sweep(
        name=f"run-{cell_id(cells[0].cell)}",
        title="One configuration",
        question="",
        dataset=chosen,
        seeds=arguments.seeds or (0,),
        reference=None,
        cells=cells,
        window=recipe.recipe.window,
        ddof=0,
        published=(),
        recipe=recipe.recipe,
        source=recipe.source,
        command=("hkrun", "run", *_write_overrides(arguments)),
    )


def _write_overrides(arguments: Arguments) -> list[str]:
    return [f"{setting.key}={show(setting.value)}" for setting in arguments.overrides]


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
    cells: list[WrittenCell]
    axes: list[Axis]
    margin: float | None
    s2_factor: float | None
    measure: str
    family: str
    published: tuple[str, ...]
    claims: tuple[str, ...]

    def variants(self) -> Iterator[tuple[Variant, list[Setting]]]:
        """Each cell at each point of its axes, and its settings over the recipe's."""
        for cell in self.cells or [WrittenCell(name="", settings=[])]:
            for variant in expand(cell, self.axes):
                yield variant, [*self.base, *cell.settings, *variant.point]


def _read_space(table: Table, arguments: Arguments) -> _Space:
    table.allow_only(*_TOP)
    analysis = table.table("analysis")
    analysis.allow_only("window", "ddof", "margin", "s2_factor", "measure", "family")
    tables, claims = _read_published(table.table("published"))
    dataset = _read_dataset(table, arguments)
    seeds = _read_seeds(table, arguments)
    base = _read_settings(table.table("base"), dataset)
    cells = _read_cells(table, dataset)
    problems_before = len(table.problems.found)
    axes = read_axes(table, cells, arguments)
    axes_hold = len(table.problems.found) == problems_before
    space = _Space(
        title=table.text("title"),
        question=table.text("question") or "",
        dataset=dataset,
        seeds=seeds,
        reference=table.text("reference"),
        window=analysis.integer("window", minimum=MIN_WINDOW),
        ddof=analysis.integer("ddof", minimum=0, maximum=1) or 0,
        base=base,
        cells=cells,
        axes=axes,
        margin=analysis.number("margin", above=0.0),
        s2_factor=analysis.number("s2_factor", above=1.0),
        measure=_read_word(analysis, "measure", MEASURES),
        family=_read_word(analysis, "family", FAMILIES) or TABLE_FAMILY,
        published=tables,
        claims=claims,
    )
    if not space.cells and not space.axes and not (table.data.get("cells") or table.data.get("axes")):
        table.refuse("cells", "missing; each configuration stands under its own [[cells]]")
    if space.reference is not None and axes_hold:
        variants = [variant for variant, _ in space.variants()]
        return dataclasses.replace(space, reference=find_reference(space.reference, variants, table))
    return space


def _read_word(analysis: Table, key: str, allowed: Sequence[str]) -> str:
    """One of several words; empty where the file does not say."""
    word = analysis.text(key) or ""
    if word and word not in allowed:
        analysis.refuse(key, f"{word!r} is not one of {', '.join(allowed)}{nearest(word, allowed)}")
    return word


def _read_published(table: Table) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The tables of the paper, and the claims beside those of the tables, that a space is set against."""
    table.allow_only("table", "tables", "claims")
    if "table" in table.data and "tables" in table.data:
        table.refuse("tables", "give either table or tables")
    key = "tables" if "tables" in table.data else "table"
    return _read_known(table, key, _published_names()[0]), _read_known(table, "claims", _published_names()[1])


def _read_known(table: Table, key: str, known: Sequence[str]) -> tuple[str, ...]:
    names = table.texts(key) or ()
    for name in names:
        if name not in known:
            table.refuse(
                key, f"{name!r} is not in the paper; one of {', '.join(known)}{nearest(name, known)}"
            )
    return names


@functools.cache
def _published_names() -> tuple[list[str], list[str]]:
    """The names of the paper's tables, and the ids of its claims."""
    document = tomllib.loads(resources.files("hkrun").joinpath("published.toml").read_text(encoding="utf-8"))
    tables = [name for name, table in document.items() if "rows" in table]
    return tables, [claim["id"] for claim in document["claims"]]


def _read_dataset(table: Table, arguments: Arguments) -> str | None:
    """The data set, from the command line or the file; None where it is missing or wrong."""
    if "dataset" not in table.data:
        if arguments.dataset is None:
            table.refuse("dataset", "missing; name it here or give --dataset")
        written = None
    else:
        setting = Setting(key="dataset", value=table.data["dataset"], where=table.where("dataset"))
        (value,) = table.problems.check([setting])
        written = str(value) if value is not None else None
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


def _read_settings(table: Table, dataset: str | None, *, without: Sequence[str] = ()) -> list[Setting]:
    """The keys of a cell that a table sets, those of `on.<data set>` last; the data set is none of them."""
    settings = _check_settings(table, without=(*without, "on"))
    special = table.table("on")
    for name in special.data:
        table.problems.check([Setting(key="dataset", value=name, where=special.where(name))])
        here = _check_settings(special.table(name))
        if name == dataset:
            settings += here
    return settings


def _check_settings(table: Table, *, without: Sequence[str] = ()) -> list[Setting]:
    if "dataset" in table.data:
        table.refuse(
            "dataset", "all cells of a search space share one data set; it stands at the top of the file"
        )
    misplaced = [key for key in table.data if key in _TOP and key != "dataset"]
    for key in misplaced:
        table.refuse(key, "belongs to the top of the file, above [base] and [[cells]]")
    settings = table.settings(without=(*without, "dataset", *misplaced))
    for setting in settings:
        found = check_setting(setting, table.problems.keys)[1]
        if isinstance(setting.value, list) and _takes_one_value(setting.key, table.problems.keys):
            found = [f"{line}; several values are an axis, under [[axes]]" for line in found]
        table.problems.found += found
    return settings


def _takes_one_value(key: str, known: Keys) -> bool:
    return key in known and get_origin(known[key][0]) is not tuple


def _read_cells(table: Table, dataset: str | None) -> list[WrittenCell]:
    cells: dict[str, WrittenCell] = {}
    for cell in table.tables("cells"):
        settings = _read_settings(cell, dataset, without=("name",))
        if "name" not in cell.data:
            cell.refuse("name", "missing")
        for name in cell.texts("name") or ():
            if name in cells:
                cell.refuse("name", f"{name!r} is the name of another cell too")
            cells[name] = WrittenCell(name=name, settings=settings)
    return list(cells.values())


def _build_cells(
    variants: Sequence[tuple[Variant, list[Setting]]], arguments: Arguments, problems: Problems
) -> tuple[NamedCell, ...]:
    """Builds the cells; what is wrong with values together goes to `problems`."""
    cells = []
    for variant, settings in variants:
        cell = problems.attempt(build_cell, [*settings, *arguments.overrides], problems.keys)
        if cell is not None:
            point = {setting.key: get_value(cell, setting.key) for setting in variant.point}
            cells.append(NamedCell(name=variant.name, cell=cell, group=variant.group, point=point))
    return tuple(cells)


def _find_sound(
    variants: Sequence[tuple[Variant, list[Setting]]], arguments: Arguments, problems: Problems
) -> list[tuple[Variant, list[Setting]]]:
    """Those of which every setting is right by itself; what is wrong with them together can be told now."""

    def is_sound(setting: Setting) -> bool:
        return not check_setting(setting, problems.keys)[1]

    if not all(map(is_sound, arguments.overrides)):
        return []
    return [(variant, settings) for variant, settings in variants if all(map(is_sound, settings))]


def _check_overrides(
    variants: Sequence[tuple[Variant, list[Setting]]],
    cells: Sequence[NamedCell],
    arguments: Arguments,
    problems: Problems,
) -> list[str]:
    """Refuses overrides that make cells one; returns what is to be said of the others."""
    if not arguments.overrides:
        return []
    alone = Problems(
        keys=problems.keys
    )  # a file may need its overrides, and then there is nothing to compare with
    before = _build_cells(variants, dataclasses.replace(arguments, overrides=()), alone)
    if alone.found:
        return []
    problems.found += refuse_merged_cells(arguments.overrides, before, cells)
    return list(describe_replaced(arguments.overrides, before))
