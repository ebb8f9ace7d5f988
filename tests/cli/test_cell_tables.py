import io
import re

import pytest

from hkrun.cli.cell_tables import print_cell_table, print_named_table
from hkrun.cli.console import PlainConsole
from hkrun.config import cell_from_values
from hkrun.spaces import NamedCell, name_cells

CELL = cell_from_values({})
NAMES = (
    "label supervision only, no teacher at all",
    "label supervision with intermediate supervision at the default weight",
    "without-the-adversarial-loss-and-with-everything-else-as-published",
    "L_b",
)
HEADINGS = ("done", "failed", "unfinished, with a checkpoint")


def show(width, print_it, *arguments):
    stream = io.StringIO()
    print_it(PlainConsole(file=stream, width=width, color_system=None), *arguments)
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def print_cells(width, cells, fields=("4/4", "-", "0-3 (5/20), 7 (11/20)")):
    rows = {named.name: (f"{place:012d}", fields) for place, named in enumerate(cells)}
    return show(width, print_cell_table, "title", name_cells(cells), HEADINGS, rows)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_names_are_whole_or_shortened_and_spelled_out_at_any_width(width):
    lines = print_cells(width, [NamedCell(name=name, cell=CELL) for name in NAMES])
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    table, _, notes = text.partition("L_b")
    for name in NAMES[:3]:
        # A name that lines break after a hyphen is whole but for that.
        assert name in text or f": {name}" in text.replace("- ", "-")
    shortened = re.findall(r"(\S*…\S*(?: \S+)*?): ", notes)
    assert (width < 120) <= bool(shortened)
    assert table.count("4/4") == 3


def test_ids_give_way_before_names_are_shortened_much():
    cells = [NamedCell(name=name, cell=CELL) for name in NAMES]
    assert any("000000000001" in line for line in print_cells(120, cells))
    assert not any("000000000001" in line for line in print_cells(60, cells))


def test_values_of_axes_are_columns():
    cells = [
        NamedCell(name=f"loss.lambda_3={value}", cell=CELL, point={"loss.lambda_3": value})
        for value in (0.1, 1.0)
    ]
    lines = print_cells(80, cells)
    head = next(line for line in lines if "lambda_3" in line).split()
    assert head[:4] == ["id", "lambda_3", "done", "failed"]
    assert [line.split()[:3] for line in lines if "4/4" in line] == [
        ["000000000000", "0.1", "4/4"],
        ["000000000001", "1", "4/4"],
    ]


@pytest.mark.parametrize("width", [60, 80, 100, 120])
@pytest.mark.parametrize(
    ("headings", "fields"),
    [
        (
            ("done", "failed", "diverged", "unfinished, with a checkpoint"),
            ("20/20", "1 (seed 3)", "5 (seeds 0-4)", "0-3 (5/20), 7 (11/20)"),
        ),
        (("runs", "done", "to run", "together", "workers"), ("20", "10", "10", "1", "1")),
    ],
)
def test_the_last_column_is_whole_beside_long_names_of_short_words(width, headings, fields):
    # Rich holds such a name for as narrow as its longest word.
    names = [f"knowledge of the teacher with temperature {t}, no {t}" for t in ("4", "80")]
    assert len(names[0]) == 49
    rows = {name: (f"{place:012d}", fields) for place, name in enumerate(names)}
    cells = name_cells([NamedCell(name=name, cell=CELL) for name in names])
    lines = show(width, print_cell_table, "title", cells, headings, rows)
    assert max(map(len, lines)) <= width
    text = " ".join(lines)
    for word in " ".join((*headings, *fields)).split():
        assert word in text.split()
    assert text.count(f" {fields[-1].split()[-1]}") >= 2, "in the row of each"


def test_a_list_of_studies_says_which_columns_a_narrow_terminal_goes_without():
    rows = [("a-study-of-a-long-name", ["imagenet", "1200", "1200", "120000/240000", "2026-11-29"])]
    headings = ("data set", "cells", "seeds", "runs", "last run")

    def print_it(console):
        print_named_table(console, headings, rows, dispensable=("cells", "seeds"))

    narrow, wide = show(60, print_it), show(100, print_it)
    assert max(map(len, narrow)) <= 60
    assert not any("cells" in line for line in narrow[:4])
    assert "Left out because the terminal is narrow: cells; --json has all" in " ".join(
        " ".join(narrow).split()
    )
    assert any("120000/240000   2026-11-29" in line for line in narrow)
    assert not any("Left out" in line for line in wide)


def test_axes_without_a_place_for_columns_share_one():
    keys = (
        *("loss.lambda_1", "loss.lambda_2", "loss.lambda_3", "loss.mu", "student.momentum"),
        *("student.weight_decay", "student.learning_rate"),
    )
    cells = [NamedCell(name=f"{key}=0.5", cell=CELL, point={key: 0.5}) for key in keys]
    lines = print_cells(60, cells)
    assert max(map(len, lines)) <= 60
    assert any(line.startswith("  lambda_3 = 0.5 ") for line in lines)


@pytest.mark.parametrize("width", [60, 80])
def test_names_of_studies_are_shortened_and_spelled_out(width):
    names = [f"sensitivity-lambda_3-{value}-epochs-600-momentum-0.9-seeds-20" for value in (0.1, 10)]
    headings = ("data set", "cells", "last run")
    lines = show(width, print_named_table, headings, [(name, ["digits", "4", "-"]) for name in names])
    assert max(map(len, lines)) <= width
    shown = [line.split()[0] for line in lines if line.endswith("-") and "digits" in line]
    assert len(set(shown)) == 2
    first = next(place for place, line in enumerate(lines) if ":" in line)
    text = "".join(lines[first:]).replace(" ", "")
    for name in names:
        assert name in text


def test_a_study_of_two_data_sets_is_listed_twice():
    rows = [("stability", ["digits", "4"]), ("stability", ["mnist5k", "4"])]
    lines = show(80, print_named_table, ("data set", "cells"), rows)
    assert [line.split() for line in lines if line.split()[:1] == ["stability"]] == [
        ["stability", "digits", "4"],
        ["stability", "mnist5k", "4"],
    ]
