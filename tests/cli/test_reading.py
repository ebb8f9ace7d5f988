import dataclasses
import json
import os
import signal

import pytest
from sweep_example import make_sweep, put_run

import hkrun.tracking
from hkrun.cli.invocation import Invocation
from hkrun.cli.program import call
from hkrun.config import cell_id
from hkrun.errors import StoreError
from hkrun.plans import save_plan
from hkrun.store import open_store
from hkrun.tracking import Links, Mirrored, Site

pytestmark = pytest.mark.usefixtures("undrawn_figures")


def test_a_report_is_written_from_the_store_alone(store, document, capsys):
    code, told = document("report", "stability")
    assert code == 0
    assert [cell["name"] for cell in told["cells"]] == [named.name for named in make_sweep().cells]
    assert told["mlflow"] is None
    html = store.local_path / "sweeps" / "stability-digits" / "report.html"
    html.unlink()
    assert call(["report", "stability"]) == 0
    assert str(html) in capsys.readouterr().out
    assert html.is_file()


def test_a_store_that_can_only_be_read_shows_the_table_and_says_that_no_report_is_written(
    store, document, capsys, monkeypatch
):
    def refuse(*_, **__):
        raise StoreError("cannot write here: the file system is read-only")

    monkeypatch.setattr(type(store), "commit", refuse)
    assert call(["report", "stability"]) == 6
    shown = capsys.readouterr()
    assert "last epoch" in shown.out
    assert "the file system is read-only" in shown.err
    assert document("report", "stability")[0] == 6


def test_a_report_corrects_over_all_tables_where_asked_and_over_each_again_where_not(store, document):
    html = store.local_path / "sweeps" / "stability-digits" / "report.html"
    for options, corrected in (([], "table"), (["--family", "all"], "all"), ([], "table")):
        code, told = document("report", "stability", *options)
        assert (code, told["family"]["corrected"]) == (0, corrected)
        assert ("--family all</code> keeps them" in html.read_text()) == (corrected == "table")


def test_a_published_study_has_the_family_of_its_search_space(store, capsys):
    assert call(["report", "stability", "--publish", "public", "--family", "all"]) == 2
    assert '[analysis] family = "all" of its search space goes along' in capsys.readouterr().err
    assert call(["report", "stability", "--family", "everything"]) == 2


def test_a_report_of_a_sweep_with_failed_runs_exits_with_5(store):
    put_run(store, make_sweep().cells[0], 0, status="failed", error_last_pct=None, traceback="Boom")
    assert call(["report", "stability"]) == 5


def test_a_sweep_on_two_data_sets_must_be_chosen(store, capsys):
    save_plan(store, dataclasses.replace(make_sweep(), dataset="mnist5k"))
    assert call(["report", "stability"]) == 2
    assert "was run on digits, mnist5k; choose one with --dataset" in capsys.readouterr().err
    assert call(["report", "stability", "--dataset", "digits"]) == 0


