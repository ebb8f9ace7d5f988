"""CONTRIBUTING's recipes for losses, methods, networks and data sets, followed in a copy of the package."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def read_blocks(title: str) -> list[str]:
    """The code blocks of a section."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.partition(f"\n### {title}\n")[2].partition("\n### ")[0]
    return re.findall(r"```\w+\n(.*?)```", section, flags=re.DOTALL)


def insert(file: Path, block: str, *, into: str) -> None:
    """Puts lines at the start of a mapping."""
    text = file.read_text(encoding="utf-8")
    start = text.index("{\n", text.index(f"\n{into}:")) + 2
    file.write_text(text[:start] + block + text[start:], encoding="utf-8")


TRY_NETWORK = """
import torch
from hkrun.models import DistilledNetwork, build_network, initialise
from hkrun.models.packed import PackedNetwork
from hkrun.networks import parse_network
from hkrun.plans.packs import why_alone
from hkrun.plans import Workers
from hkrun.spaces import load_cell

assert parse_network("plain3").widths == (16, 32)
members = [build_network("plain3", num_classes=3, in_channels=1).double() for _ in range(2)]
for seed, member in enumerate(members):
    initialise(member, torch.Generator().manual_seed(seed))
images = torch.randn(2, 4, 1, 8, 8, dtype=torch.float64)
alone = torch.stack([member.train()(own).logits for member, own in zip(members, images)])
output, _ = PackedNetwork([DistilledNetwork(member) for member in members])(images)
torch.testing.assert_close(output.logits, alone)
cell = load_cell(overrides=["student.network=plain3", "method=kd"]).cells[0].cell
assert why_alone(cell, workers=Workers()) == ""
"""
TRY_DATASET = """
from hkrun.data import load_dataset
from hkrun.datasets import find_dataset
from hkrun.spaces import load_cell

sweep = load_cell(dataset="stripes")
assert sweep.cells[0].cell.student.network == "preact-8-w4"
assert len(load_dataset("stripes").train) == find_dataset("stripes").num_train == 40
"""


TRY_LOSS = """
from hkrun.config import canonical, cell_id
from hkrun.distill.term_checks import try_terms
from hkrun.objective import DataSizes
from hkrun.spaces import load_cell

for chosen in ("method=cosine", "knowledge.form=cosine"):
    cells = [load_cell(overrides=[chosen, f"cosine.power={power}"]).cells[0].cell for power in (1, 2)]
    assert cell_id(cells[0]) != cell_id(cells[1])
    assert "descriptor" in cells[0].table_parts
    assert not [key for key in canonical(cells[0]) if key.endswith(".source")]
    try_terms(cells[0], DataSizes(num_classes=3, num_images=40), (1, 8, 8), packed=True)
"""
TRY_METHOD = """
from hkrun.objective import DataSizes, Objective
from hkrun.spaces import load_cell

cell = load_cell(overrides=["method=l1", "loss.lambda_1=0.5"]).cells[0].cell
assert cell.stage_weights == ({"cross_entropy": 1.0, "logits_l1": 0.5},)
assert cell.table_parts == ("logits",)
Objective(cell, 0, DataSizes(num_classes=3, num_images=40))
"""


def add_loss(copy: Path) -> None:
    (module,) = read_blocks("A loss")
    (copy / "hkrun/modern/cosine.py").write_text(module, encoding="utf-8")
    methods = copy / "hkrun/methods.py"
    text = methods.read_text(encoding="utf-8")
    assert "\nSHIPPED = (" in text
    methods.write_text(text.replace("\nSHIPPED = (", '\nSHIPPED = ("cosine", '), encoding="utf-8")


def add_method(copy: Path) -> None:
    (entry,) = read_blocks("A method")
    methods = copy / "hkrun/methods.py"
    text = methods.read_text(encoding="utf-8")
    start = text.index("{\n", text.index("\nMETHODS = ")) + 2
    methods.write_text(text[:start] + entry + text[start:], encoding="utf-8")


def add_network(copy: Path) -> None:
    function, line, shape = read_blocks("A network")
    cifar = copy / "hkrun/models/cifar.py"
    insert(cifar, line, into="_PARTS")
    text = cifar.read_text(encoding="utf-8")
    cifar.write_text(text.replace("\n_PARTS:", f"\n{function}\n\n_PARTS:"), encoding="utf-8")
    insert(copy / "hkrun/networks.py", shape, into="CIFAR_NETWORKS")


def add_dataset(copy: Path) -> None:
    module, entry, recipe = read_blocks("A data set")
    (copy / "hkrun/data/stripes.py").write_text(module, encoding="utf-8")
    (copy / "search_spaces/recipes/stripes.toml").write_text(recipe, encoding="utf-8")
    insert(copy / "hkrun/datasets.py", entry, into="DATASETS")


RECIPES = {
    "loss": (add_loss, TRY_LOSS, [["keys", "cosine"]]),
    "method": (add_method, TRY_METHOD, [["keys", "method"]]),
    "network": (add_network, TRY_NETWORK, []),
    "dataset": (add_dataset, TRY_DATASET, [["data", "verify", "stripes"], ["keys", "dataset"]]),
}


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """All recipes followed in one copy, and tried in one process: what each printed, or how it failed."""
    copy = tmp_path_factory.mktemp("copy")
    # With what Python has compiled already; not with what it is writing.
    for folder in ("hkrun", "search_spaces"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("*.pyc.*"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    for add, _, _ in RECIPES.values():
        add(copy)
    trials = {name: (code, commands) for name, (_, code, commands) in RECIPES.items()}
    done = subprocess.run(
        [sys.executable, "-P", "-c", TRY_ALL, json.dumps(trials)],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


TRY_ALL = """
import contextlib, io, json, sys, traceback
from hkrun.cli.program import call

tried = {}
for name, (code, commands) in json.loads(sys.argv[1]).items():
    failure = ""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            exec(code, {})
            assert all(call(command) == 0 for command in commands)
        except BaseException:
            failure = traceback.format_exc()
    tried[name] = {"out": out.getvalue(), "failure": failure}
print(json.dumps(tried))
"""


def told_by(tried: dict[str, dict[str, str]], recipe: str) -> str:
    assert tried[recipe]["failure"] == ""
    return tried[recipe]["out"]


def test_a_loss_is_added_as_the_recipe_says(tried):
    assert "cosine.power = 2.0" in told_by(tried, "loss")


def test_a_method_is_added_as_the_recipe_says(tried):
    assert "l1: labels and the absolute difference" in told_by(tried, "method")


def test_a_network_is_added_as_the_recipe_says(tried):
    assert told_by(tried, "network") == ""


def test_a_data_set_is_added_as_the_recipe_says(tried):
    verified, _, listed = told_by(tried, "dataset").partition("\n")
    assert verified.startswith("stripes: whole")
    assert "stripes" in listed
