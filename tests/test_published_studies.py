"""Published studies: small folders that hold what a report is made from, and nothing about who made it."""

import dataclasses
import hashlib
import json
import re
import shutil

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet as pq
from report_example import EPOCHS, fill, make_cell, make_errors, make_sweep, put_run, put_teacher

from hkrun.cli.program import call
from hkrun.config import cell_id
from hkrun.errors import InputError, StoreError
from hkrun.plans import Execution, StoppedRun, save_executions, save_plan, save_stopped
from hkrun.records import DISCRIMINATOR_COLUMNS, Record
from hkrun.report import publish_study, publishing, summarise
from hkrun.report.documents import render_markdown
from hkrun.report.results_index import render_index
from hkrun.report.table import MINUS
from hkrun.spaces import NamedCell
from hkrun.store import open_store, write_study
from hkrun.store.study_folders import _RUNS

pytestmark = pytest.mark.usefixtures("undrawn_figures_of_module")

EXECUTION = Execution(
    started_at=1_760_000_000.0,
    slots=2,
    phases={"planning": 0.1, "training": 30.0},
    teachers={"epochs": 5.0},
    runs={"launch": 1.0, "epochs": 40.0},
)


TRACEBACK = 'Traceback (most recent call last):\n  File "/home/alice/x.py", line 1\nOSError: /home/alice/t.pt'


def put_adversarial_run(store, named, seed):
    """A run whose discriminator gave no number in one epoch and was not asked in another."""
    put_run(store, named, seed)
    errors = make_errors(named.name, seed)
    generator = np.random.default_rng(seed)
    columns = {name: generator.random(EPOCHS).tolist() for name in DISCRIMINATOR_COLUMNS}
    columns[DISCRIMINATOR_COLUMNS[0]][1] = None
    columns[DISCRIMINATOR_COLUMNS[1]][2] = float("nan")
    curves = pa.table({"epoch": range(1, EPOCHS + 1), "error_pct": errors, "loss_total": errors, **columns})
    store.put_run(store.record(cell_id(named.cell), seed), curves=curves, student=b"weights")


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "store")


@pytest.fixture(scope="module")
def sweep():
    return make_sweep(published=())  # its claims would be simulated for a second each time


@pytest.fixture(scope="module")
def made(tmp_path_factory, sweep):
    """A finished study with its teacher, and runs of other seeds and cells that are none of its own."""
    place = tmp_path_factory.mktemp("made") / "store"
    store = open_store(place)
    fill(store, sweep)
    for seed in sweep.seeds:
        put_adversarial_run(store, sweep.cells[3], seed)
    put_run(store, sweep.cells[0], 99)
    put_teacher(store, sweep.cells[0].cell)
    alone = NamedCell(name="alone", cell=make_cell(0.0, 0.0, method="supervised"))
    put_run(store, alone, 7)
    put_run(store, NamedCell(name="other", cell=make_cell(0.0, 3.0)), 0)
    save_plan(store, sweep)
    save_executions(store, sweep, [EXECUTION])
    return place


@pytest.fixture
def stored(store, made):
    """That study in the store."""
    shutil.copytree(made, store.local_path, dirs_exist_ok=True)
    return publishing.stored_plans(store)[0][0]


@pytest.fixture(scope="module")
def published(tmp_path_factory, made, undrawn_figures_of_module):
    """Where that study is published once, for copies of it."""
    place, store = tmp_path_factory.mktemp("published") / "results", open_store(made)
    publish_study(publishing.stored_plans(store)[0][0], store, place)
    return place


@pytest.fixture
def folder(stored, published, tmp_path):
    return shutil.copytree(published, tmp_path / "results") / "stability-digits"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_report_of_a_published_study_is_that_of_the_store(folder, store, stored):
    expected = render_markdown(summarise(stored.sweep, store))
    assert (folder / "report.md").read_bytes() == expected["report.md"]
    figures = {path.name for path in folder.glob("*.svg")}
    assert figures == {name for name in expected if name.endswith(".svg")}
    assert "discriminator.svg" in figures
    assert (
        set(contents(folder))
        == {"report.md", "results.json", "study.json", "runs.parquet", "curves.parquet"} | figures
    )


