import csv
import dataclasses
import json

import numpy as np
import pytest
from sweep_example import make_sweep, put_run

import hkrun.tracking
from hkrun.cli.invocation import Invocation
from hkrun.cli.program import call
from hkrun.config import cell_id
from hkrun.errors import StoreError
from hkrun.plan import save_plan
from hkrun.stats import compare_stability
from hkrun.store import open_store
from hkrun.tracking import Links, Site

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
    }
    assert call(["status", "stability"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "3 (4/12)" in told
    assert "unfinished" in told
    assert "running" not in told


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
    assert document("status", "--store", str(folder / "none"))[0] == 6
    assert document("--store", str(folder / "none"), "status")[0] == 6


@pytest.fixture
def curves(folder):
    """A file with the curves of two cells, and their matrices of errors [runs, epochs]."""
    generator = np.random.default_rng(0)
    matrices = {"a": 5 + generator.random((4, 30)), "b": 5 + 2 * generator.random((6, 30))}
    with (folder / "curves.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["cell", "seed", "epoch", "error_pct"])
        rows = [
            (cell, 10 * seed, epoch + 1, repr(float(errors[seed, epoch])))
            for cell, errors in matrices.items()
            for seed in range(errors.shape[0])
            for epoch in range(errors.shape[1])
        ]
        generator.shuffle(rows)
        writer.writerows(rows)
    return matrices


def test_stability_is_the_variance_of_the_range_over_the_last_epochs(curves, document, capsys):
    code, told = document("stability", "curves.csv", "--window", "12", "--ddof", "1")
    assert code == 0
    assert sorted(cell["cell"] for cell in told["cells"]) == ["a", "b"]
    for cell in told["cells"]:
        late = curves[cell["cell"]][:, -12:]
        ranges = late.max(axis=0) - late.min(axis=0)
        names = {"cell", "s", "ddof", "s_ddof1", "window", "runs", "mean_range", "ci95", "epochs"}
        assert set(cell) == names
        assert cell["epochs"] == [19, 30]
        assert (cell["ddof"], cell["window"], cell["runs"]) == (1, 12, len(late))
        assert cell["s"] == pytest.approx(ranges.var(ddof=1), rel=1e-12)
        assert cell["s_ddof1"] == cell["s"]
        assert cell["mean_range"] == pytest.approx(ranges.mean(), rel=1e-12)
        low, high = cell["ci95"]
        assert low < cell["s"] < high
    assert document("stability", "curves.csv", "--window", "12", "--ddof", "1") == (0, told)
    assert call(["stability", "curves.csv", "--window", "12"]) == 0
    s = np.ptp(curves["a"][:, -12:], axis=0).var()
    assert f" {s:.4g} " in capsys.readouterr().out


def write_curves(path, matrices, *, seeds=None):
    """Writes errors [runs, epochs] by cell; `seeds` by cell where they are not 0, 1, 2, ..."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["cell", "seed", "epoch", "error_pct"])
        for cell, errors in matrices.items():
            for (run, epoch), error in np.ndenumerate(errors):
                writer.writerow([cell, (seeds or {}).get(cell, range(len(errors)))[run], epoch, float(error)])


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_cells_whose_s_cannot_be_ranked_are_named_and_others_are_not(folder, document, capsys, scale):
    generator = np.random.default_rng(1)
    noise = generator.random((2, 20, 30))
    write_curves(folder / "curves.csv", {"a": 5 + noise[0], "b": 5 + scale * noise[1]})
    comparison = compare_stability(
        5 + noise[0], 5 + scale * noise[1], window=20, generator=np.random.default_rng(0)
    )
    assert (comparison.p > 0.05) == (scale == 1.0)
    assert call(["stability", "curves.csv", "--window", "20"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert ("S cannot rank a and b: 20 runs cannot tell them apart" in told) == (scale == 1.0)
    assert call(["stability", "curves.csv", "--window", "20", "--json"]) == 0
    out, err = capsys.readouterr()
    assert set(json.loads(out)) == {"cells", "warnings"}
    assert len(json.loads(out)["warnings"]) == (scale == 1.0)
    assert ("S cannot rank a and b" in err) == (scale == 1.0)


def test_s_of_runs_that_are_not_paired_is_not_ranked(folder, capsys):
    noise = np.random.default_rng(2).random((3, 6, 10))
    matrices = {"a": 5 + noise[0], "b": 5 + noise[1], "c": 5 + noise[2, :4]}
    write_curves(folder / "curves.csv", matrices, seeds={"b": range(1, 7)})
    assert call(["stability", "curves.csv", "--window", "5"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "S of different numbers of runs is not comparable" in told
    assert "6 of a, 6 of b, 4 of c" in told
    assert "S cannot rank a and b: their seeds differ" in told
    assert "a and c" not in told


@pytest.mark.parametrize(
    ("epochs", "compared"),
    [
        ({"a": (1, 200), "b": (1, 120)}, False),  # 101-200 against 21-120
        ({"a": (0, 119), "b": (1, 120)}, False),
        ({"a": (1, 120), "b": (21, 120)}, True),
        ({"a": (1, 120), "b": (1, 120)}, True),
    ],
)
def test_s_is_compared_over_the_same_epochs_alone(folder, capsys, epochs, compared):
    generator = np.random.default_rng(3)
    rows = [
        f"{cell},{seed},{epoch},{5 + scale * generator.random()}"
        for (cell, (first, last)), scale in zip(epochs.items(), (0.1, 4.0), strict=True)
        for seed in range(12)
        for epoch in range(first, last + 1)
    ]
    (folder / "curves.csv").write_text("\n".join(["cell,seed,epoch,error_pct", *rows]))
    assert call(["stability", "curves.csv", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    windows = {cell: [last - 99, last] for cell, (_, last) in epochs.items()}
    assert {cell["cell"]: cell["epochs"] for cell in document["cells"]} == windows
    told = ", ".join(f"{first}-{last} of {cell}" for cell, (first, last) in windows.items())
    warning = f"S over different epochs is not comparable, and the last 100 are not the same: {told}"
    assert document["warnings"] == ([] if compared else [warning])


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


def test_curves_that_s_is_not_defined_for_are_refused(curves, document):
    code, told = document("stability", "curves.csv")
    assert code == 2
    assert all("window of 100" in line for line in told["error"]["problems"])


def test_the_ui_prints_its_document_when_it_answers_and_only_one(store, monkeypatch, capsys):
    links = Links(uri="sqlite:///x", experiment_id="7", experiment="E", view="V", comparison="C")
    site = Site(
        uri="sqlite:///x", address="http://127.0.0.1:5001", sweeps={"stability-digits": links}, is_ours=True
    )

    def serve(store, *, port, open_browser, announce):
        announce(site)
        told = json.loads(capsys.readouterr().out)
        assert told["address"] == "http://127.0.0.1:5001"
        assert told["sweeps"][0] == {
            "sweep": "stability-digits", "experiment_id": "7", "view": "V", "comparison": "C", "runs": "E"
        }  # fmt: skip
        raise StoreError("the MLflow server ended")

    monkeypatch.setattr(hkrun.tracking, "ui", serve)
    assert call(["ui", "--json"]) == 6
    output = capsys.readouterr()
    assert output.out == ""
    assert "the MLflow server ended" in output.err


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
