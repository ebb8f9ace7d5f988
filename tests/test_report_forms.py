"""The forms of a report beside HTML and Markdown; what it shows of the discriminator, stages and top-5."""

import csv
import io
import re
import shlex

import numpy as np
import pyarrow as pa
import pytest
from report_example import EPOCHS, TEST_IMAGES, fill, make_cell, make_errors, make_sweep, put_levels, put_run

from hkrun.config import cell_from_values, cell_id
from hkrun.report import latex, render_report, summarise, summary_document, write_report
from hkrun.report.table import Entry, make_table
from hkrun.spaces import NamedCell, load_sweep
from hkrun.store import open_store

pytestmark = pytest.mark.usefixtures("undrawn_figures")


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "store")


def read_csv(files):
    return list(csv.DictReader(io.StringIO(files["report.csv"].decode())))


# --- LaTeX --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("100 % & $5 #1 a_b {x}", r"100 \% \& \$5 \#1 a\_b \{x\}"),
        ("~ ^ \\", r"\textasciitilde{} \textasciicircum{} \textbackslash{}"),
        ("L_b + L_adv^C", r"$L_{\mathrm{b}}$ + $L_{\mathrm{adv}}^{C}$"),
        ("L_b + L_is [AT]", r"$L_{\mathrm{b}}$ + $L_{\mathrm{is}}$ [AT]"),
        ("[0.1, 0.2]", "{[}0.1, 0.2]"),
        ("\N{MINUS SIGN}0.12 \N{PLUS-MINUS SIGN} 0.33 pp\N{SUPERSCRIPT TWO}", r"$-$0.12 $\pm$ 0.33 pp$^2$"),
        ("<0.001 | \N{EN DASH}", r"\textless{}0.001 \textbar{} --"),
        ("two\nlines\n\nof text", "two lines of text"),
        ('a "quoted" word', r"a \textquotedbl{}quoted\textquotedbl{} word"),
    ],
)
def test_text_is_escaped_for_latex(text, escaped):
    assert latex.escape(text) == escaped


def test_long_words_become_paragraphs_and_figures_stand_to_the_right():
    table = make_table("x", ["Claim", "Who", "p"], [["w" * 60, "short", "0.03"]], words=2)
    assert latex.columns_of(table) == "p{6.5cm}lr"
    assert not latex.is_wide(table)
    assert latex.is_wide(make_table("y", ["a heading"] * 12, [["1"] * 12]))
    assert latex.columns_of(make_table("z", ["a", "b"], [])) == "lr"


def test_the_latex_report_is_well_formed_whatever_names_there_are(store):
    odd = "100 % of $L_b$ & {more}_x \\ #1 ~"
    cells = (NamedCell(name="L_b", cell=make_cell(0, 0)), NamedCell(name=odd, cell=make_cell(0, 1)))
    sweep = make_sweep(cells=cells, title="50 % & more", question="Why_not?", published=("table4", "table6"))
    put_levels(store, sweep, {"L_b": 60, odd: 30})
    text = render_report(summarise(sweep, store))["report.tex"].decode()
    assert text.startswith("%")
    begun, ended = (re.findall(rf"\\{word}\{{(\w+\*?)\}}", text) for word in ("begin", "end"))
    assert sorted(begun) == sorted(ended)
    without_verbatim = re.sub(r"\\begin\{verbatim\}.*?\\end\{verbatim\}", "", text, flags=re.DOTALL)
    bare = re.sub(r"\\[{}]", "", without_verbatim)
    assert bare.count("{") == bare.count("}")
    assert not re.search(r"(?<!\\)(?<!^)[%#](?!\n)", bare.replace("{%", "{").partition(r"\title")[2])
    tables = re.findall(r"\\begin\{tabular\}\{([^\n]*)\}\n(.*?)\\end\{tabular\}", text, flags=re.DOTALL)
    assert len(tables) >= 6
    for columns, body in tables:
        number = len(re.sub(r"p\{[\d.]+cm\}", "p", columns))
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert len(rows) >= 2
        for row in rows:
            assert len(re.findall(r"(?<!\\)&", row)) == number - 1
    assert text.isascii()


