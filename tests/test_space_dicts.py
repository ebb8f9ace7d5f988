"""Search spaces as dicts: what a file says, a dict says, and what is wrong with it has its place."""

import tomllib

import numpy as np
import pytest

from hkrun.config import cell_id
from hkrun.errors import InputError, NotFoundError
from hkrun.spaces import load_sweep

TOML = """
title = "How much does lambda_3 matter?"
dataset = "digits"
seeds = [0, 1, 2]
reference = "L_b"

[analysis]
window = 3

[base]
student.epochs = 5

[[cells]]
name = "L_b"
loss.lambda_2 = 0.0
loss.lambda_3 = 0.0

[[cells]]
name = "with"
on.digits.loss.mu = 0.5

[[axes]]
key = "loss.lambda_3"
values = [0.1, 1.0]
cells = ["with"]
"""
SPACE = {
    "title": "How much does lambda_3 matter?",
    "dataset": "digits",
    "seeds": range(3),
    "reference": "L_b",
    "analysis.window": 3,
    "base": {"student": {"epochs": np.int64(5)}},
    "cells": (
        {"name": "L_b", "loss.lambda_2": 0.0, "loss": {"lambda_3": 0.0}},
        {"name": "with", "on": {"digits": {"loss.mu": 0.5}}},
    ),
    "axes": [{"key": "loss.lambda_3", "values": np.array([0.1, 1.0]), "cells": ["with"]}],
}


def problems_of(space, **changes):
    with pytest.raises(InputError) as caught:
        load_sweep(space, **{"overrides": {}, **changes})
    return caught.value.problems


def test_a_title_that_ends_as_a_sentence_takes_no_comma_in_headings():
    assert load_sweep(SPACE, overrides={}).heading == "How much does lambda_3 matter? digits"
    assert load_sweep({**SPACE, "title": "lambda_3"}, overrides={}).heading == "lambda_3, digits"


@pytest.mark.parametrize("space", [SPACE, tomllib.loads(TOML)], ids=["Python's", "as TOML reads it"])
def test_a_dict_is_the_search_space_that_a_file_with_its_keys_is(space, tmp_path):
    (tmp_path / "how-much-does-lambda_3-matter.toml").write_text(TOML)
    of_file = load_sweep(str(tmp_path / "how-much-does-lambda_3-matter.toml"))
    of_dict = load_sweep(space)
    for name in ("name", "title", "dataset", "seeds", "reference", "window", "cells"):
        assert getattr(of_dict, name) == getattr(of_file, name), name
    assert len({cell_id(named.cell) for named in of_dict.cells}) == 3


def test_overrides_are_values_by_their_keys_nested_or_dotted():
    (kept,) = {named.cell.student.epochs for named in load_sweep(SPACE, epochs=7, overrides={}).cells}
    assert kept == 7
    nested = load_sweep(SPACE, overrides={"student": {"momentum": 0.5, "drops": (0.5,)}})
    dotted = load_sweep(SPACE, overrides={"student.drops": [0.5], "student.momentum": 0.5})
    assert nested.cells == dotted.cells
    assert nested.cells[0].cell.student.drops == (0.5,)
    typed = load_sweep("stability", overrides=["student.momentum=0.5"])
    assert typed == load_sweep("stability", overrides={"student.momentum": 0.5})


def test_seeds_are_a_number_or_a_sequence_of_them():
    assert load_sweep(SPACE, seeds=2, overrides={}).seeds == (0, 1)
    assert load_sweep(SPACE, seeds=np.arange(2, 5), overrides={}).seeds == (2, 3, 4)
    assert load_sweep("stability", seeds=(7,), overrides={}).seeds == (7,)


def test_every_mistake_of_a_dict_is_told_with_its_place():
    space = {
        "title": "x",
        "dataset": "digits",
        "seeds": 3,
        "cells": [{"name": "a", "los.mu": 1}, {"name": "b", "loss": {"mu": "x"}}],
        "axes": [{"key": "loss.lambda_3", "values": [0.1, "much"]}],
    }
    assert problems_of(space) == [
        "dict, cells[0]: los.mu: unknown key; did you mean 'loss.mu'?",
        "dict, cells[1]: loss.mu: 'x' is not of type number",
        "dict, axes[0].values[1]: loss.lambda_3: 'much' is not of type number",
    ]


def test_what_toml_has_not_is_refused_by_its_place():
    space = {"seeds": None, "cells": [{"name": {1}}], 7: "x", "base": {"loss.mu": 1, "loss": {"mu": 2}}}
    kinds = "allowed are text, numbers, True and False, lists and dicts"
    assert problems_of(space) == [
        f"dict: seeds: a value of type NoneType; {kinds}",
        f"dict: cells[0].name: a value of type set; {kinds}",
        "dict: 7: 7 is no text, and all keys are",
        "dict: base.loss: given twice",
    ]


def test_mistakes_in_arguments_of_python_name_these():
    found = problems_of(SPACE, seeds="3", dataset="digit", epochs="x", overrides={"seeds": 3, "los.mu": 1})
    starts = ["overrides: seeds are no key", "dataset: dataset: 'digit'", "overrides: los.mu: unknown key"]
    starts += ["epochs: student.epochs: 'x' is not", "seeds: '3' is neither a number of seeds"]
    assert [line[: len(start)] for line, start in zip(found, starts, strict=True)] == starts


def test_a_name_of_no_search_space_is_not_found():
    with pytest.raises(NotFoundError, match="did you mean 'stability'"):
        load_sweep("stabilty")
    with pytest.raises(NotFoundError, match=r"nowhere\.toml: no such file"):
        load_sweep("nowhere.toml")
