"""The verbs `data pack` and `data verify`, on a tiny tree."""

import json
from pathlib import Path

import pyarrow.fs
import pytest
from image_examples import exif, random_samples, with_chunks, write_png
from imagenet_example import WNIDS, damage, make_tree

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
            {"dataset": "imagenet", "problems": [], "notes": []},
        )
    assert call(["data", "verify", "imagenet", "--data", "packed"]) == 0
    assert capsys.readouterr().out == "imagenet: whole\n"


def test_pack_shows_no_password(tree, capsys, monkeypatch):
    (tree / "packed").mkdir()
    monkeypatch.setattr(
        "hkrun.data.shards._connect", lambda _: (pyarrow.fs.LocalFileSystem(), str(tree / "packed"))
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
    reasons = ("is damaged or cut short", "is empty, or gone")
    expected = sorted(f"train/{name}: {reason}" for name, reason in zip(names, reasons, strict=True))
    assert call(["data", "pack", "--data", "data", "--to", "packed"]) == 0
    capsys.readouterr()
    for place in ("data", "packed"):
        code, told = document("data", "verify", "imagenet", "--data", place)
        assert code == 3
        assert sorted(told["problems"]) == expected
    assert call(["data", "verify", "imagenet", "--data", "data"]) == 3
    assert capsys.readouterr().out.endswith("imagenet: 2 problems\n")


def test_verify_tells_what_is_refused_passed_over_turned_and_in_both_parts(tree, document, capsys):
    train, val = tree / "train" / WNIDS[0], tree / "val" / WNIDS[0]
    (train / "deep.png").write_bytes(write_png(random_samples(40, 36, 1, depth=16), bitdepth=16))
    (train / "turned.png").write_bytes(with_chunks(write_png(random_samples(40, 36, 3)), {b"eXIf": exif(6)}))
    (train / "a.webp").write_bytes(b"")
    first = f"{WNIDS[0]}_1.JPEG"
    (val / "again.JPEG").write_bytes((train / first).read_bytes())
    reason = "has 16 bits a channel; allowed are 8: convert it by a scale of your own"
    problem = f"train/{WNIDS[0]}/deep.png: {reason}"
    passed_over = f"passed over: 1 .webp (train/{WNIDS[0]}/a.webp)"
    notes = [
        f"1 image(s) turned as their orientation tag says: train/{WNIDS[0]}/turned.png",
        f"1 test image(s) are training images too: val/{WNIDS[0]}/again.JPEG = train/{WNIDS[0]}/{first}",
    ]
    assert document("data", "verify", "imagenet", "--data", "data") == (
        3,
        {"dataset": "imagenet", "problems": [problem], "notes": [passed_over, *notes]},
    )
    assert call(["data", "pack", "--data", "data", "--to", "packed"]) == 0
    assert passed_over in capsys.readouterr().err.replace("\n", " ").replace("  ", " ")
    code, told = document("data", "verify", "imagenet", "--data", "packed")
    assert (code, told["problems"], told["notes"]) == (3, [problem], notes)


def test_verify_names_every_unusable_image_of_a_folder(folder, document):
    root = folder / "images"
    for part in ("train", "test"):
        for name in ("ant", "cat"):
            (root / part / name).mkdir(parents=True)
            content = write_png(random_samples(6, 5, 3, seed=len(part) + len(name) + ord(name[0])))
            (root / part / name / "1.png").write_bytes(content)
    for number in range(30):
        (root / f"train/ant/x{number:02d}.png").write_bytes(b"")
    (root / "train/ant/a.gif").write_bytes(b"")
    code, told = document("data", "verify", "folder", "--data", "images")
    assert code == 3
    assert [line.partition(": ")[2] for line in told["problems"]] == ["is empty, or gone"] * 30
    assert told["notes"] == ["passed over: 1 .gif (train/ant/a.gif)"]


def test_verify_names_wrong_classes_and_unusable_images_together(folder, document, capsys):
    root = folder / "images"
    for place in ("train/ant", "train/cat", "train/bee", "train/eel", "test/ant", "test/cat", "test/eel"):
        (root / place).mkdir(parents=True)
        if place not in ("train/eel", "test/cat"):
            (root / place / "1.png").write_bytes(write_png(random_samples(6, 5, 3, seed=len(place))))
    (root / "train/ant/2.png").write_bytes(b"")
    (root / "train/ant/a.gif").write_bytes(b"")
    code, told = document("data", "verify", "folder", "--data", "images")
    assert code == 3
    assert told["problems"] == [
        "images/train/bee: there is no class 'bee' in images/test",
        "images/train/eel: no .png or .jpg file",
        "images/test/cat: no .png or .jpg file",
        "images/train/ant/2.png: is empty, or gone",
    ]
    assert told["notes"] == ["passed over: 1 .gif (train/ant/a.gif)"]
    (root / "train/eel/1.png").write_bytes(write_png(random_samples(6, 5, 3, seed=1)))
    (root / "test/cat/1.png").write_bytes(write_png(random_samples(6, 5, 3, seed=1)))
    (root / "train/ant/2.png").unlink()
    capsys.readouterr()
    assert call(["data", "verify", "folder", "--data", "images"]) == 3
    assert capsys.readouterr().out.endswith("folder: 1 problem\n")


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
    assert document("data", "verify", "digits") == (0, {"dataset": "digits", "problems": [], "notes": []})


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


def test_verify_checks_a_data_set_of_one_s_own(folder, document):
    (folder / "flat.py").write_text(
        "import torch\nfrom hkrun.data import Dataset, Split\n"
        "def images(data_dir):\n"
        "    part = Split(torch.full((2, 3, 4, 4), 7, dtype=torch.uint8), torch.tensor([0, 1]))\n"
        "    return Dataset(name='images', train=part, test=part, classes=('a', 'b'))\n"
    )
    code, told = document("data", "verify", "flat:images")
    assert code == 2
    assert told["error"]["message"] == (
        "flat:images: channel(s) 1, 2, 3 of 3: one value in every pixel of every training image; "
        "it cannot be normalised"
    )
