"""The verbs `data pack` and `data verify`, on a tiny tree."""

import json
from pathlib import Path

import pyarrow.fs
import pytest
from imagenet_example import damage, make_tree

from hkrun.cli.program import call
from hkrun.data import fingerprint


@pytest.fixture
def tree(folder) -> Path:
    return make_tree(folder / "data", train=4, val=2)


def test_pack_makes_shards_of_the_same_content_that_verify_finds_whole(tree, document, capsys):
    code, told = document("data", "pack", "--data", "data", "--to", "packed")
    assert code == 0
    assert told["images"] == {"train": 12, "val": 6}
    assert told["files"] == 4
    assert told["bytes"] == sum(path.stat().st_size for path in Path("packed/imagenet").glob("*.parquet"))
    assert fingerprint("imagenet", "packed") == fingerprint("imagenet", "data")
    for place in ("data", "packed"):
        assert document("data", "verify", "imagenet", "--data", place) == (
            0,
            {"dataset": "imagenet", "problems": []},
        )
    assert call(["data", "verify", "imagenet", "--data", "packed"]) == 0
    assert capsys.readouterr().out == "imagenet: whole\n"


def test_pack_shows_no_password(tree, capsys, monkeypatch):
    (tree / "packed").mkdir()
    monkeypatch.setattr(
        "hkrun.data.places._connect", lambda _: (pyarrow.fs.LocalFileSystem(), str(tree / "packed"))
    )
    uri = "s3://key:se/cret@bucket/packed"
    assert call(["data", "pack", "--data", "data", "--to", uri]) == 0
    assert capsys.readouterr().out.endswith(
        " at s3://bucket/packed/imagenet; use them with --data s3://bucket/packed\n"
    )
    assert call(["data", "pack", "--data", uri, "--to", "again"]) == 2
    assert capsys.readouterr().err.startswith("hkrun: --data s3://bucket/packed: holds shards;")


def test_pack_says_how_to_go_on(tree, capsys):
    assert call(["data", "pack", "--data", "data", "--to", f"file://{tree.parents[1]}/packed"]) == 0
    told = capsys.readouterr()
    assert told.out.startswith("12 training and 6 validation images in 4 files")
    assert told.out.endswith(f"use them with --data file://{tree.parents[1]}/packed\n")
    assert "train-00000.parquet: 12 images" in told.err


def test_verify_names_every_damaged_image_of_folders_and_shards(tree, document, capsys):
    names = damage(tree, 1, 5)
    expected = sorted(f"train/{name}: cannot be decoded" for name in names)
    assert call(["data", "pack", "--data", "data", "--to", "packed"]) == 0
    capsys.readouterr()
    for place in ("data", "packed"):
        code, told = document("data", "verify", "imagenet", "--data", place)
        assert code == 3
        assert sorted(told["problems"]) == expected
    assert call(["data", "verify", "imagenet", "--data", "data"]) == 3
    assert capsys.readouterr().out.endswith("imagenet: 2 problems\n")


def test_verify_names_a_damaged_shard(tree, document, capsys):
    assert call(["data", "pack", "--data", "data", "--to", "packed"]) == 0
    capsys.readouterr()
    path = Path("packed/imagenet/train-00000.parquet")
    path.write_bytes(path.read_bytes()[:-9])
    code, told = document("data", "verify", "imagenet", "--data", "packed")
    assert code == 3
    (problem,) = told["problems"]
    assert "train-00000.parquet" in problem


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (("verify", "cifar10", "--data", "empty"), 3, "cifar10: not found; put cifar-10-python.tar.gz"),
        (("verify", "imagenet"), 3, "imagenet: name the place of the images with --data DIR"),
        (("verify", "imagenet", "--data", "empty"), 3, "train: cannot be listed"),
    ],
)
def test_what_is_missing_is_a_problem(folder, document, arguments, code, problem):
    found, told = document("data", *arguments)
    assert found == code
    assert len(told["problems"]) == 1
    assert problem in told["problems"][0]


def test_embedded_data_is_whole(folder, document):
    assert document("data", "verify", "digits") == (0, {"dataset": "digits", "problems": []})


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("data",), "no verb 'data'"),
        (("data", "unpack"), "no verb 'data'"),
        (("data", "pack", "--data", "data"), "Missing option '--to'"),
        (("data", "verify", "imagnet"), "'imagnet' is no data set that can be verified; one of digits"),
    ],
)
def test_mistakes_are_refused(tree, capsys, arguments, problem):
    assert call([*arguments, "--json"]) == 2
    told = json.loads(capsys.readouterr().out)["error"]
    assert problem in told["message"]


def test_shards_are_not_packed_again(tree, capsys):
    assert call(["data", "pack", "--data", "data", "--to", "packed"]) == 0
    assert call(["data", "pack", "--data", "packed", "--to", "again"]) == 2
    assert "holds shards; name the folders" in capsys.readouterr().err
    assert call(["data", "pack", "--data", "data", "--to", "packed"]) == 3
    assert "holds shards already" in capsys.readouterr().err
