"""Curves in the forms that other tools write, by those tools: each gives the same bits."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from curve_example import CELLS, EPOCHS, SEEDS, accuracy_of, make_frame

from hkrun.curve_files import Columns, CurveSet, Told, assemble, read_source
from hkrun.errors import InputError

WINDOW = 6
NOTHING = Columns()


def read(path: Path, columns: Columns = NOTHING, **told: str) -> CurveSet:
    return assemble([read_source(path, columns)], window=WINDOW, told=Told(**told))


def problems_of(path: Path, columns: Columns = NOTHING, **told: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        read(path, columns, **told)
    return [problem.removeprefix(f"{path}: ") for problem in caught.value.problems]


def expected_matrices() -> dict[str, list[list[float]]]:
    frame = make_frame()
    return {
        cell: [
            frame[(frame.cell == cell) & (frame.seed == seed)].sort_values("epoch").error_pct.tolist()
            for seed in SEEDS
        ]
        for cell in CELLS
    }


def assert_same_bits(found: CurveSet) -> None:
    assert list(found.cells) == list(CELLS)
    for cell, matrix in expected_matrices().items():
        assert found.cells[cell].seeds == SEEDS
        assert found.cells[cell].error_pct.tolist() == matrix


def with_accuracies(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(acc=frame.error_pct.map(accuracy_of)).drop(columns="error_pct")


def wide(frame: pd.DataFrame, value: str = "error_pct", name: str = "{}/seed{}") -> pd.DataFrame:
    named = frame.assign(run=[name.format(*key) for key in zip(frame.cell, frame.seed, strict=True)])
    return named.pivot(index="epoch", columns="run", values=value)[list(dict.fromkeys(named.run))]


def write_wandb(path: Path, frame: pd.DataFrame) -> None:
    """An export of a line plot: quoted, each run's metrics with their bounds, W&B's own beside them."""
    runs = wide(with_accuracies(frame), "acc", "{}, seed {}")
    columns: dict[str, list[object]] = {"Step": list(range(EPOCHS))}
    for run in runs:
        for metric, values in (("_step", list(range(EPOCHS))), ("val/acc", runs[run].tolist())):
            for bound in ("", "__MIN", "__MAX"):
                columns[f"{run} - {metric}{bound}"] = values
    pd.DataFrame(columns).to_csv(path, index=False, quoting=1)


WRITERS: dict[str, Callable[[pd.DataFrame, Path], object]] = {
    "long CSV": lambda frame, path: frame.to_csv(path, index=False),
    "long CSV, semicolons, decimal commas": lambda f, path: f.to_csv(path, index=False, sep=";", decimal=","),
    "long CSV, tabs": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    "long CSV, accuracies": lambda frame, path: with_accuracies(frame).to_csv(path, index=False),
    "long CSV, accuracies in percent": lambda frame, path: (
        with_accuracies(frame).assign(acc=(100 - frame.error_pct).round(2)).to_csv(path, index=False)
    ),
    "long Parquet": lambda frame, path: frame.to_parquet(path),
    "long Parquet, float32": lambda frame, path: frame.astype({"error_pct": "float32"}).to_parquet(path),
    "long JSON lines": lambda frame, path: frame.to_json(path, orient="records", lines=True),
    "wide CSV": lambda frame, path: wide(frame).to_csv(path),
    "wide CSV, semicolons, decimal commas": lambda f, path: wide(f).to_csv(path, sep=";", decimal=","),
    "wide CSV, seeds after a slash": lambda frame, path: wide(frame, name="{}/{}").to_csv(path),
    "wide CSV, a column of cells": lambda frame, path: frame.pivot(
        index=["cell", "epoch"], columns="seed", values="error_pct"
    ).to_csv(path),
    "wide CSV, accuracies": lambda frame, path: wide(with_accuracies(frame), "acc").to_csv(path),
    "wide Parquet": lambda frame, path: wide(frame).to_parquet(path),
    "wide JSON lines": lambda frame, path: (
        wide(frame).reset_index().to_json(path, orient="records", lines=True)
    ),
    "W&B CSV": lambda frame, path: write_wandb(path, frame),
}


@pytest.mark.parametrize("form", WRITERS)
def test_curves_have_the_same_bits_in_every_form(form: str, tmp_path: Path) -> None:
    path = tmp_path / "curves"
    WRITERS[form](make_frame(), path)
    found = read(path)
    assert_same_bits(found)
    assert found.read_as[0].source.form == form.partition(",")[0]
    assert found.doubts == ()


# --- columns and names --------------------------------------------------------------------------------------


def test_columns_are_named_by_options_whatever_else_there_is(tmp_path: Path) -> None:
    frame = with_accuracies(make_frame()).rename(
        columns={"seed": "trial", "epoch": "it", "cell": "method", "acc": "score"}
    )
    path = tmp_path / "log.csv"
    frame.assign(seed=0, epoch=0, cell="x", error_pct=1, loss=2.5).to_csv(path, index=False)
    columns = Columns(seed="trial", epoch="it", cell="method", value="score")
    assert_same_bits(read(path, columns))


def test_usual_names_are_found_in_any_case_and_the_only_other_column_has_the_values(tmp_path: Path) -> None:
    frame = with_accuracies(make_frame())
    frame.columns = ["Cell", "Seed", "Epoch", "Val Acc"]
    frame.to_csv(tmp_path / "log.csv", index=False)
    found = read(tmp_path / "log.csv")
    assert_same_bits(found)
    assert found.read_as[0].source.value == "Val Acc"


NO_NAMES = (
    "no cell and seed in it, as in 3, seed3, CELL/3 or CELL/seed3; give such as --run-names '*-{seed}' "
    "for runs of one cell, '{cell}-{seed}' for several, or --seed COLUMN"
)


def write_wide(path: Path, *names: str) -> Path:
    """Falling errors of a run per name."""
    columns = {
        name: [round(9 / epoch + place, 2) for epoch in range(1, 9)] for place, name in enumerate(names)
    }
    frame = pd.DataFrame({"epoch": range(1, 9)} | columns)
    frame.to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    ("names", "cell", "seeds"),
    [
        (("0", "12"), "all", (0, 12)),
        (("0.0", "1.0"), "all", (0, 1)),
        (("seed0", "seed_1", "seed-2", "seed=3", "Seed 04"), "all", (0, 1, 2, 3, 4)),
        (("resnet-18/0", "resnet-18/1"), "resnet-18", (0, 1)),
        (("a/seed0", "a_seed1", "a-seed-2", "a, seed 3", "a seed=4", "a.seed_5"), "a", (0, 1, 2, 3, 4, 5)),
        (("x/y/0", "x/y/seed1"), "x/y", (0, 1)),
    ],
)
def test_names_of_runs_tell_cell_and_seed(
    tmp_path: Path, names: tuple[str, ...], cell: str, seeds: tuple[int, ...]
) -> None:
    found = read(write_wide(tmp_path / "wide.csv", *names)).cells
    assert list(found) == [cell]
    assert found[cell].seeds == seeds


@pytest.mark.parametrize(
    ("names", "pattern", "cell", "seeds", "left_out"),
    [
        (("resnet-18-0", "resnet-18-1"), "{cell}-{seed}", "resnet-18", (0, 1), []),
        (("deft-sun-12", "pale-sea-13", "mean"), "*-{seed}", "all", (12, 13), ["mean"]),
        (("a/0/val", "a/1/val", "a/0/train"), "{cell}/{seed}/val", "a", (0, 1), ["a/0/train"]),
        (("a (seed 0)", "a (seed 1)", "a seed 1"), "{cell} (seed {seed})", "a", (0, 1), ["a seed 1"]),
        (("a.0", "a.1", "ax2"), "{cell}.{seed}", "a", (0, 1), ["ax2"]),
    ],
)  # fmt: skip
def test_a_pattern_reads_other_names_and_leaves_out_what_it_does_not_match(
    tmp_path: Path,
    names: tuple[str, ...],
    pattern: str,
    cell: str,
    seeds: tuple[int, ...],
    left_out: list[str],
) -> None:
    found = read(write_wide(tmp_path / "wide.csv", *names), Columns(run_names=pattern))
    assert {name: curves.seeds for name, curves in found.cells.items()} == {cell: seeds}
    assert found.read_as[0].source.left_out == left_out


@pytest.mark.parametrize(
    ("names", "pattern", "problem"),
    [
        (
            ("base-1", "base-2"),
            None,
            f"columns 'base-1', 'base-2': {NO_NAMES}",
        ),
        (
            ("0", "1", "mean"),
            None,
            f"column 'mean': {NO_NAMES}",
        ),
        (("0", "seed0"), None, "columns '0' and 'seed0' are both seed 0"),
        (("a/0", "a/seed0", "a_seed0"), None,
         "columns 'a/0' and 'a/seed0' are both seed 0 of cell 'a', and 1 more"),
        (("a1", "a2"), "b{seed}", "--run-names 'b{seed}' matches none of columns 'a1', 'a2'"),
        (("0", "1"), "{cell}",
         "--run-names '{cell}': needs {seed} once, and {cell} at most once, as '{cell}-{seed}'"),
        (("a\x1b/0", "a\x1b/1"), None, "column 'a\\x1b/0' is no line of text"),
    ],
)  # fmt: skip
def test_names_that_do_not_tell_are_refused_with_what_would(
    tmp_path: Path, names: tuple[str, ...], pattern: str | None, problem: str
) -> None:
    found = problems_of(write_wide(tmp_path / "wide.csv", *names), Columns(run_names=pattern))
    assert found[0] == problem


def test_a_wide_table_with_a_column_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    path.write_text("epoch,0,0\n1,5,6\n2,4,5\n")
    assert problems_of(path) == ["there is more than one column '0'"]


def test_cells_in_a_column_and_in_names_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    path.write_text("epoch,cell,a/0,a/1\n1,a,5,6\n2,a,4,5\n")
    assert problems_of(path)[0] == "column 'a/0' names a cell, and so does the column 'cell'"


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        (Columns(seed="trail", value="acc"), "no column 'trail'; did you mean --seed 'trial'?"),
        (Columns(), "no column 'seed'; --seed takes another: 'trial', 'acc', 'loss'"),
        (Columns(seed="trial"), "no column 'error_pct'; --value takes another: 'acc', 'loss'"),
        (Columns(seed="trial", value="ac"), "no column 'ac'; did you mean --value 'acc'?"),
        (Columns(seed="trial", value="acc", cell="method"),
         "no column 'method'; --cell takes another: 'loss'"),
        (Columns(seed="trial", value="loss"),
         "'loss' is a loss, neither error nor accuracy; --value takes another"),
    ],
)  # fmt: skip
def test_columns_that_are_not_there_or_not_chosen_are_one_line(
    tmp_path: Path, columns: Columns, problem: str
) -> None:
    path = tmp_path / "log.csv"
    frame = pd.DataFrame({"trial": 2 * [0] + 2 * [1], "epoch": [1, 2, 1, 2], "acc": 0.5, "loss": 1.0})
    if columns == Columns():
        frame["error_pct"] = 5.0
    for epoch in range(3, 9):
        frame = pd.concat([frame, frame.tail(2).assign(epoch=epoch, trial=[0, 1])])
    frame.to_csv(path, index=False)
    assert problems_of(path, columns) == [problem]


def test_a_wide_table_without_an_axis_is_refused_with_the_option_for_it(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    path.write_text("it,0,1\n1,5,6\n2,4,5\n")
    (problem,) = problems_of(path, Columns(run_names="{seed}"))
    assert problem == "no column 'epoch'; --epoch takes another: 'it', '0', '1'"
    assert read(write_wide(path, "0", "1"), Columns(run_names="{seed}")).cells["all"].seeds == (0, 1)


def test_a_long_name_is_shortened_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(f"seed,epoch,{'a' * 300}z,b\n0,1,5,5\n")
    (problem,) = problems_of(path)
    assert problem == f"no column 'error_pct'; --value takes another: '{'a' * 27}...{'a' * 27}z', 'b'"


def test_lines_that_are_no_json_objects_are_named(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"seed": 0, "epoch": 1, "error_pct": 5}\n\n{"seed": 0, "epoch": 2\n')
    assert problems_of(path) == ["line 3: not a JSON object; JSON lines have one on each line"]
    path.write_text(json.dumps([{"seed": 0, "epoch": 1, "error_pct": 5}]))
    assert problems_of(path) == ["line 1: not a JSON object; JSON lines have one on each line"]


# --- W&B ----------------------------------------------------------------------------------------------------


def write_export(path: Path, header: str, rows: list[str]) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_a_metric_is_chosen_where_an_export_has_several(tmp_path: Path) -> None:
    path = write_export(
        tmp_path / "wandb.csv",
        '"trainer/global_step","a - b/0 - acc","a - b/0 - loss","a - b/1 - acc","a - b/1 - loss"',
        [f"{50 * step},0.{step}1,9,0.{step}2,9" for step in range(1, 9)],
    )
    assert problems_of(path) == ["which metric? --value takes one of 'acc', 'loss'"]
    found = read(path, Columns(value="acc"))
    assert list(found.cells) == ["a - b"]
    assert found.cells["a - b"].epochs == tuple(range(50, 401, 50))
    assert found.read_as[0].every == (50,)
    assert found.cells["a - b"].error_pct[:, 0].tolist() == [89.0, 88.0]
    assert problems_of(path, Columns(value="ac")) == ["no column 'RUN - ac'; did you mean --value 'acc'?"]
    write_export(path, "Step,a - _step,a - _step__MIN", ["1,1,1"])
    assert problems_of(path) == ["no metric in it"]


def test_means_of_bins_are_told(tmp_path: Path) -> None:
    header = ",".join(
        ["Step", *(f"{seed} - acc{bound}" for seed in (0, 1) for bound in ("", "__MIN", "__MAX"))]
    )
    rows = [f"{step},.5{step},.5{step},.5{step},.6{step},.5{step},.7{step}" for step in range(9)]
    found = read(write_export(tmp_path / "wandb.csv", header, rows))
    assert found.doubts == (f"{tmp_path}/wandb.csv: 1 run with means of several steps: __MIN is not __MAX",)


def test_steps_must_be_equally_far_apart(tmp_path: Path) -> None:
    rows = [f"{step},.5{step % 10},.6" for step in (0, 1, 2, 3, 4, 5, 7, 8)]
    path = write_export(tmp_path / "wandb.csv", "Step,0 - acc,1 - acc", rows)
    assert problems_of(path) == ["cell 'all': steps 4, 5, 7: not equally far apart, as epochs are"]


# --- what the values are ------------------------------------------------------------------------------------


def write_values(path: Path, name: str, cells: dict[str, list[float]]) -> Path:
    rows = [
        (cell, seed, epoch, value)
        for cell, values in cells.items()
        for seed in (0, 1)
        for epoch, value in enumerate(values, start=1)
    ]
    pd.DataFrame(rows, columns=["cell", "seed", "epoch", name]).to_csv(path, index=False)
    return path


FALLING = [0.9, 0.5, 0.3, 0.2, 0.12, 0.11]
RISING = [0.1, 0.5, 0.7, 0.8, 0.88, 0.89]
ERRORS = [90.0, 50.0, 30.0, 20.0, 12.0, 11.0]


def scaled(values: list[float]) -> list[float]:
    return [round(100 * value, 6) for value in values]


@pytest.mark.parametrize(
    ("name", "values", "quantity"),
    [
        ("value", FALLING, ("error", "values", "fraction", "values")),
        ("value", RISING, ("accuracy", "values", "fraction", "values")),
        ("value", scaled(FALLING), ("error", "values", "percent", "values")),
        ("value", scaled(RISING), ("accuracy", "values", "percent", "values")),
        ("error_pct", scaled(FALLING), ("error", "name", "percent", "name")),
        ("test_err", FALLING, ("error", "name", "fraction", "values")),
        ("Error rate (%)", scaled(FALLING), ("error", "name", "percent", "name")),
        ("top1_error", FALLING, ("error", "name", "fraction", "values")),
        ("val_acc", RISING, ("accuracy", "name", "fraction", "values")),
        ("valAcc1", RISING, ("accuracy", "name", "fraction", "values")),
        ("test/accuracy_pct", scaled(RISING), ("accuracy", "name", "percent", "name")),
        ("top1", RISING, ("accuracy", "name", "fraction", "values")),
        ("terrace", FALLING, ("error", "values", "fraction", "values")),
    ],
)
def test_what_values_are_is_told_by_their_name_or_by_themselves(
    tmp_path: Path, name: str, values: list[float], quantity: tuple[str, ...]
) -> None:
    found = read(write_values(tmp_path / "log.csv", name, {"a": values}))
    told = found.read_as[0].quantity
    assert (told.kind, told.kind_from, told.unit, told.unit_from) == quantity
    assert found.cells["a"].error_pct.tolist() == [ERRORS, ERRORS]
    assert found.doubts == ()


def test_options_overrule_name_and_values(tmp_path: Path) -> None:
    path = write_values(tmp_path / "log.csv", "error", {"a": [0.5, 0.6, 0.7, 0.7, 0.8, 0.9]})
    found = read(path, kind="accuracy", unit="percent")
    assert found.read_as[0].quantity.kind_from == found.read_as[0].quantity.unit_from == "option"
    assert found.cells["a"].error_pct[0].tolist() == [99.5, 99.4, 99.3, 99.3, 99.2, 99.1]


@pytest.mark.parametrize(
    ("cells", "told", "problem"),
    [
        (
            {"a": scaled(FALLING), "b": scaled(RISING)},
            {},
            "values rise in 'b' and fall in 'a'; --quantity error or accuracy says what they are",
        ),
        (
            {"a": [5.0] * 6},
            {},
            "values neither rise nor fall; --quantity error or accuracy says what they are",
        ),
        (
            {"a": scaled(RISING), "b": RISING},
            {},
            (
                "cell 'b': fractions (median 0.75) beside percent (median 75)? One unit per file, "
                "or --unit percent"
            ),
        ),
        ({"a": scaled(RISING)}, {"unit": "fraction"}, "--unit fraction: cell 'a' has values above 1"),
    ],
)
def test_cells_that_disagree_are_refused_with_the_option_that_settles_it(
    tmp_path: Path, cells: dict[str, list[float]], told: dict[str, str], problem: str
) -> None:
    assert problems_of(write_values(tmp_path / "log.csv", "value", cells), **told) == [problem]


# --- TensorBoard --------------------------------------------------------------------------------------------


def write_events(folder: Path, tag: str, points: list[tuple[int, float]]) -> None:
    """With tensorboardX, as Ray and others write: scalars of TensorFlow 1."""
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for step, value in points:
            writer.add_scalar(tag, value, step)
        writer.add_text("note", "not a scalar")


def write_events_2(folder: Path, tag: str, points: list[tuple[int, float]]) -> None:
    """With PyTorch's writer: tensors, as TensorFlow 2 writes scalars."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for step, value in points:
            writer.add_scalar(tag, value, step, new_style=True)


