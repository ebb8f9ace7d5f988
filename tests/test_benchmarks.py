"""The scripts in benchmarks/ still run; what they measure is not looked at."""

import importlib.util
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", ["teacher", "student"])
def test_the_recipe_search_trains_teachers_and_students_alone(kind):
    row = load("digits_recipe").train(kind, "preact-8-w4", 100, 50, epochs=1, seed=1000)
    assert row["kind"] == kind
    assert 0 < row["error_pct"] <= 100