# --- CSV ----------------------------------------------------------------------------------------------------


def test_csv_holds_the_unrounded_number_behind_every_text(store):
    sweep = make_sweep(["L_b + L_adv", "L_b + L_is"], num_seeds=12, published=("table4",))
    put_levels(store, sweep, {"L_b + L_adv": 60, "L_b + L_is": 48})
    summary = summarise(sweep, store)
    rows = read_csv(render_report(summary))
    assert {row["table"] for row in rows} >= {"errors", "stability", "table4", "claims", "evidence", "runs"}
    (mean,) = [
        row
        for row in rows
        if row["table"] == "errors" and row["row"] == "L_b + L_adv" and "last" in row["column"]
    ]
    errors = summary.cells[0].error_last
    assert (float(mean["value"]), float(mean["low"]), float(mean["high"])) == (errors.mean, *errors.ci95)
    (found,) = [row for row in rows if row["table"] == "evidence" and row["column"] == "Measured, digits"][:1]
    assert float(found["value"]) == pytest.approx(-100 * 12 / TEST_IMAGES)
    assert found["significant"] == "1"


def test_csv_and_markdown_hold_the_same_fields_but_for_single_runs(store):
    sweep = make_sweep(published=("table4",))
    fill(store, sweep)
    files = render_report(summarise(sweep, store))
    text = re.sub(r"\*\*|\\", "", files["report.md"].decode())
    rows = [row for row in read_csv(files) if row["table"] != "seeds"]
    assert rows
    for row in rows:
        assert f" {row['text']} |" in text


def test_a_report_that_says_the_same_is_not_written_again(store):
    sweep = make_sweep(["L_b"], num_seeds=2, published=())
    fill(store, sweep)
    summary = summarise(sweep, store)
    paths = write_report(summary, store)
    folder = store.local_path / store.sweep_folder("stability", "digits")
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert write_report(summary, store) == paths
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    put_run(store, sweep.cells[0], 1, errors=make_errors("L_b", 9))
    write_report(summarise(sweep, store), store)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} != before


def test_a_table_keeps_its_entries():
    table = make_table("x", ["a"], [[Entry(text="1", strong=True)], ["2"]])
    assert [row[0].strong for row in table.rows] == [True, False]


