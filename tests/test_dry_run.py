"""A dry run refuses what the run would refuse before it trains, with the same message and exit status."""

import pytest

from hkrun.cli.program import call


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("HKRUN_STORE", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def refuse(capsys, *arguments):
    code = call([*arguments, "--seeds", "1", "--epochs", "1", "--yes"])
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["method=supervised", "student.batch_size=301"], 2, "student.batch_size: 301 does not fit"),
        (["teacher.batch_size=5000"], 2, "teacher.batch_size: 5000 does not fit"),
        (
            ["method=supervised", "--dataset", "mnist5k", "student.batch_size=4001"],
            2,
            "to 4000 (the training",
        ),
        (["method=supervised", "--dataset", "cifar10", "student.batch_size=50001"], 2, "to 50000 (the"),
        (["method=supervised", "--dataset", "folder", "--data", "nowhere"], 3, "nowhere"),
        (["method=supervised", "--dataset", "imagenet", "--data", "nowhere"], 3, "nowhere"),
        (["teacher.file=weights.pt"], 2, "teacher.file"),
    ],
)
def test_a_dry_run_refuses_what_the_run_refuses(folder, capsys, arguments, code, told):
    (folder / "weights.pt").write_bytes(b"no weights")
    found = refuse(capsys, "run", *arguments, "--dry-run")
    assert found[0] == code
    assert told in found[1]
    if "cifar10" not in arguments:  # which the run would fetch first
        really = refuse(capsys, "run", *arguments)
        assert (really[0], really[1].splitlines()[-1:]) == (code, found[1].splitlines()[-1:])
    assert [path.name for path in folder.iterdir()] == ["weights.pt"]


@pytest.mark.parametrize("uri", ["ftp://host/mlflow", "file:///somewhere", "nonsense"])
def test_a_dry_run_refuses_a_tracking_uri_that_cannot_be_used(folder, capsys, monkeypatch, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    code, told = refuse(capsys, "run", "method=supervised", "--dry-run")
    assert code == 2
    assert f"MLFLOW_TRACKING_URI: '{uri}' cannot be used" in told
    assert list(folder.iterdir()) == []


def test_a_dry_run_of_a_data_set_that_is_fetched_does_not_fetch_it(folder, capsys):
    assert (
        refuse(capsys, "run", "method=supervised", "--dataset", "cifar10", "--data", "d", "--dry-run")[0] == 0
    )
    assert list(folder.iterdir()) == []