def test_a_study_with_runs_of_every_kind_says_the_same_when_published(store, stored, tmp_path):
    first, second = stored.sweep.cells[:2]
    put_run(store, first, 0, errors=[50.0, 40.0], status="diverged", diverged_epoch=3)
    put_run(store, first, 1, errors=[], status="diverged", diverged_epoch=1)
    put_run(store, second, 2, errors=[50.0], status="failed", traceback="OSError: no")
    store.delete(store.run_folder(cell_id(second.cell), 3))
    save_stopped(
        store, stored.sweep, [StoppedRun(cell_id=cell_id(second.cell), seed=3, epoch=2, error_pct=9.0)]
    )
    publish_study(stored, store, tmp_path / "results")
    expected = render_markdown(summarise(stored.sweep, store))["report.md"].decode()
    assert (tmp_path / "results/stability-digits/report.md").read_text(encoding="utf-8") == expected
    for told in ("diverged in epoch 3", "stopped early", "failed after 1 epoch"):
        assert told in expected


def test_figures_are_kept_to_the_bit_and_others_runs_are_left_out(folder, store, stored):
    kept = open_store(folder)
    ids = [cell_id(named.cell) for named in stored.sweep.cells]
    for identity in ids:
        for seed in stored.sweep.seeds:
            assert kept.record(identity, seed) == store.record(identity, seed)
            before, after = store.curves(identity, seed), kept.curves(identity, seed)
            assert after.column_names == [name for name in before.column_names if name != "loss_total"]
            for name in after.column_names:
                one, other = (table[name].to_numpy(zero_copy_only=False) for table in (before, after))
                assert one.tobytes() == other.tobytes()
                assert before[name].null_count == after[name].null_count
    assert kept.record(ids[0], 99) is None
    alone = cell_id(make_cell(0.0, 0.0, method="supervised"))
    assert set(kept.runs()["cell_id"].to_pylist()) == {*ids, alone}
    assert kept.cell(ids[0]) == store.cell(ids[0])


def test_the_same_study_gives_the_same_bytes_also_from_its_own_folder(folder, stored, store, tmp_path):
    publish_study(stored, store, tmp_path / "again")
    assert contents(tmp_path / "again" / "stability-digits") == contents(folder)
    publish_study(stored, open_store(folder), tmp_path / "from-folder")
    assert contents(tmp_path / "from-folder" / "stability-digits") == contents(folder)


def test_every_field_of_a_record_is_kept():
    assert set(_RUNS.names) == {"cell", *(spec.name for spec in dataclasses.fields(Record))}


def test_nothing_tells_of_a_users_folders(store, sweep, tmp_path, monkeypatch):
    first = sweep.cells[0]
    fill(store, sweep)
    put_run(store, first, 0, errors=[50.0], status="failed", traceback=TRACEBACK)
    put_run(store, first, 1, alarms=("slow: s3://key:secret@host/b, /mnt/alice/data/x.npz is far away",))
    put_teacher(store, first.cell)
    written = dataclasses.replace(
        sweep,
        source="/home/alice/studies/stability.toml",
        command=(
            "hkrun",
            "sweep",
            "/home/alice/studies/stability.toml",
            "teacher.file=/home/alice/t.pt",
            "a=b/c.d",
        ),
    )
    save_plan(store, written)
    (stored,), _ = publishing.stored_plans(store)
    publish_study(stored, store, tmp_path / "results")
    folder = tmp_path / "results" / "stability-digits"
    texts = [path.read_text(encoding="utf-8") for path in folder.iterdir() if path.suffix in (".json", ".md")]
    texts += [str(pq.read_table(path).to_pylist()) for path in folder.glob("*.parquet")]
    for text in texts:
        for secret in ("alice", "secret", "/home", "/mnt", str(tmp_path)):
            assert secret not in text
    report = (folder / "report.md").read_text(encoding="utf-8")
    assert "OSError: t.pt" in report
    assert "hkrun sweep stability.toml teacher.file=t.pt a=b/c.d --name stability --dataset" in report


