import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from hkrun.curve_files import Curves, CurveSet, assemble, read_source
from hkrun.errors import InputError

Row = tuple[object, ...]


def rows_of(seeds: Iterable[int], epochs: Iterable[int]) -> list[Row]:
    """A complete matrix; the error of seed 3 in epoch 7 is 3.07."""
    epochs = list(epochs)
    return [(seed, epoch, seed + epoch / 100) for seed in seeds for epoch in epochs]


def write_csv(path: Path, rows: Iterable[Row], names: str = "seed,epoch,error_pct") -> Path:
    path.write_text("\n".join([names, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def assembled(path: Path, window: int) -> CurveSet:
    return assemble([read_source(path)], window=window)


def read_curves(path: Path, *, window: int) -> dict[str, Curves]:
    return assembled(path, window).cells


def problems_of(path: Path, window: int = 2) -> list[str]:
    with pytest.raises(InputError) as caught:
        read_curves(path, window=window)
    assert caught.value.exit_code == 2
    problems = caught.value.problems
    assert all(problem.startswith(f"{path}: ") for problem in problems)
    return [problem.removeprefix(f"{path}: ") for problem in problems]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "curves.csv"


def test_a_csv_file_becomes_a_matrix_with_rows_by_seed_and_columns_by_epoch(file: Path) -> None:
    rows = rows_of([7, 3, 11], range(1, 5))
    shuffled = [rows[index] for index in np.random.default_rng(0).permutation(len(rows))]
    curves = read_curves(write_csv(file, shuffled), window=4)["all"]
    assert curves.seeds == (3, 7, 11)
    assert curves.epochs == (1, 2, 3, 4)
    assert curves.error_pct.dtype == np.float64
    assert curves.error_pct.tolist() == [[s + e / 100 for e in range(1, 5)] for s in (3, 7, 11)]


def test_cells_come_in_the_order_of_the_file_each_with_its_own_seeds_and_epochs(file: Path) -> None:
    rows = [(*row, "L_b + L_is") for row in rows_of([2, 3], range(1, 4))]
    rows += [(*row, "L_b") for row in rows_of([4, 5, 6], range(2, 4))]
    cells = read_curves(write_csv(file, rows, "seed,epoch,error_pct,cell"), window=2)
    assert list(cells) == ["L_b + L_is", "L_b"]
    assert (cells["L_b"].seeds, cells["L_b"].epochs) == ((4, 5, 6), (2, 3))
    assert cells["L_b + L_is"].error_pct.shape == (2, 3)


def test_parquet_is_known_by_its_content_and_gives_what_the_csv_file_gives(tmp_path: Path) -> None:
    rows = rows_of([2, 1], range(1, 6))
    from_csv = read_curves(write_csv(tmp_path / "curves.parquet", rows), window=2)["all"]
    seeds, epochs, errors = zip(*rows, strict=True)
    cell = pa.array(["all"] * len(rows)).dictionary_encode()
    table = pa.table(
        {
            "error_pct": errors,
            "cell": cell,
            "epoch": pa.array(epochs, pa.int32()),
            "seed": seeds,
            "note": seeds,
        }
    )
    pa.parquet.write_table(table, tmp_path / "curves.csv")
    from_parquet = read_curves(tmp_path / "curves.csv", window=2)["all"]
    assert from_parquet.seeds == from_csv.seeds
    assert from_parquet.epochs == from_csv.epochs
    assert np.array_equal(from_parquet.error_pct, from_csv.error_pct)


@pytest.mark.parametrize(
    "text",
    [
        "seed,epoch,error_pct\r\n0,1,2.5\r\n0,2,3\r\n1,1,4\r\n1,2,5\r\n",
        "\ufeffseed, epoch, error_pct\n0, 1, 2.5\n\n0, 2, 3\n1, 1, 4\n1, 2, 5\n\n",
        '"error_pct","loss_total","seed","epoch"\n2.5,,0.0,1.0\n3,,0.0,2.0\n4,nan,1.0,1.0\n5e0,x,1.0,2.0',
        "seed;epoch;error_pct\n0;1;2,5\n0;2;3\n1;1;4,0\n1;2;5\n",
        "seed\tepoch\terror_pct\r\n0\t1\t2,5\r\n0\t2\t3.0\r\n1\t1\t4\r\n1\t2\t5\r\n",
        "seed|epoch|error_pct\n0|1|2.5\n0|2|3\n1|1|4\n1|2|5\n",
        'seed,epoch,error_pct\n0,1,"2,5"\n0,2,"3,000"\n1,1,4\n1,2,5\n',
        '\ufeff"seed";"epoch";"error_pct"\r\n0,0;1,0;2,5\r\n0,0;2,0;3\r\n1,0;1,0;4\r\n1,0;2,0;5\r\n',
        "seed,epoch,error_pct,\n0,1,2.5,\n0,2,3,\n1,1,4,\n1,2,5,\n",
        "seed,epoch,error_pct\n0,1,2.5,,\n,,\n0,2,3\n  \n1,1,4,\n1,2,5\n,,,\n",
        "seed,epoch,error_pct\n0.000000,1e0,2.5\n0.000000,2e0,3\n1.000000,1e0,4\n1.000000,2e0,5\n",
    ],
    ids=[
        "windows line ends",
        "byte order mark, spaces, blank lines",
        "quotes, other columns, whole floats",
        "semicolons and decimal commas",
        "tabs",
        "bars",
        "quoted decimal commas",
        "mark, quotes, semicolons, whole floats with commas",
        "a separator at the end of each line",
        "rows of nothing but separators",
        "floats in other forms",
    ],
)
def test_csv_may_be_written_as_spreadsheets_and_data_frames_write_it(file: Path, text: str) -> None:
    file.write_bytes(text.encode())
    curves = read_curves(file, window=2)["all"]
    assert curves.error_pct.tolist() == [[2.5, 3.0], [4.0, 5.0]]
    assert curves.seeds == (0, 1)


def test_large_seeds_stay_apart(file: Path) -> None:
    large = 2**62 + 1  # float64 would make both one
    rows = [(seed, epoch, 5.0) for seed in (large, large + 1) for epoch in (1, 2)]
    assert read_curves(write_csv(file, rows), window=2)["all"].seeds == (large, large + 1)


def test_missing_columns_are_named_with_the_nearest(file: Path) -> None:
    problems = problems_of(write_csv(file, [(0, 1, 5.0, 1)], "Seeds,epochs,x,y"))
    assert problems == [
        "no column 'seed'; did you mean --seed 'Seeds'?",
        "no column 'epoch'; did you mean --epoch 'epochs'?",
        "no column 'error_pct'; --value takes another: 'Seeds', 'epochs', 'x', 'y'",
    ]


def test_a_column_given_twice_is_refused(file: Path) -> None:
    path = write_csv(file, [(0, 1, 5.0, 5.0)], "seed,epoch,error_pct,error_pct")
    assert problems_of(path) == ["there is more than one column 'error_pct'"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "the file is empty"),
        (b"\n\n\n\n", "there are no column names"),
        (b"seed,epoch,error_pct\n", "there are no rows below the column names"),
        (
            b"seed,epoch,error_pct\n0,1,5\n0,2\n0,3,1,1\n",
            "lines 3-4: not as many values as there are column names, 3",
        ),
        (b"\xe4,seed", "is neither CSV (UTF-8, with column names), JSON lines nor Parquet"),
        (b"\xff\xfes\x00e", "is neither CSV (UTF-8, with column names), JSON lines nor Parquet"),
        (
            b"0,1,5\n0,2,5\n",
            "line 1: has numbers where the column names belong, such as seed,epoch,error_pct",
        ),
        (
            b"seed,epoch,error_pct\n0,1,2,5\n0,2,3,5\n",
            (
                "lines 2-3: not as many values as there are column names, 3; a value with a comma in it "
                "needs quotes, or ; between the values"
            ),
        ),
        (
            b"sep=;\nseed;epoch;error_pct\n0;1;5\n",
            "line 1: has none of the column names seed,epoch,error_pct, which come first",
        ),
        (
            b"\n# made on Monday\nseed,epoch,error_pct\n0,1,5\n",
            "line 2: has none of the column names seed,epoch,error_pct, which come first",
        ),
        (b"PAR1 and then nonsense", "is neither CSV (UTF-8, with column names), JSON lines nor Parquet"),
    ],
    ids=[
        "empty",
        "blank",
        "names only",
        "ragged",
        "Latin-1",
        "half of UTF-16",
        "no names",
        "decimal commas",
        "a spreadsheet's separator",
        "comment",
        "damaged Parquet",
    ],
)
def test_a_file_that_is_no_table_is_refused(file: Path, content: bytes, problem: str) -> None:
    file.write_bytes(content)
    assert problems_of(file)[0].startswith(problem)


def test_a_file_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    assert problems_of(tmp_path / "absent.csv") == ["No such file or directory"]
    assert problems_of(tmp_path) == ["no TensorBoard event files (*tfevents*) in this folder"]


def test_seeds_and_epochs_that_are_no_whole_numbers_are_named_by_line(file: Path) -> None:
    rows: list[Row] = [
        (0, 1, 5),
        ("a", 2, 5),
        ("", 3, 5),
        (1, 1.5, 5),
        (1, 2, 5),
        (2**70, "nan", 5),
        ("inf", 2, 5),
    ]
    assert problems_of(write_csv(file, rows)) == [
        "lines 3-4, 7-8: seed is no whole number, such as 'a'",
        "lines 5, 7: epoch is no whole number, such as '1.5'",
    ]


def test_digits_with_underscores_are_no_numbers(file: Path) -> None:
    file.write_text("seed,epoch,error_pct\n0,1,5\n1_0,1,5\n")
    assert problems_of(file) == ["line 3: seed is no whole number, such as '1_0'"]
    file.write_text("seed,epoch,error_pct\n0,1,5\n1,1,1_0\n")
    assert problems_of(file)[0] == "cell 'all': seed 1, epoch 1: missing or no number, such as '1_0'"


def test_columns_of_another_kind_are_named_by_row(file: Path) -> None:
    table = pa.table(
        {"seed": [[0], [1]], "epoch": [True, False], "error_pct": [5.0, 5.0], "cell": ["a", None]}
    )
    pa.parquet.write_table(table, file)
    assert problems_of(file) == [
        "rows 1-2: seed is no whole number, such as [0]",
        "rows 1-2: epoch is no whole number, such as True",
        "row 2: cell is empty",
    ]


def test_missing_values_are_named_by_seed_and_epoch(file: Path) -> None:
    rows = rows_of(range(4), range(1, 6))
    values: dict[int, object] = {1: "nan", 2: "", 3: "inf", 5: "abc", 10: "-inf"}
    rows = [(seed, epoch, values.get(index, error)) for index, (seed, epoch, error) in enumerate(rows)]
    assert problems_of(write_csv(file, rows)) == [
        "cell 'all': seed 0, epochs 2-4; seeds 1-2, epoch 1: missing or no number, such as 'nan'"
    ]


def test_null_and_nan_are_missing_in_parquet_too(file: Path) -> None:
    table = pa.table({"seed": [0, 0, 1, 1], "epoch": [1, 2, 1, 2], "error_pct": [5.0, None, math.nan, 5.0]})
    pa.parquet.write_table(table, file)
    assert problems_of(file) == [
        "cell 'all': seed 0, epoch 2; seed 1, epoch 1: missing or no number, such as None"
    ]


def test_errors_outside_0_to_100_are_refused_and_both_ends_are_allowed(file: Path) -> None:
    rows: list[Row] = [(0, 1, 0), (0, 2, 100), (1, 1, -0.001), (1, 2, 100.001)]
    assert problems_of(write_csv(file, rows)) == [
        "cell 'all': seed 1, epochs 1-2: outside 0..100, such as '-0.001'"
    ]


def test_rows_given_twice_are_refused_even_when_they_agree(file: Path) -> None:
    rows = rows_of([0, 1], [1, 2, 3])
    path = write_csv(file, [(*row, "a") for row in [*rows, rows[4]]], "seed,epoch,error_pct,cell")
    assert problems_of(path) == ["cell 'a': seed 1, epoch 2: more than one value"]


def test_a_column_of_cells_is_asked_for_where_rows_come_twice(file: Path) -> None:
    rows = [(*row, name) for name in "ab" for row in rows_of([0, 1], [1, 2])]
    assert problems_of(write_csv(file, rows, "seed,epoch,error_pct,cell_id")) == [
        "cell 'all': seeds 0-1, epochs 1-2: more than one value; --cell tells cells apart",
    ]


def test_an_incomplete_matrix_names_the_seeds_and_epochs_it_lacks(file: Path) -> None:
    rows = [row for row in rows_of(range(6), range(1, 11)) if not (row[0] in (2, 3, 5) and row[1] > 7)]
    assert problems_of(write_csv(file, rows)) == [
        (
            "cell 'all': seeds 2-3, 5, epochs 8-10: no value; complete the run or leave it out whole, "
            "or end all with --cut 7"
        )
    ]


def test_epochs_that_no_run_has_are_a_gap_however_wide(file: Path) -> None:
    path = write_csv(file, [(seed, epoch, 5.0) for seed in (0, 1) for epoch in (1, 2, 5, 7, 10**12)])
    assert problems_of(path) == ["cell 'all': epochs 3-4, 6, 8-999999999999: no run has a value"]


def test_a_long_list_of_places_is_cut_and_counted(file: Path) -> None:
    path = write_csv(file, rows_of([0, 1], range(1, 41, 2)))
    assert problems_of(path) == ["cell 'all': epochs 2, 4, 6, 8, 10, 12, 14, 16, 11 more: no run has a value"]


def test_a_single_run_and_too_few_epochs_are_refused(file: Path) -> None:
    assert problems_of(write_csv(file, rows_of([4], range(1, 20))), window=20) == [
        "cell 'all': seed 4 is the only run; S is taken across runs and needs at least 2",
        "cell 'all': epochs 1-19: 19 in all, fewer than the window of 20; --window 19 takes all",
    ]


def test_too_few_epochs_are_told_once_for_all_cells_with_a_window_that_suits_them(tmp_path: Path) -> None:
    rows = [(*row, cell) for cell in ("a", "b") for row in rows_of([0, 1], range(1, 31))]
    rows += [(*row, "c") for row in rows_of([0, 1], range(1, 13))]
    path = write_csv(tmp_path / "curves.csv", rows, "seed,epoch,error_pct,cell")
    assert problems_of(path, window=100) == [
        "cells 'a', 'b': epochs 1-30: 30 in all, fewer than the window of 100; --window 12 takes all",
        "cell 'c': epochs 1-12: 12 in all, fewer than the window of 100; --window 12 takes all",
    ]


def test_no_window_is_advised_that_s_is_not_defined_for(file: Path) -> None:
    assert problems_of(write_csv(file, rows_of([0, 1], [1])), window=2) == [
        "cell 'all': epoch 1: 1 in all, fewer than the window of 2"
    ]


def test_as_many_epochs_as_the_window_are_enough(file: Path) -> None:
    assert read_curves(write_csv(file, rows_of([4, 5], range(1, 21))), window=20)["all"].error_pct.shape == (
        2,
        20,
    )


def test_the_problems_of_all_cells_are_reported_at_once(file: Path) -> None:
    rows: list[Row] = [(*row, "good") for row in rows_of([0, 1], [1, 2])]
    rows += [(0, 1, 5, "one"), (0, 2, 5, "one")]
    rows += [(0, 1, "x", "two"), (0, 2, 101, "two"), (1, 1, 5, "two"), (1, 1, 5, "two")]
    problems = problems_of(write_csv(file, rows, "seed,epoch,error_pct,cell"))
    assert [problem.split(":")[0] for problem in problems] == ["cell 'one'"] + ["cell 'two'"] * 4


def test_fractions_called_percent_are_suspected_aloud_but_read_as_percent(file: Path) -> None:
    rows = [(seed, epoch, 0.03 * epoch) for seed in (0, 1) for epoch in (1, 2)]
    found = assembled(write_csv(file, rows), window=2)
    assert found.cells["all"].error_pct[0].tolist() == [0.03, 0.06]
    assert found.doubts == (f"{file}: no value is above 1, and all are read as percent; are they fractions?",)


def test_small_errors_in_percent_raise_no_suspicion(file: Path) -> None:
    rows = [(seed, epoch, 1.2 / epoch) for seed in (0, 1) for epoch in (1, 2)]
    assert assembled(write_csv(file, rows), window=2).doubts == ()


def test_a_spreadsheets_unicode_text_is_read(file: Path) -> None:
    file.write_text("seed\tepoch\terror_pct\n0\t1\t2,5\n0\t2\t3\n1\t1\t4\n1\t2\t5\n", encoding="utf-16")
    assert read_curves(file, window=2)["all"].error_pct.tolist() == [[2.5, 3.0], [4.0, 5.0]]


@pytest.mark.parametrize("number", ["1.000", "1,000", "12 000", "1'000"])
def test_a_number_that_may_be_one_or_a_thousand_is_not_guessed(file: Path, number: str) -> None:
    file.write_text(f"seed;epoch;error_pct\n0;{number};5\n0;2;5\n1;1;5\n1;2;5\n")
    assert problems_of(file) == [
        (
            f"line 2: epoch is no whole number, such as {number!r}; write it without a separator of "
            "thousands or decimals"
        )
    ]


def test_empty_rows_of_parquet_are_none(file: Path) -> None:
    table = pa.table(
        {
            "seed": [0, None, 0, 1, 1],
            "epoch": [1, None, 2, 1, 2],
            "error_pct": [5.0, None, 6.0, None, 7.0],
        }
    )
    pa.parquet.write_table(table, file)
    assert problems_of(file) == ["cell 'all': seed 1, epoch 1: missing or no number, such as None"]


# --- units --------------------------------------------------------------------------------------------------


def write_cells(path: Path, cells: dict[str, dict[int, list[float]]]) -> Path:
    """Errors by cell, seed and epoch."""
    rows = [
        (seed, epoch, error, cell)
        for cell, runs in cells.items()
        for seed, errors in runs.items()
        for epoch, error in enumerate(errors, start=1)
    ]
    return write_csv(path, rows, "seed,epoch,error_pct,cell")


def test_errors_that_are_read_as_accuracies_by_their_name_are_suspected(file: Path) -> None:
    runs = [(seed, epoch, value) for seed in (0, 1) for epoch, value in enumerate([30.2, 12.0, 6.0, 5.1])]
    found = assembled(write_csv(file, runs, "seed,epoch,acc"), window=2)
    (doubt,) = found.doubts
    assert doubt == (
        f"{file}: cell 'all': its error goes from 69.8 to 94.9 %; read as an accuracy, told by its name; "
        "if it is an error, give --quantity error"
    )


PERCENT, FRACTIONS = [90.0, 30.0, 5.1, 5.0], [0.9, 0.3, 0.051, 0.05]


@pytest.mark.parametrize(
    ("cells", "places"),
    [
        ({"a": {0: PERCENT, 1: PERCENT}, "b": {0: FRACTIONS, 1: FRACTIONS}}, "cell 'b'"),
        ({"a": {0: FRACTIONS, 1: FRACTIONS}, "b": {0: PERCENT, 1: PERCENT}}, "cell 'a'"),
        (
            {"a": {0: PERCENT, 1: FRACTIONS, 2: FRACTIONS}, "b": {0: PERCENT, 1: PERCENT}},
            "cell 'a', seeds 1-2",
        ),
        ({"a": {0: PERCENT, 1: FRACTIONS, 2: PERCENT}}, "cell 'a', seed 1"),
        ({"a": {0: [1.0, 0.5], 1: [1.0, 0.4]}, "b": {0: [100.0, 40.0], 1: [100.0, 50.0]}}, "cell 'a'"),
        (
            {name: {0: FRACTIONS, 1: FRACTIONS} for name in "ab"} | {"c": {0: PERCENT, 1: PERCENT}},
            "cell 'a'; cell 'b'",
        ),
    ],
)
def test_fractions_beside_percent_are_refused_by_cell_and_seed(
    file: Path, cells: dict[str, dict[int, list[float]]], places: str
) -> None:
    (problem,) = problems_of(write_cells(file, cells))
    assert problem.startswith(f"{places}: fractions (median 0.")
    assert problem.endswith("? One unit per file, or --unit percent")


@pytest.mark.parametrize("other", [[1.4, 1.3, 1.2, 1.2], [60.0, 3.0, 0.9, 0.8], [0.0, 0.0, 0.0, 0.0]])
def test_small_errors_beside_larger_ones_are_suspected_and_read(file: Path, other: list[float]) -> None:
    small = [0.9, 0.6, 0.4, 0.4]
    found = assembled(write_cells(file, {"a": {0: small, 1: small}, "b": {0: other, 1: other}}), window=2)
    assert found.cells["a"].error_pct.tolist() == [small, small]
    (doubt,) = found.doubts
    assert doubt.endswith("all are read as percent; are they fractions?")


@pytest.mark.parametrize(
    ("errors", "suspected"),
    [
        ([30.0, 80.0, 94.0, 95.0], True),
        ([0.3, 0.8, 0.94, 0.95], True),
        ([95.1, 95.0, 94.9, 94.9], True),
        ([90.0, 80.0, 71.0, 70.0], False),
        ([99.0, 30.0, 5.0, 6.0], False),
        ([0.9, 0.3, 0.05, 0.04], False),
    ],
)
def test_high_errors_that_do_not_fall_are_suspected_to_be_accuracies(
    file: Path, errors: list[float], suspected: bool
) -> None:
    found = assembled(write_cells(file, {"a": {0: errors, 1: errors}}), window=2)
    about = f"cell 'a': its error goes from {errors[0]:.3g} to {errors[-1]:.3g} %; is it an accuracy?"
    assert (f"{file}: {about}" in found.doubts) == suspected
