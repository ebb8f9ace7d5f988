import importlib.metadata
import sys

import pytest

import hkrun.data
from hkrun.cli.console import PlainConsole
from hkrun.cli.invocation import Invocation
from hkrun.cli.keys import _print_key
from hkrun.cli.program import call
from hkrun.config import keys
from hkrun.errors import DataError


def test_keys_lists_every_key_with_type_range_default_source_and_meaning(folder, document, capsys):
    code, told = document("keys")
    assert code == 0
    assert [key["key"] for key in told["keys"]] == list(keys())
    names = {"key", "type", "range", "default", "source", "doc", "terms"}
    assert all(set(key) == names for key in told["keys"])
    terms = {key["key"]: key["terms"] for key in told["keys"]}
    assert terms["loss.reduction"] == ["backbone", "logits_l1", "squeezed", "fsp", "hint"]
    assert terms["student.epochs"] == []
    assert call(["keys"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for name, (_, _, info) in keys().items():
        assert f" {name} = " in text
        assert info.doc in text
        assert info.source in text


@pytest.mark.parametrize("width", [60, 80, 100])
def test_keys_fit_the_width_and_keep_their_indent(width, capsys):
    console = PlainConsole(width=width)
    for name in keys():
        _print_key(console, name, keys(), [])
        heading, *rest = capsys.readouterr().out.splitlines()
        assert heading.startswith(f"  {name} = ")
        assert all(line.startswith("      ") for line in rest)
        assert all(len(line) < width and line == line.rstrip() for line in [heading, *rest])


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("lambda", ["loss.lambda_1", "loss.lambda_2", "loss.lambda_3"]),
        ("*.steps", ["student.steps", "discriminator.steps"]),
    ],
)
def test_keys_can_be_searched(folder, document, pattern, found):
    assert [key["key"] for key in document("keys", pattern)[1]["keys"]] == found


def test_a_loss_of_the_users_own_is_described_with_its_keys(folder, document, capsys, monkeypatch):
    monkeypatch.setattr("sys.path", [*sys.path])
    (folder / "described.py").write_text(
        "from hkrun.terms import Key, Term\n"
        "def loss(student, teacher, labels, *, power, temperature): ...\n"
        "POWER = Key('mine.power', 2.0, 'Power of it.', source='a paper', above=0)\n"
        "TERM = Term(summary='what it is', function=loss, student=('logits',), teacher=('stages',),\n"
        "            labels=True, keys=(POWER, 'loss.temperature'), packs=False)\n"
    )
    code, told = document("keys", "described:TERM")
    assert code == 0
    assert told["summary"] == "what it is"
    assert told["term reads"].startswith("logits of the student; stages of the teacher; the labels; ")
    assert told["term reads"].endswith("; the teacher runs live; its runs train one at a time")
    power, temperature = told["keys"]
    assert (power["key"], power["default"], power["range"]) == ("mine.power", 2.0, "above 0")
    assert (temperature["key"], temperature["terms"]) == ("loss.temperature", ["kd", "described:TERM"])
    assert call(["keys", "described:TERM"]) == 0
    assert "mine.power = 2.0" in capsys.readouterr().out
    assert call(["keys", "described:NOTHING"]) == 2


@pytest.fixture
def quick(monkeypatch):
    """Data sets that are missing at once, for checks of something else."""

    def missing(name, **_):
        raise DataError(f"{name}: not found; put it there")

    monkeypatch.setattr(hkrun.data, "load_dataset", missing)


def checks_of(told):
    return {check["name"]: check for check in told["checks"]}


def test_doctor_looks_at_all_that_a_sweep_needs(folder, document, capsys):
    code, told = document("doctor")
    checks = checks_of(told)
    assert code == told["exit_code"] == 0
    assert list(checks) == [
        *("Python", "PyTorch", "Devices", "CPU cores", "Memory", "Ray", "MLflow", "Ray token", "Store"),
        *(f"Data {name}" for name in keys()["dataset"][2].choices),
    ]
    assert checks["Data digits"]["state"] == "ok"
    assert checks["Data cifar10"]["detail"] == "not here yet; a sweep downloads it"
    assert "cifar-10-python.tar.gz" in checks["Data cifar10"]["advice"]
    assert call(["doctor"]) == 0
    assert "cifar-10-python.tar.gz" in capsys.readouterr().out
    assert list(folder.glob("hkrun-store")) == []


def test_doctor_says_how_to_close_a_token_that_others_can_read(folder, quick, document):
    token = folder / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("secret")
    token.chmod(0o644)
    check = checks_of(document("doctor")[1])["Ray token"]
    assert (check["state"], check["advice"]) == ("warn", f"chmod 600 {token}")
    token.chmod(0o600)
    assert checks_of(document("doctor")[1])["Ray token"]["state"] == "ok"


@pytest.mark.parametrize(("version", "state"), [("2.60.3", "ok"), ("2.61.0", "warn"), ("2.59.1", "warn")])
def test_doctor_names_a_ray_that_was_not_tested(folder, quick, document, monkeypatch, version, state):
    genuine = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: version if name == "ray" else genuine(name)
    )
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: ["ray[data,tune]<2.61,>=2.60"])
    check = checks_of(document("doctor")[1])["Ray"]
    assert (check["exit_code"], check["state"]) == (0, state)
    assert check["detail"].startswith(version)
    assert ("pip install 'ray<2.61,>=2.60'" in check["advice"]) == (state == "warn")


def test_doctor_exits_with_6_where_the_store_is_not_usable(folder, quick, document):
    (folder / "hkrun-store").mkdir()
    (folder / "hkrun-store" / "store.json").write_text('{"format": 99}')
    code, told = document("doctor")
    assert code == 6
    assert checks_of(told)["Store"]["state"] == "fail"


def test_doctor_names_a_new_remote_store_without_its_password(folder, quick, document, monkeypatch):
    monkeypatch.setattr(Invocation, "find_store", lambda _: None)
    _, told = document("doctor", "--store", "s3://key:se/cret@bucket/new")
    check = checks_of(told)["Store"]
    assert (check["state"], check["detail"]) == ("ok", "s3://bucket/new, which the first sweep makes")


def test_doctor_exits_with_3_where_the_embedded_digits_cannot_be_read(folder, quick, document):
    code, told = document("doctor")
    assert code == told["exit_code"] == 3
    check = checks_of(told)["Data digits"]
    assert (check["state"], check["detail"], check["advice"]) == ("fail", "not found", "put it there")
    assert checks_of(told)["Data mnist5k"]["state"] == "warn"