def test_status_tells_of_each_cell_what_is_done_failed_diverged_and_unfinished(store, document, capsys):
    sweep = make_sweep(num_seeds=5)
    save_plan(store, sweep)
    first = sweep.cells[0]
    put_run(store, first, 0, status="failed", error_last_pct=None, traceback="Boom")
    put_run(store, first, 1, status="diverged", error_last_pct=None, diverged_epoch=3)
    identity = cell_id(first.cell)
    store.commit(f"{store.run_folder(identity, 3)}/checkpoints", {"epoch-000004.pt": b""})
    code, told = document("status")
    assert code == 0
    (found,) = told["sweeps"]
    assert (found["sweep"], found["dataset"], found["runs"], found["done"]) == ("stability", "digits", 20, 11)
    assert found["cells"][0] == {
        "cell_id": identity,
        "name": "L_b",
        "runs": 5,
        "done": 2,
        "failed": [0],
        "diverged": [1],
        "unfinished": [{"seed": 3, "epoch": 4, "epochs": 12}],
        "other_code": [],
    }
    assert call(["status", "stability"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "2/5 1 (seed 0) 1 (seed 1) 3 (4/12)" in told
    assert "unfinished" in told
    assert "running" not in told
    assert told.endswith(
        "stability on digits: stopped before its end; kept: 11 of 20 runs, 1 failed; checkpoints of 1 run "
        "(up to epoch 4 of 12) Go on hkrun resume stability --dataset digits"
    )


def test_every_verb_takes_a_study_by_the_name_of_its_folder_too(store, document):
    for name in ("stability", "stability-digits"):
        assert document("status", name)[1]["sweeps"][0]["sweep"] == "stability"
    code, told = document("status", "stability-digits", "--dataset", "mnist5k")
    assert code == 2
    assert "no such study" in told["error"]["message"]


def test_without_a_terminal_columns_says_how_wide_it_is(store, capsys, monkeypatch):
    widths = {}
    for columns in (80, 100, None):
        monkeypatch.delenv("COLUMNS", raising=False)
        if columns is not None:
            monkeypatch.setenv("COLUMNS", str(columns))
        assert call(["report", "stability"]) == 0
        table, _, _ = capsys.readouterr().out.partition("\nReport ")
        widths[columns] = max(map(len, table.splitlines()))
    assert widths == {80: 80, 100: 100, None: 100}


@pytest.mark.parametrize("columns", ["", "0", "9", "-80", "\N{SUPERSCRIPT TWO}", "wide"])
def test_columns_that_are_no_width_or_hold_no_word_count_as_none(store, capsys, monkeypatch, columns):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert call(["report", "stability"]) == 0
    shown = capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", columns)
    assert call(["report", "stability"]) == 0
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize("arguments", [["ls"], ["status"], ["report", "stability"]])
def test_the_narrowest_columns_are_heeded(store, capsys, monkeypatch, arguments):
    lines = {}
    for columns in ("10", "100"):
        monkeypatch.setenv("COLUMNS", columns)
        assert call(arguments) == 0
        lines[columns] = capsys.readouterr().out.splitlines()
    assert len(lines["10"]) > len(lines["100"])


def test_a_reason_to_go_on_begins_below_its_command_in_every_line(store, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    assert call(["report", "stability"]) == 0
    lines = capsys.readouterr().out.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("Go on    "))
    reason = lines[place + 1 :]
    assert " ".join(line.strip() for line in reason) == "7 seeds are the fewest that can show a difference"
    assert len(reason) == 2
    assert all(len(line) <= 50 and line.startswith(" " * 9) and line[9] != " " for line in reason)


def test_status_names_consecutive_seeds_that_are_equally_far_as_one(store, document, capsys):
    sweep = make_sweep(num_seeds=20)
    save_plan(store, sweep)
    identity = cell_id(sweep.cells[0].cell)
    reached = {8: 4, 9: 4, 10: 4, 11: 5, 12: 5, 14: 5, 16: 4}
    for seed, epoch in reached.items():
        store.commit(f"{store.run_folder(identity, seed)}/checkpoints", {f"epoch-{epoch:06}.pt": b""})
    _, told = document("status")
    assert {run["seed"]: run["epoch"] for run in told["sweeps"][0]["cells"][0]["unfinished"]} == reached
    assert call(["status", "stability"]) == 0
    told = "".join(capsys.readouterr().out.split())
    assert "8-10(4/12),11-12(5/12),14(5/12),16(4/12)" in told


def test_status_of_an_empty_store_says_so(folder, document, capsys):
    store = open_store(folder / "hkrun-store")
    assert document("status") == (0, {"store": store.uri, "sweeps": []})
    assert call(["status"]) == 0
    assert "holds no sweep yet" in capsys.readouterr().out


def test_the_store_comes_from_option_then_environment(store, folder, monkeypatch, document):
    monkeypatch.chdir("/")
    monkeypatch.setenv("HKRUN_STORE", str(folder / "hkrun-store"))
    assert document("status")[0] == 0
    assert document("status", "--store", str(folder / "none"))[0] == 2
    assert document("--store", str(folder / "none"), "status")[0] == 2


def test_a_password_in_the_stores_address_is_shown_nowhere(store, capsys, monkeypatch):
    monkeypatch.setattr(store, "uri", "s3://key:hunter2@bucket/study")
    monkeypatch.setattr(Invocation, "open_store", lambda *_, **__: store)
    for arguments in (
        ["status", "--json"],
        ["status", "x"],
        ["report", "stability", "--json"],
        ["resume", "--json"],
    ):
        call(arguments)
        assert "hunter2" not in "".join(capsys.readouterr())


def test_the_ui_prints_its_document_when_it_answers_and_only_one(store, monkeypatch, capsys):
    links = Links(uri="sqlite:///x", experiment_id="7", experiment="E", view="V", comparison="C")
    site = Site(
        uri="sqlite:///x", address="http://127.0.0.1:5001", sweeps={"stability-digits": links}, is_ours=True
    )

    def serve(store, *, port, open_browser, begin, announce):
        begin("http://127.0.0.1:5001", True)
        assert capsys.readouterr() == (
            "",
            "Starting MLflow's server on http://127.0.0.1:5001, about 10 s ...\n",
        )
        announce(site)
        told = json.loads(capsys.readouterr().out)
        assert told["address"] == "http://127.0.0.1:5001"
        assert told["sweeps"][0] == {
            "sweep": "stability-digits", "experiment_id": "7", "view": "V", "comparison": "C", "runs": "E",
            "outdated": False,
        }  # fmt: skip
        raise StoreError("the MLflow server ended")

    monkeypatch.setattr(hkrun.tracking, "ui", serve)
    assert call(["ui", "--json"]) == 6
    output = capsys.readouterr()
    assert output.out == ""
    assert "the MLflow server ended" in output.err


@pytest.mark.parametrize("outdated", [False, True])
def test_the_ui_links_to_no_list_that_an_earlier_version_did_not_save(store, monkeypatch, capsys, outdated):
    links = Links(
        uri="sqlite:///x", experiment_id="7", experiment="E", view="V", comparison="C", outdated=outdated
    )
    site = Site(uri=links.uri, address="http://127.0.0.1:5001", sweeps={"x-digits": links}, is_ours=False)
    monkeypatch.setattr(hkrun.tracking, "ui", lambda *_, announce, **__: announce(site))
    assert call(["ui"]) == 0
    told = capsys.readouterr().out.split("x-digits\n")[1].splitlines()
    assert told == (
        ["  test error over epochs  V", "  lists of cells and runs: `hkrun sync` first"]
        if outdated
        else ["  cells, best first       C", "  test error over epochs  V", "  all runs, best first    E"]
    )


@pytest.mark.parametrize("address", [None, "http://127.0.0.1:5003"])
def test_sync_prints_a_link_only_where_a_server_answers_for_the_store(store, monkeypatch, capsys, address):
    usual = "http://127.0.0.1:5000/#/experiments/7/runs"
    links = Links(uri="sqlite:///x", experiment_id="7", experiment=usual, view=usual, comparison=usual)
    monkeypatch.setattr(hkrun.tracking, "sync", lambda *_, **__: Mirrored(links=links, runs=12, denser=0))
    monkeypatch.setattr(
        hkrun.tracking, "find_ui", lambda _, experiment_id: address if experiment_id == "7" else ""
    )
    assert call(["sync"]) == 0
    output = capsys.readouterr()
    if address is None:
        assert "http://" not in output.out + output.err
        assert output.err == "stability on digits: 12 runs\n"
        assert "`hkrun ui` starts its server and prints the links." in output.out
    else:
        assert output.err == "stability on digits: http://127.0.0.1:5003/#/experiments/7/runs\n"
        assert "`hkrun ui` opens it." in output.out
    assert call(["sync", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["sweeps"]
    assert (told["served"], told["view"]) == (
        address is not None,
        usual.replace(":5000", f":{5003 if address else 5000}"),
    )


def test_the_links_of_a_server_are_served(store, monkeypatch, capsys):
    place = "http://server:5000/#/experiments/7/runs"
    links = Links(uri="http://server:5000", experiment_id="7", experiment=place, view=place, comparison=place)
    monkeypatch.setattr(hkrun.tracking, "sync", lambda *_, **__: Mirrored(links=links, runs=12, denser=0))
    assert call(["sync"]) == 0
    assert capsys.readouterr().err == f"stability on digits: {place}\n"


@pytest.mark.parametrize(("deaf", "how"), [(False, "Ctrl-C stops it."), (True, "kill {pid} stops it.")])
def test_the_ui_names_what_stops_it_also_where_the_shell_keeps_ctrl_c_from_it(
    store, monkeypatch, capsys, deaf, how
):
    site = Site(uri="sqlite:///x", address="http://127.0.0.1:5001", sweeps={}, is_ours=True)
    monkeypatch.setattr(hkrun.tracking, "ui", lambda *_, announce, **__: announce(site))
    # Whatever the shell that runs the tests has made of it.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN if deaf else signal.default_int_handler)
    try:
        assert call(["ui"]) == 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().out.splitlines()[-1] == how.format(pid=os.getpid())


def test_sync_passes_every_on_and_says_how_many_runs_keep_more_points(store, monkeypatch, capsys):
    links = Links(uri="sqlite:///x", experiment_id="7", experiment="E", view="V", comparison="C")
    asked = []

    def sync(sweep, store, *, every, **_):
        asked.append(every)
        return Mirrored(links=links, runs=12, denser=10)

    monkeypatch.setattr(hkrun.tracking, "sync", sync)
    assert call(["sync"]) == 0
    output = capsys.readouterr()
    told = "10 of 12 runs keep the points of more curves that `--every` or an earlier hkrun put there."
    assert told in " ".join((output.out + output.err).split())
    assert call(["sync", "--every", "5", "--json"]) == 0
    output = capsys.readouterr()
    (found,) = json.loads(output.out)["sweeps"]
    assert (found["view"], found["runs"], found["runs_with_more_points"]) == ("V", 12, 10)
    assert "keep the points" not in output.err  # they were asked for
    assert asked == [None, 5]
    assert call(["sync", "--every", "0"]) == 2
    assert "--every" in capsys.readouterr().err


def test_a_plan_that_cannot_be_read_hides_no_other(store, document, capsys):
    folder = store.sweep_folder("broken", "digits")
    store.commit(folder, {"plan.json": b"{}"})
    assert call(["status"]) == 0
    told = capsys.readouterr()
    assert "stability on digits: 12 of 12 runs done" in told.out
    assert "sweeps/broken-digits/plan.json: cannot be understood" in told.err
    assert call(["status", "stability"]) == 0
    assert "broken" not in capsys.readouterr().err
    code, answer = document("status", "broken")
    assert (code, "cannot be understood" in answer["error"]["message"]) == (6, True)


def test_where_no_plan_can_be_read_the_store_is_not_called_empty(folder, document):
    store = open_store(folder / "hkrun-store")
    store.commit(store.sweep_folder("broken", "digits"), {"plan.json": b"{}"})
    assert document("status")[0] == 6
    assert document("resume")[0] == 6
