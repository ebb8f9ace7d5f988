import dataclasses
import json
import shutil

import pytest
from sweep_example import fill_store, make_sweep

from hkrun.cli.program import call
from hkrun.plans import save_plan
from hkrun.store import open_store


def put_study(store, name, *, dataset="digits", **values):
    """A finished study; a longer training has other cells."""
    sweep = dataclasses.replace(make_sweep(name=name, **values), dataset=dataset)
    fill_store(store, sweep)
    save_plan(store, sweep)
    return sweep


@pytest.fixture(scope="module")
def two_studies(finished, tmp_path_factory):
    """A store with `stability` of 12 epochs, and a shorter one; for copies of it."""
    place = shutil.copytree(finished, tmp_path_factory.mktemp("two-studies") / "hkrun-store")
    put_study(open_store(place), "short", epochs=8)
    return place


@pytest.fixture
def studies(folder, two_studies):
    """The default store with these two."""
    shutil.copytree(two_studies, folder / "hkrun-store")


def test_two_studies_are_set_side_by_side(studies, document, capsys):
    code, told = document("compare", "stability", "short")
    assert (code, told["a"]["study"], told["b"]["study"]) == (0, "stability", "short")
    assert [cell["matched_by"] for cell in told["cells"]] == ["name"] * 4
    assert {tuple(cell["keys"]["student.epochs"]) for cell in told["cells"]} == {(12, 8)}
    assert told["cells"][0]["error"]["n"] == [3, 3]
    assert "Epochs: 12 in A, 8 in B." in told["cautions"]
    assert call(["compare", "stability", "short"]) == 0
    text = capsys.readouterr().out
    assert "student.epochs  12 → 8" in text
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.usefixtures("undrawn_figures")
def test_a_study_is_named_by_its_data_set_too_or_by_its_store_or_its_folder(store, folder, document, capsys):
    put_study(store, "stability", dataset="mnist5k")
    put_study(open_store(folder / "other"), "stability")
    assert call(["report", "stability", "--dataset", "digits", "--publish", "public"]) == 0
    capsys.readouterr()
    code, told = document("compare", "stability-digits", "stability-mnist5k")
    assert (code, told["a"]["dataset"], told["b"]["dataset"]) == (0, "digits", "mnist5k")
    for one, other in (
        ("stability-digits", "other:stability"),
        ("public/stability-digits", "other:stability-digits"),
        ("public", "other:stability"),
    ):
        code, told = document("compare", one, other)
        assert code == 0
        assert all(cell["same_configuration"] for cell in told["cells"])


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (["stability", "stability"], 2, "stability and stability are one study: name two"),
        (["stability", "stability-digits"], 2, "stability and stability-digits are one study: name two"),
        (["stability", "shrt"], 2, "there are: short, stability; did you mean 'short'?"),
        (["stability", "nowhere:short"], 2, "nowhere: there is no store"),
        (["stability"], 2, "Missing argument 'B'"),
        (["stability", "short", "--cells", "L_b"], 2, "--cells L_b: give a cell of each study, NAME=NAME"),
        (["stability", "short", "--cells", "L_c=L_b"], 2, "stability has no cell 'L_c'"),
        (["stability", "short", "--dataset", "cifar10"], 2, "dataset: no such study on 'cifar10'"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_line(studies, capsys, arguments, code, problem):
    assert call(["compare", *arguments]) == code
    printed = capsys.readouterr().err
    assert problem in printed
    assert "Traceback" not in printed
    assert call(["compare", *arguments, "--json"]) == code
    assert json.loads(capsys.readouterr().out)["error"]["code"] == code


@pytest.mark.usefixtures("undrawn_figures")
def test_several_published_studies_are_none_to_compare(studies, capsys):
    for name in ("stability", "short"):
        assert call(["report", name, "--publish", "public"]) == 0
    capsys.readouterr()
    assert call(["compare", "public", "stability"]) == 2
    assert "public: 2 published studies; name one of them, as public/short-digits" in capsys.readouterr().err