def test_a_processor_is_filled_in_where_records_name_none(store, stored, tmp_path):
    named = stored.sweep.cells[0]
    put_run(store, named, 0, processor="Known 9000")
    publish_study(stored, store, tmp_path / "results", processor="Told 1")
    kept = open_store(tmp_path / "results" / "stability-digits")
    found = [record.processor for record in kept.records(cell_id(named.cell))]
    assert found == ["Known 9000", *["Told 1"] * 5]
    assert (
        "| Processor | Known 9000, Told 1 |" in (tmp_path / "results/stability-digits/report.md").read_text()
    )


def test_curves_are_a_file_that_stability_reads(folder, store, stored, capsys):
    assert call(["stability", str(folder / "curves.parquet"), "--window", "5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["cells"]
    expected = {cell.name: cell.stability.s for cell in summarise(stored.sweep, store).cells}
    assert {cell["cell"]: cell["s"] for cell in found} == pytest.approx(expected)


# --- reading again ------------------------------------------------------------------------------------------


def test_reports_are_written_again_from_the_numbers_alone(folder, store, capsys, monkeypatch):
    monkeypatch.chdir(folder.parents[1])
    store.local_path.rename(folder.parents[1] / "gone")
    before, index = contents(folder), folder.parent / "README.md"
    page = index.read_bytes()
    (folder / "report.md").write_text("an older report")
    (folder / "older.svg").write_text("a figure that there no longer is")
    (folder / "results.json").unlink()
    index.write_text(page.decode().splitlines()[0])
    assert call(["report", "results/stability-digits"]) == 0
    assert "Convergence stability, digits, 6 seeds" in capsys.readouterr().out
    assert contents(folder) == before
    assert index.read_bytes() == page
    assert call(["report", "results"]) == 0
    assert "results/stability-digits/report.md" in capsys.readouterr().out
    assert contents(folder) == before


def test_the_documents_of_published_studies_are_those_of_report(folder, store, stored, capsys):
    save_plan(store, dataclasses.replace(stored.sweep, name="second"))
    second = next(plan for plan in publishing.stored_plans(store)[0] if plan.sweep.name == "second")
    publish_study(second, store, folder.parent)
    assert call(["report", str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["sweep"], told["mlflow"], told["store"]) == ("stability", None, str(folder))
    assert call(["report", str(folder.parent), "--json"]) == 0
    assert [study["sweep"] for study in json.loads(capsys.readouterr().out)["studies"]] == [
        "second",
        "stability",
    ]


def test_diverged_runs_of_a_published_study_exit_with_5(store, stored, tmp_path, capsys):
    put_run(store, stored.sweep.cells[0], 0, errors=[50.0], status="diverged", diverged_epoch=2)
    store_path = str(store.local_path)
    publish = ["report", "stability", "--store", store_path, "--publish", str(tmp_path / "results")]
    assert call(publish) == 5
    assert "results/stability-digits/report.md" in capsys.readouterr().out
    assert call(["report", str(tmp_path / "results")]) == 5


def test_options_that_choose_a_sweep_are_refused_with_a_folder(folder, capsys):
    for options in (["--dataset", "digits"], ["--publish", "elsewhere"], ["--family", "all"]):
        assert call(["report", str(folder), *options]) == 2
        assert "not with published studies" in capsys.readouterr().err


def test_a_published_study_is_a_store_that_nothing_can_be_written_to(folder, stored, capsys):
    kept = open_store(folder)
    named = stored.sweep.cells[0]
    with pytest.raises(StoreError, match="can only be read"):
        put_run(kept, named, 55)
    with pytest.raises(StoreError, match="can only be read"), kept.hold("sweeps/stability-digits"):
        raise AssertionError("a driver holds it")
    with pytest.raises(StoreError, match="can only be read"):
        kept.delete(kept.run_folder(cell_id(named.cell), 0))
    assert call(["status", "--store", str(folder), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["sweeps"]
    assert (found["runs"], found["done"]) == (24, 24)


# --- what is refused ----------------------------------------------------------------------------------------


def rewrite(folder, name, change):
    """Replaces a table, and its sum in study.json, as one who means harm would."""
    table = change(pq.read_table(folder / name))
    pq.write_table(table, folder / name)
    study = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    study["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "study.json").write_text(json.dumps(study), encoding="utf-8")


def edit(folder, change):
    study = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    change(study)
    (folder / "study.json").write_text(json.dumps(study), encoding="utf-8")


def set_column(name, value):
    def change(table):
        place = table.column_names.index(name)
        return table.set_column(place, name, pa.array([value] * len(table)))

    return change


DAMAGE = {
    "a table is gone": (
        lambda f: (f / "runs.parquet").unlink(),
        r"runs\.parquet cannot be used: there is no runs",
    ),
    "a table was changed": (
        lambda f: (f / "curves.parquet").write_bytes(b"version https://git-lfs.github.com/spec/v1"),
        r"curves\.parquet cannot be used: study\.json names one of SHA-256 [0-9a-f]{12}, and this is",
    ),
    "no JSON": (lambda f: (f / "study.json").write_text("{"), r"study\.json cannot be used: Expecting"),
    "no object": (lambda f: (f / "study.json").write_text("[]"), r"study\.json cannot be used: list indices"),
    "deep": (lambda f: (f / "study.json").write_text("[" * 100_000), r"study\.json cannot be used: "),
    "a later format": (
        lambda f: edit(f, lambda s: s.update(format=2)),
        r"of format 2, and this hkrun knows 1",
    ),
    "another configuration": (
        lambda f: edit(f, lambda s: next(iter(s["cells"].values())).update(method="kd")),
        r"study\.json cannot be used: the SHA-256 of the text does not start with",
    ),
    "a way out": (lambda f: edit(f, lambda s: s.update(folder="../../x")), r"'\.\.' is no name"),
    "a teacher of no kind": (
        lambda f: edit(f, lambda s: next(iter(s["teachers"].values())).update(status="lost")),
        r"study\.json cannot be used: status 'lost'",
    ),
    "no Parquet": (
        lambda f: rewrite_bytes(f, "runs.parquet", b"PAR1 but no more"),
        r"runs\.parquet cannot be used: ",
    ),
    "no column": (
        lambda f: rewrite(f, "runs.parquet", lambda table: table.drop_columns(["pack"])),
        r'runs\.parquet cannot be used: .*"?pack"?',
    ),
    "a column of another type": (
        lambda f: rewrite(f, "runs.parquet", set_column("seed", "none")),
        r"runs\.parquet cannot be used: ",
    ),
    "a status": (
        lambda f: rewrite(f, "runs.parquet", set_column("status", "won")),
        r"status 'won' is none of finished, diverged, failed",
    ),
    "an infinite error": (
        lambda f: rewrite(f, "runs.parquet", set_column("error_last_pct", float("nan"))),
        r"runs\.parquet cannot be used: ",
    ),
    "a run twice": (
        lambda f: rewrite(f, "runs.parquet", lambda table: pa.concat_tables([table, table.slice(0, 1)])),
        r"it has the run [0-9a-f]{12}/\d+ twice",
    ),
    "a negative seed": (
        lambda f: rewrite(f, "runs.parquet", set_column("seed", -1)),
        r"runs\.parquet cannot be used: ",
    ),
    "curves of no run": (
        lambda f: rewrite(f, "curves.parquet", set_column("seed", 77)),
        r"curves\.parquet cannot be used: it has curves of runs that runs\.parquet does not have",
    ),
    "mixed epochs": (
        lambda f: rewrite(f, "curves.parquet", lambda table: table.take([0, EPOCHS, 1])),
        r"curves\.parquet cannot be used: the epochs of the run .* do not stand together",
    ),
    "curves without epochs": (
        lambda f: rewrite(f, "curves.parquet", lambda table: table.drop_columns(["epoch"])),
        r"curves\.parquet cannot be used: .*epoch",
    ),
    "words for errors": (
        lambda f: rewrite(f, "curves.parquet", set_column("error_pct", "low")),
        r"curves\.parquet cannot be used: ",
    ),
    "an incomplete curve": (
        lambda f: rewrite(f, "curves.parquet", lambda table: table.slice(1)),
        r"its curves do not have 8 epochs of errors",
    ),
    "no plan": (
        lambda f: edit(f, lambda s: s["documents"]["plan.json"].pop("sweep")),
        r"plan\.json: cannot be understood",
    ),
    "no sweep": (lambda f: edit(f, lambda s: s["documents"].clear()), r"study\.json: it has no plan\.json"),
    "another identity": (
        lambda f: edit(
            f, lambda s: s["documents"]["plan.json"]["sweep"]["cells"][0]["cell"].update(precision="float64")
        ),
        r"gives the cell 'L_b' another identity",
    ),
    "marks of no kind": (
        lambda f: edit(f, lambda s: s["documents"].update({"stopped.json": [{"seed": 1}]})),
        r"stopped\.json: cannot be understood",
    ),
}


def rewrite_bytes(folder, name, content):
    (folder / name).write_bytes(content)
    edit(folder, lambda study: study["files"].update({name: hashlib.sha256(content).hexdigest()}))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A published study that no test changes."""
    place = tmp_path_factory.mktemp("whole")
    store, sweep = open_store(place / "store"), make_sweep(published=(), num_seeds=2)
    fill(store, sweep)
    put_teacher(store, sweep.cells[0].cell)
    save_plan(store, sweep)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hkrun.figures.style.encode", lambda figure, kind: b"")
        publish_study(publishing.stored_plans(store)[0][0], store, place / "results")
    return place / "results" / "stability-digits"


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_folder_is_one_clear_line(damage, whole, tmp_path, capsys):
    change, expected = DAMAGE[damage]
    folder = shutil.copytree(whole, tmp_path / "stability-digits")
    change(folder)
    report = (folder / "report.md").read_bytes()
    assert call(["report", str(folder)]) == 6
    told = capsys.readouterr()
    assert re.search(expected, told.err), told.err
    assert str(folder) in told.err
    assert len(told.err.splitlines()) == 1, told.err
    assert (folder / "report.md").read_bytes() == report


@pytest.mark.parametrize("place", ["README.md", "stability-digits/notes.txt", "stability-digits"])
def test_publishing_replaces_nothing_that_is_not_of_a_published_study(place, store, stored, tmp_path):
    path = tmp_path / "results" / place
    path.parent.mkdir(parents=True)
    path.write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match=re.escape("is there and is no")):
        publish_study(stored, store, tmp_path / "results")
    assert path.read_text(encoding="utf-8") == "mine"


def test_a_study_that_changes_while_it_is_read_is_not_published(store, stored, tmp_path, monkeypatch):
    def write(study):
        put_run(store, stored.sweep.cells[0], 0, errors=[90.0] * EPOCHS)
        return write_study(study)

    monkeypatch.setattr(publishing, "write_study", write)
    with pytest.raises(StoreError, match="stability changed while it was read; publish it again"):
        publish_study(stored, store, tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_an_index_of_the_users_own_is_left_alone_beside_a_report(folder):
    index = folder.parent / "README.md"
    index.write_text("# My results\n", encoding="utf-8")
    assert call(["report", str(folder)]) == 0
    assert index.read_text(encoding="utf-8") == "# My results\n"


def test_results_of_another_version_are_one_clear_line(folder, capsys):
    (folder.parent / "other-digits").mkdir()
    for name, content in contents(folder).items():
        (folder.parent / "other-digits" / name).write_bytes(content)
    for text in ("{}", "[]", "no JSON"):
        (folder.parent / "other-digits" / "results.json").write_text(text, encoding="utf-8")
        with pytest.raises(StoreError, match=r"results\.json.*writes (it|them) again") as caught:
            publishing.write_index(folder.parent)
        assert len(caught.value.problems) == 1
    assert call(["report", str(folder.parent)]) == 0


# --- the index ----------------------------------------------------------------------------------------------


def comparison(measure="error", **changes):
    values = {
        "measure": measure,
        "value": 0.03,
        "reference_value": 0.011,
        "difference": -0.44,
        "ci95": [-0.83, -0.05],
        "p_holm": 0.09,
        "supports": False,
        "opposes": False,
    }
    return {**values, **changes}


def study(*claims, **changes):
    values = {
        "title": "A <b>title</b>",
        "question": "Does it help?",
        "dataset": "digits",
        "cells": [{"cell_id": "a", "seeds": [0, 1]}, {"cell_id": "a", "seeds": [0, 1]}],
        "conditions": {"Device": "cpu x86_64", "Started (UTC)": "2026-11-29 15:14 to 2026-11-30 15:16"},
        "command": "hkrun sweep x",
        "findings": ["It does."],
        "claims": [
            {
                "id": f"c{number}",
                "statement": f"claim {number}",
                "judged_on": "error",
                "outcome": outcome,
                "comparisons": found,
            }
            for number, (outcome, found) in enumerate(claims)
        ],
        "s2_claims": [],
    }
    return {**values, **changes}


@pytest.mark.parametrize("found", [[], [comparison(difference=0.0, supports=True)]])
def test_the_index_says_where_diverged_runs_decide_a_claim(found):
    document = study(("contradicted", found))
    document["claims"][0] |= {"condition": "at learning rate 0.1", "reason": "10 of 10 runs diverged"}
    page = render_index({"one-digits": document}).decode()
    assert "1 contradicted." in page
    assert "| claim 0 | contradicted at learning rate 0.1 | 10 of 10 runs diverged |" in page


def test_the_index_has_a_line_for_each_claim_that_was_judged():
    several = [
        comparison(supports=True),
        comparison(difference=0.2, opposes=True),
        comparison(difference=0.1),
    ]
    page = render_index(
        {
            "one-digits": study(
                ("undecided", [comparison()]),
                ("undecided", [comparison("stability", p_holm=0.0004)]),
                ("contradicted", several),
                ("reproduced", [comparison(ci95=None, p_holm=None)]),
                ("not judged", []),
            ),
            "two-digits": study(("undecided", [comparison()]), title="Shares a claim"),
            "three-digits": study(title="Third", conditions={**study()["conditions"], "Processor": "EPYC"}),
        }
    ).decode()
    assert (
        "3 studies. Claims of the paper that they judge: 1 reproduced, 1 contradicted, 2 undecided." in page
    )
    assert "## [A \\<b\\>title\\</b\\>](one-digits/report.md)" in page
    assert "digits · 1 configuration · 2 seeds · measured (2026-11-29, cpu x86_64) · hkrun sweep x" in page
    lines = [line for line in page.splitlines() if line.startswith("| claim")][:4]
    assert lines == [
        f"| claim 0 | undecided | {MINUS}0.44 ± 0.39 pp (p = 0.090) |",
        "| claim 1 | undecided | S 0.030 against 0.011 (p \\< 0.001) |",
        (
            "| claim 2 | contradicted | 1 of 3 comparisons show it, 1 the contrary; "
            f"differences {MINUS}0.44 to +0.20 pp |"
        ),
        f"| claim 3 | reproduced | {MINUS}0.44 pp (withheld) |",
    ]
    third = page.partition("## [Third]")[2]
    assert "measured (2026-11-29, EPYC)" in third
    assert "\n- It does.\n" in third
