"""The table of single runs."""

import dataclasses

import pytest
from report_example import TEST_IMAGES, fill, make_sweep, put_run

from hkrun.plans import StoppedRun, save_stopped
from hkrun.report import render_report, summarise
from hkrun.report.seed_table import tabulate_seeds
from hkrun.spaces import NamedCell
from hkrun.store import open_store

pytestmark = pytest.mark.usefixtures("undrawn_figures")


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "store")


def tabulate(sweep, store):
    table = tabulate_seeds(summarise(sweep, store))
    return [table.columns, *(tuple(entry.text for entry in row) for row in table.rows)]


def test_a_row_is_a_seed_and_a_column_a_cell_with_the_last_error_of_the_run(store):
    sweep = make_sweep(["L_b", "L_b + L_is"], seeds=(0, 7))
    first, second = sweep.cells
    for named, seed, wrong in ((first, 0, 40), (first, 7, 50), (second, 0, 60), (second, 7, 70)):
        put_run(store, named, seed, errors=[9.0] * 7 + [100 * wrong / TEST_IMAGES])
    assert tabulate(sweep, store) == [
        ("Seed", "L_b", "L_b + L_is"),
        ("0", "3.61", "5.42"),
        ("7", "4.52", "6.32"),
    ]
    table = tabulate_seeds(summarise(sweep, store))
    assert table.rows[1][2].value == 100 * 70 / TEST_IMAGES


def test_a_run_without_a_result_has_what_became_of_it(store):
    sweep = make_sweep(["L_b", "L_b + L_is"], num_seeds=4)
    named, stopped = sweep.cells
    put_run(store, named, 0, errors=[9.0] * 7 + [5.0])
    put_run(store, named, 1, errors=[90.0], status="diverged", diverged_epoch=2)
    put_run(store, named, 2, errors=[], status="failed", traceback="Boom")
    run = StoppedRun(cell_id=summarise(sweep, store).cells[1].cell_id, seed=0, epoch=3, error_pct=8.0)
    save_stopped(store, sweep, [run])
    assert tabulate(sweep, store)[1:] == [
        ("0", "5.00", "stopped early"),
        ("1", "diverged, epoch 2", "missing"),
        ("2", "failed", "missing"),
        ("3", "missing", "missing"),
    ]
    assert stopped.name == "L_b + L_is"


def test_where_cells_are_more_than_seeds_they_are_the_rows(store):
    sweep = make_sweep(["L_b", "L_b + L_is", "L_b + L_adv"], seeds=(0, 7))
    for place, named in enumerate(sweep.cells):
        put_run(store, named, 0, errors=[9.0] * 7 + [5.0 + place])
    put_run(store, sweep.cells[1], 7, errors=[90.0], status="diverged", diverged_epoch=2)
    assert tabulate(sweep, store) == [
        ("Cell", "Seed 0", "Seed 7"),
        ("L_b", "5.00", "missing"),
        ("L_b + L_is", "6.00", "diverged, epoch 2"),
        ("L_b + L_adv", "7.00", "missing"),
    ]
    lines = render_report(summarise(sweep, store))["report.csv"].decode().splitlines()
    assert [line.split(",")[:4] for line in lines if line.startswith("seeds,")][2:4] == [
        ["seeds", "L_b + L_is", "Seed 0", "6.00"],
        ["seeds", "L_b + L_is", "Seed 7", '"diverged'],
    ]


def test_two_names_of_one_configuration_share_a_column(store):
    sweep = make_sweep(["L_b", "L_b + L_is"], num_seeds=2)
    again = NamedCell(name="the same", cell=sweep.cells[0].cell)
    sweep = dataclasses.replace(sweep, cells=(*sweep.cells, again))
    fill(store, sweep)
    assert tabulate(sweep, store)[0] == ("Seed", "L_b", "L_b + L_is")


def test_the_page_and_csv_have_it(store):
    sweep = make_sweep(["L_b", "L_b + L_is"], num_seeds=2)
    fill(store, sweep)
    files = render_report(summarise(sweep, store))
    assert 'id="table-seeds"' in files["report.html"].decode()
    assert [line.split(",")[:3] for line in files["report.csv"].decode().splitlines()].count(
        ["seeds", "0", "L_b"]
    ) == 1