def crc32c(data: bytes) -> int:
    """The checksum of TFRecord, bit by bit from its polynomial."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 & -(crc & 1))
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def write_events_by_hand(folder: Path, tag: str, points: list[tuple[int, float]]) -> None:
    """From the format alone: framed records of Event{1: time, 2: step, 5: Summary{1: Value{1, 2}}}."""

    def varint(number: int) -> bytes:
        low, rest = number & 0x7F, number >> 7
        return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])

    def text(field: int, content: bytes) -> bytes:
        return varint(field << 3 | 2) + varint(len(content)) + content

    folder.mkdir(parents=True, exist_ok=True)
    events = [b"\x09" + struct.pack("<d", 1.0) + text(3, b"brain.Event:2")]
    for step, value in points:
        summary = text(1, text(1, tag.encode()) + b"\x15" + struct.pack("<f", value))
        events.append(b"\x09" + struct.pack("<d", 1.0) + b"\x10" + varint(step) + text(5, summary))
    with (folder / "events.out.tfevents.1.host").open("wb") as file:
        for event in events:
            length = struct.pack("<Q", len(event))
            file.write(length + struct.pack("<I", crc32c(length)))
            file.write(event + struct.pack("<I", crc32c(event)))


def write_runs(folder: Path, writer: Callable[..., None], *, name: str = "{}/{}", per_epoch: int = 1) -> None:
    for (cell, seed), rows in make_frame().groupby(["cell", "seed"]):
        points = [
            (epoch * per_epoch, accuracy_of(error))
            for epoch, error in zip(rows.epoch.tolist(), rows.error_pct.tolist(), strict=True)
        ]
        writer(folder / name.format(cell, seed), "acc/test", points)


@pytest.fixture
def tensorboard() -> None:
    pytest.importorskip("tensorboard", reason="an extra")


@pytest.mark.usefixtures("tensorboard")
@pytest.mark.parametrize("writer", [write_events, write_events_2, write_events_by_hand])
def test_event_files_have_the_same_bits(tmp_path: Path, writer: Callable[..., None]) -> None:
    write_runs(tmp_path / "logs", writer, per_epoch=391)
    found = read(tmp_path / "logs")
    assert_same_bits(found)
    assert found.read_as[0].every == (391,)
    assert found.read_as[0].source.value == "acc/test"


@pytest.mark.usefixtures("tensorboard")
def test_a_restart_overwrites_what_it_repeats(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from tensorboardX import SummaryWriter

    curve = [(step, 0.5 + step / 100) for step in range(1, 9)]
    for seed in (0, 1):
        for name, points, purge_step in (("1", curve[:6], None), ("2", curve[4:], 5)):
            with SummaryWriter(
                str(tmp_path / str(seed)), purge_step=purge_step, filename_suffix=name
            ) as writer:
                for step, value in points:
                    writer.add_scalar("acc", value + (step > 4 and name == "1"), step)
    found = read(tmp_path).cells["all"]
    assert capfd.readouterr().err == ""
    assert found.epochs == tuple(range(1, 9))
    assert found.error_pct[0].tolist() == [49.0, 48.0, 47.0, 46.0, 45.0, 44.0, 43.0, 42.0]


@pytest.mark.usefixtures("tensorboard")
def test_runs_of_other_scalars_and_other_names_are_left_out_and_told(tmp_path: Path) -> None:
    curve = [(step, 0.5 + step / 100) for step in range(1, 9)]
    for seed in (0, 1):
        write_events(tmp_path / f"a/{seed}/val", "acc", curve)
        write_events(tmp_path / f"a/{seed}/train", "acc", curve)
        write_events(tmp_path / f"a/{seed}/hparams", "lr", curve)
    assert problems_of(tmp_path) == ["which scalar? --value takes one of 'lr', 'acc'"]
    (problem,) = problems_of(tmp_path, Columns(value="acc"))
    assert problem.startswith(
        "folders 'a/0/train', 'a/0/val', 'a/1/train', 'a/1/val': no cell and seed in it"
    )
    found = read(tmp_path, Columns(value="acc", run_names="{cell}/{seed}/val"))
    assert found.cells["a"].seeds == (0, 1)
    assert found.read_as[0].source.left_out == ["a/0/train", "a/1/train", "a/0/hparams", "a/1/hparams"]
    assert problems_of(tmp_path, Columns(value="ac"))[0] == "no scalar 'ac'; did you mean 'acc'?"


@pytest.mark.usefixtures("tensorboard")
def test_event_files_without_scalars_are_refused(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "events.out.tfevents.1.host").write_bytes(b"no record at all, only text")
    assert problems_of(tmp_path) == ["no scalar in its files"]


@pytest.mark.usefixtures("tensorboard")
def test_a_file_that_breaks_off_is_an_incomplete_run(tmp_path: Path) -> None:
    curve = [(step, 0.5 + step / 100) for step in range(1, 9)]
    for seed in (0, 1):
        write_events_by_hand(tmp_path / str(seed), "acc", curve)
    path = tmp_path / "1" / "events.out.tfevents.1.host"
    path.write_bytes(path.read_bytes()[:-20])
    (problem,) = problems_of(tmp_path)
    assert problem.startswith("cell 'all': seed 1, step 8: no value; complete the run or leave it out whole")


def test_options_that_event_files_do_not_have_are_refused(tmp_path: Path) -> None:
    write_events_by_hand(tmp_path / "0", "acc", [(1, 0.5)])
    with pytest.raises(InputError, match="--seed: not with event files"):
        read(tmp_path, Columns(seed="x"))


def test_without_tensorboard_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_events_by_hand(tmp_path / "0", "acc", [(1, 0.5)])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert problems_of(tmp_path) == ["event files need the package tensorboard; run: pip install tensorboard"]


def test_no_value_is_lost_to_float32(tmp_path: Path) -> None:
    values = np.float32([0.913, 0.9137, 1 / 3, 16777216.0, 1e-7])
    frame = pd.DataFrame({"seed": 0, "epoch": range(1, 6), "error_pct": values})
    frame.to_parquet(tmp_path / "curves")
    (run,) = read_source(tmp_path / "curves").runs
    assert run.values == [0.913, 0.9137, 0.33333334, 16777216.0, 1e-07]
    assert np.array_equal(np.float32(run.values), values)
