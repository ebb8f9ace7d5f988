"""The verb `export`: how a run is named, what is printed; the exporting itself is tested in tests/export."""

import dataclasses

import pytest
from sweep_example import fill_store, make_sweep

import hkrun.export
from hkrun.cli.program import call
from hkrun.config import cell_id
from hkrun.export import Export
from hkrun.export.exporting import Check, Network
from hkrun.export.measuring import Cost
from hkrun.plans import save_plan
from hkrun.spaces import load_sweep


def make_network(**changes):
    cost = Cost(parameters=5000, quantised_parameters=0, multiply_adds=49000, quantised_multiply_adds=0)
    network = Network(
        network="preact-8-w4",
        quantizer="",
        error_pct=5.25,
        cost=cost,
        safetensors_bytes=25_000,
        onnx_bytes=26_000,
        latency_ms=0.125,
    )
    return dataclasses.replace(network, **changes)


@pytest.fixture
def calls(monkeypatch):
    """Replaces what exports; returns what it was asked for."""
    made = []

    def export_run(store, record, *, data_dir, output):
        made.append((record.cell_id, record.seed, data_dir, str(output)))
        return Export(
            cell_id=record.cell_id,
            seed=record.seed,
            dataset="digits",
            files={"safetensors": f"{output}/student.safetensors", "onnx": f"{output}/student.onnx"},
            student=make_network(),
            teacher=make_network(network="preact-8-w8", error_pct=2.5, safetensors_bytes=100_000),
            check=Check(
                images=1107,
                error_pct=5.25,
                safetensors_difference=0.0,
                onnx_difference=2e-6,
                onnx_changed=0,
                largest_logit=12.0,
            ),
            latency_rounds=200,
            measured="2026-11-22, a processor",
            runtime="onnxruntime 1.31.1",
        )

    monkeypatch.setattr(hkrun.export, "export_run", export_run)
    return made


@pytest.fixture
def cell():
    """The id of the sweep's second cell, L_b + L_is."""
    return cell_id(make_sweep().cells[1].cell)


def test_a_run_is_named_by_sweep_cell_and_seed(store, calls, cell):
    assert call(["export", "stability:L_b + L_is:2"]) == 0
    assert calls == [(cell, 2, None, f"export-{cell}-2")]


@pytest.mark.parametrize("called", ["loss.lambda_3=1.0, loss.mu=0.5", "lambda_3 = 1, mu = 0.5"])
def test_a_point_of_axes_is_called_by_its_name_or_by_its_label(store, calls, called):
    axes = [{"key": "loss.lambda_3", "values": [0.1, 1.0]}, {"key": "loss.mu", "values": [0.5, 1.5]}]
    sweep = load_sweep({"title": "grid", "dataset": "digits", "seeds": 1, "axes": axes})
    wanted = next(cell for cell in sweep.cells if cell.point == {"loss.lambda_3": 1.0, "loss.mu": 0.5})
    run = dataclasses.replace(make_sweep(num_seeds=1), cells=(dataclasses.replace(wanted, name="L_b"),))
    fill_store(store, run)
    save_plan(store, sweep)
    assert call(["export", f"grid:{called}:0"]) == 0
    assert [asked[:2] for asked in calls] == [(cell_id(wanted.cell), 0)]


def test_a_run_is_named_by_its_cells_id_and_seed(store, calls, cell, folder):
    assert call(["export", f"{cell}/1", "--output", "out", "--data", str(folder)]) == 0
    assert calls == [(cell, 1, folder, "out")]


def test_the_table_sets_the_student_against_the_teacher(store, calls, cell, capsys):
    assert call(["export", f"{cell}/1"]) == 0
    lines = {line.strip().split("  ")[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    assert lines["network"][-2:] == ["preact-8-w4", "preact-8-w8"]
    assert lines["test error, last epoch"][-4:] == ["5.25", "%", "2.50", "%"]
    assert lines["safetensors, bytes"][-3:] == ["25,000", "100,000", "4.0"]
    assert "binary or ternary" not in lines
    assert lines["onnx"] == ["onnx", f"export-{cell}-1/student.onnx"]
    assert "measured" in " ".join(lines["Latency"])


def test_the_document_is_the_exports(store, calls, cell, document):
    code, told = document("export", f"{cell}/1")
    assert code == 0
    assert set(told) == {
        "cell_id",
        "seed",
        "dataset",
        "files",
        "student",
        "teacher",
        "check",
        "latency_rounds",
        "measured",
        "runtime",
    }
    assert told["student"]["cost"]["parameters"] == 5000
    assert told["files"]["onnx"] == f"export-{cell}-1/student.onnx"


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ("stability", "name the run as SWEEP:CELL:SEED or CELL_ID/SEED"),
        ("stability:L_b", "name the run as"),
        ("stabilty:L_b:0", "did you mean 'stability'"),
        ("stability:L_b + L_iss:0", "did you mean 'L_b + L_is'"),
        ("stability:L_b:17", "it has the seeds 0, 1, 2"),
        ("0123456789ab/0", "it has no run of that cell"),
    ],
)
def test_a_run_that_is_not_there_is_refused_with_what_is(run, message, store, calls, document):
    code, told = document("export", run)
    assert code == 2
    assert message in told["error"]["message"]
    assert calls == []