# --- how it was asked for -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["stability", "mine.toml"])
def test_the_command_names_what_was_typed_and_every_override(store, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(
        'dataset = "digits"\nseeds = 2\n[base]\nmethod = "hksanc"\n[[cells]]\nname = "one"\n'
    )
    sweep = load_sweep(name, overrides=["loss.mu=0.5", "student.drops=[0.5]"], epochs="7", seeds="3,")
    text = render_report(summarise(sweep, store))["report.md"].decode()
    (line,) = [line for line in text.splitlines() if "hkrun sweep" in line]
    assert line.startswith(f"    hkrun sweep {name} ")
    overrides = ["loss.mu=0.5", "student.drops=[0.5]", "student.epochs=7"]
    assert sorted(shlex.split(line)[3:6]) == overrides
    assert "--seeds 3,\n" in text
    assert str(tmp_path) not in text


# --- the discriminator --------------------------------------------------------------------------------------


def put_health(store, named, seed, columns, **changes):
    errors = make_errors("L_b + L_adv", seed)
    put_run(store, named, seed, errors=errors, **changes)
    record = store.record(cell_id(named.cell), seed)
    table = pa.table({"epoch": range(1, EPOCHS + 1), "error_pct": errors, **columns})
    store.put_run(record, curves=table, student=None)


def test_what_the_discriminator_did_stands_in_table_figure_and_alarms(store):
    sweep = make_sweep(["L_b", "L_b + L_adv"], num_seeds=3, published=())
    alarm = "the discriminator wins outright: it tells 99.9 % apart"
    for seed in sweep.seeds:
        put_run(store, sweep.cells[0], seed)
        put_health(
            store,
            sweep.cells[1],
            seed,
            {
                "discriminator_accuracy": np.full(EPOCHS, 0.5 + 0.1 * seed),
                "adversarial_gradient_ratio": [None] * (EPOCHS - 1) + [0.2],
            },
            alarms=(alarm,) if seed == 2 else (),
        )
    summary = summarise(sweep, store)
    assert [set(cell.health) for cell in summary.cells] == [
        set(),
        {"discriminator_accuracy", "adversarial_gradient_ratio"},
    ]
    files = render_report(summary)
    assert "discriminator.png" in files
    text = files["report.md"].decode()
    assert "| Cell | Accuracy | Gradient ratio | Alarms |" in text
    assert (
        r"| L_b + L_adv | 0.600 \[0.500, 0.700\] | 0.200 \[0.200, 0.200\] | "
        "the discriminator wins outright: 1 of 3 |"
    ) in text
    assert any(alarm in warning for warning in summary.warnings)


def test_without_a_discriminator_there_is_no_section_about_one(store):
    sweep = make_sweep(["L_b"], num_seeds=2, published=())
    fill(store, sweep)
    files = render_report(summarise(sweep, store))
    assert "discriminator.png" not in files
    assert "## The discriminator" not in files["report.md"].decode()


# --- stages and top-5 ---------------------------------------------------------------------------------------


def test_of_a_method_in_two_stages_only_the_last_stages_errors_count(store):
    cell = cell_from_values({"method": "fitnets", "student.epochs": EPOCHS, "student.first_stage": 0.5})
    named = NamedCell(name="FitNets", cell=cell)
    sweep = make_sweep(cells=(named,), reference=None, published=(), num_seeds=2)
    for seed in sweep.seeds:
        put_run(store, named, seed, errors=[1.0] * (EPOCHS // 2) + make_errors("L_b", seed))
    (found,) = summarise(sweep, store).cells
    assert found.error_pct[:].tolist() == [make_errors("L_b", seed) for seed in sweep.seeds]
    assert found.error_best.mean == np.mean([min(make_errors("L_b", seed)) for seed in sweep.seeds])


def test_top_5_stands_beside_top_1_where_there_is_one(store):
    sweep = make_sweep(["L_b"], num_seeds=3, published=())
    for seed in sweep.seeds:
        put_run(store, sweep.cells[0], seed, error_top5_last_pct=1.0 + seed)
    text = render_report(summarise(sweep, store))["report.md"].decode()
    assert "| Top-5 error (%) |" in text
    assert r"| 2.00 \[0.00, 4.48\] |" in text  # no error is below 0, so its ends are told


def test_a_configuration_of_two_names_is_counted_once(store):
    cell = make_cell(0, 0)
    cells = (NamedCell(name="L_b", cell=cell), NamedCell(name="L2-Ba", cell=cell))
    sweep = make_sweep(cells=cells, reference="L_b", published=())
    put_levels(store, sweep, {"L_b": 60, "L2-Ba": 60})
    text = render_report(summarise(sweep, store))["report.md"].decode()
    num_seeds = len(sweep.seeds)
    assert "1 configuration" in text
    assert f"{num_seeds} of {num_seeds} runs finished" in text


# --- names --------------------------------------------------------------------------------------------------


@pytest.fixture
def grid(store):
    """Two groups of cells over two axes, one of them in both, and a cell that none varies."""
    cells = [NamedCell(name="L_b", cell=make_cell(0, 0))]
    for group, point in (
        ("with D", {"loss.lambda_3": 0.5}),
        ("with D", {"loss.lambda_3": 1.0}),
        ("slow", {"loss.lambda_3": 1.0, "student.learning_rate": 0.01}),
    ):
        name = f"{group} [{', '.join(f'{key}={value}' for key, value in point.items())}]"
        cell = make_cell(0, point["loss.lambda_3"], **{"student.learning_rate": 0.1, **point})
        cells.append(NamedCell(name=name, cell=cell, group=group, point=point))
    sweep = make_sweep(cells=tuple(cells), num_seeds=4, published=(), reference="L_b")
    put_levels(store, sweep, dict.fromkeys((named.name for named in cells), 40))
    return sweep


def test_values_of_axes_are_columns_with_short_keys(store, grid):
    text = render_report(summarise(grid, store))["report.md"].decode()
    for columns in ("n | Error, last epoch", "Runs | S", "Id | Finished seeds", "Its own keys"):
        assert f"| Cell | lambda_3 | lr | {columns}" in text
    assert "| slow | 1 | 0.01 | 4 |" in text
    assert "| with D | 0.5 |  | 4 |" in text
    assert "| L_b |  |  | 4 |" in text


def test_csv_has_columns_of_axes_beside_the_name_of_the_cell(store, grid):
    rows = read_csv(render_report(summarise(grid, store)))
    named = {(row["row"], row["lambda_3"], row["lr"]) for row in rows if row["table"] == "errors"}
    assert named == {
        ("L_b", "", ""),
        ("with D [loss.lambda_3=0.5]", "0.5", ""),
        ("with D [loss.lambda_3=1.0]", "1", ""),
        ("slow [loss.lambda_3=1.0, student.learning_rate=0.01]", "1", "0.01"),
    }
    assert {(row["row"], row["lambda_3"]) for row in rows if row["table"] == "scan-1"} == {
        ("with D [loss.lambda_3=0.5]", "0.5"),
        ("with D [loss.lambda_3=1.0]", "1"),
    }
    assert {(row["lambda_3"], row["lr"]) for row in rows if row["table"] == "conditions"} == {("", "")}


def test_latex_has_the_columns_of_axes(store, grid):
    text = render_report(summarise(grid, store))["report.tex"].decode()
    assert r"Cell & lambda\_3 & lr & n & Error" in text
    assert r"slow & 1 & 0.01 & 4 &" in text


def test_json_has_the_axes_of_each_cell_by_their_keys(store, grid):
    document = summary_document(summarise(grid, store))
    assert {cell["name"]: cell["axes"] for cell in document["cells"]} == {
        "L_b": {},
        "with D [loss.lambda_3=0.5]": {"loss.lambda_3": 0.5},
        "with D [loss.lambda_3=1.0]": {"loss.lambda_3": 1.0},
        "slow [loss.lambda_3=1.0, student.learning_rate=0.01]": {
            "loss.lambda_3": 1.0,
            "student.learning_rate": 0.01,
        },
    }


def test_axes_alone_need_no_column_of_names(store):
    cells = tuple(
        NamedCell(name=f"loss.mu={mu}", cell=make_cell(0, 1, **{"loss.mu": mu}), point={"loss.mu": mu})
        for mu in (0.5, 1.0)
    )
    sweep = make_sweep(cells=cells, num_seeds=2, published=(), reference=None)
    put_levels(store, sweep, {named.name: 40 for named in cells})
    text = render_report(summarise(sweep, store))["report.md"].decode()
    assert "| mu | n | Error, last epoch" in text
    assert "| Cell |" not in text


def test_a_long_reference_is_called_so_in_headings(store):
    long = "supervision by labels only, with no teacher at all"
    cells = (NamedCell(name=long, cell=make_cell(0, 0)), NamedCell(name="L_b", cell=make_cell(0, 1)))
    sweep = make_sweep(cells=cells, num_seeds=6, published=(), reference=long)
    put_levels(store, sweep, {long: 40, "L_b": 50})
    text = render_report(summarise(sweep, store))["report.md"].decode()
    assert "| Minus the reference (pp) |" in text
    assert "| p against the reference |" in text
    assert re.search(rf"\| {long} \|.*\| reference \|", text)
