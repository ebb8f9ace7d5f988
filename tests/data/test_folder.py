import dataclasses
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from image_examples import exif, random_samples, with_chunks, write_png
from PIL import Image
from study_example import make_study
from sweep_example import make_sweep

from hkrun.config import cell_from_values
from hkrun.data import fingerprint, load_dataset
from hkrun.errors import DataError, InputError
from hkrun.spaces import NamedCell
from hkrun.sweep.checks import check_data

GREY, COLOUR = (6, 5), (6, 5, 3)


def save(path: Path, *, shape: tuple[int, ...] = COLOUR, seed: int = 0) -> np.ndarray:
    """Writes an image and returns its pixels as a reader must see them, [C, H, W]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(256, size=shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    with Image.open(path) as image:  # a JPEG's pixels are not those that went in
        return np.array(image).reshape(*shape[:2], -1).transpose(2, 0, 1)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two classes, each with two training images and a test image."""
    for seed, name in enumerate(("cat/1.png", "cat/2.png", "ant/1.png", "ant/2.png")):
        save(tmp_path / "train" / name, seed=seed)
    save(tmp_path / "test/cat/1.png", seed=10)
    save(tmp_path / "test/ant/1.png", seed=11)
    return tmp_path


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG"])
@pytest.mark.parametrize("shape", [GREY, COLOUR])
def test_images_come_in_the_order_of_sorted_classes_and_files(
    tmp_path: Path, suffix: str, shape: tuple[int, ...]
) -> None:
    names = ["cat/10", "cat/2", "ant/b", "ant/a"]
    pixels = {
        name: save(tmp_path / f"train/{name}{suffix}", shape=shape, seed=i) for i, name in enumerate(names)
    }
    test = [
        save(tmp_path / f"test/{name}/x{suffix}", shape=shape, seed=i)
        for i, name in enumerate(("ant", "cat"))
    ]

    dataset = load_dataset("folder", data_dir=tmp_path)

    assert dataset.classes == ("ant", "cat")
    expected = np.stack([pixels[name] for name in ("ant/a", "ant/b", "cat/10", "cat/2")])
    np.testing.assert_array_equal(dataset.train.images.numpy(), expected)
    assert dataset.train.labels.tolist() == [0, 0, 1, 1]
    np.testing.assert_array_equal(dataset.test.images.numpy(), np.stack(test))
    assert dataset.test.labels.tolist() == [0, 1]


def test_palette_images_are_read_in_their_colours(tree: Path) -> None:
    pixels = np.zeros(COLOUR, dtype=np.uint8)
    pixels[2, 3] = (10, 200, 30)
    Image.fromarray(pixels).quantize(4).save(tree / "train/ant/1.png")

    dataset = load_dataset("folder", data_dir=tree)

    assert dataset.train.images[0, :, 2, 3].tolist() == [10, 200, 30]
    assert dataset.train.images[0].sum() == 240


def test_what_is_passed_over_is_counted_and_named_by_kind(tree: Path) -> None:
    assert load_dataset("folder", data_dir=tree).notes == ()
    (tree / "train/.cache").mkdir()
    (tree / "train/ant/.1.png").write_bytes(b"")
    (tree / "train/ant/notes.txt").write_text("no image")
    (tree / "train/README").write_text("no class")
    (tree / "test/stray.PNG").write_bytes(b"")
    save(tree / "test/cat/more/1.png")
    for name in ("a.webp", "b.WebP", "c.webp", "d.webp"):
        (tree / "test/cat" / name).write_bytes(b"")

    dataset = load_dataset("folder", data_dir=tree)

    assert (len(dataset.train), len(dataset.test)) == (4, 2)
    assert dataset.notes == (
        (
            "passed over: 1 .txt (train/ant/notes.txt); "
            "4 .webp (test/cat/a.webp, test/cat/b.WebP, test/cat/c.webp, ...); "
            "1 file(s) without extension (train/README); "
            "2 hidden (train/.cache, train/ant/.1.png); "
            "1 image(s) outside class folders (test/stray.PNG); "
            "1 nested folder(s) (test/cat/more)"
        ),
    )


def test_images_in_both_parts_are_named_however_they_are_stored(tree: Path) -> None:
    shutil.copy(tree / "train/ant/2.png", tree / "test/ant/copy.png")
    with Image.open(tree / "train/cat/1.png") as image:  # the same pixels in other bytes
        image.save(tree / "test/cat/again.png", compress_level=0)
    (tree / "test/cat/link.png").symlink_to(tree / "train/cat/2.png")

    assert load_dataset("folder", data_dir=tree).notes == (
        (
            "3 test image(s) are training images too: test/ant/copy.png = train/ant/2.png, "
            "test/cat/again.png = train/cat/1.png, test/cat/link.png = train/cat/2.png"
        ),
    )


def test_images_are_turned_told_of_and_make_another_content(tmp_path: Path) -> None:
    pixels = random_samples(6, 6, 3)
    for name in ("train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/1.png"):
        save(tmp_path / name, shape=(6, 6, 3), seed=len(name) + ord(name[-7]))
    plain, tagged = write_png(pixels), with_chunks(write_png(pixels), {b"eXIf": exif(6)})
    path = tmp_path / "train/b/2.png"
    path.write_bytes(plain)
    assert fingerprint("folder", tmp_path) == published_fingerprint(tmp_path)
    path.write_bytes(with_chunks(plain, {b"eXIf": exif(1)}))
    assert fingerprint("folder", tmp_path) == published_fingerprint(tmp_path)
    path.write_bytes(tagged)
    # Runs on the pixels as they were stored are not taken for runs on these.
    assert fingerprint("folder", tmp_path) != published_fingerprint(tmp_path)

    dataset = load_dataset("folder", data_dir=tmp_path)

    assert dataset.notes[0] == "1 image(s) turned as their orientation tag says: train/b/2.png"
    np.testing.assert_array_equal(dataset.train.images[2].permute(1, 2, 0), np.rot90(pixels, -1))


def published_fingerprint(tree: Path) -> str:
    """The content as stores of earlier versions have it."""
    digest = hashlib.sha256()
    for part in ("train", "test"):
        for path in sorted((tree / part).glob("*/*.png")):
            digest.update(path.relative_to(tree).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def test_all_unusable_images_are_named_at_once_up_to_a_number(tree: Path) -> None:
    for number in range(30):
        (tree / f"train/ant/x{number:02d}.png").write_bytes(b"")

    with pytest.raises(DataError) as caught:
        load_dataset("folder", data_dir=tree)

    assert len(caught.value.problems) == 21
    assert caught.value.problems[19].endswith("train/ant/x19.png: is empty, or gone")
    assert caught.value.problems[20] == "and 10 more: `hkrun data verify folder` names all"


def test_a_link_to_nothing_is_named(tree: Path) -> None:
    (tree / "train/ant/1.png").unlink()
    (tree / "train/ant/1.png").symlink_to(tree / "gone.png")
    with pytest.raises(DataError, match=r"train/ant/1\.png: cannot be read: No such file or directory$"):
        load_dataset("folder", data_dir=tree)


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


BROKEN: list[tuple[str, Callable[[Path], object], str]] = [
    (
        "no test images",
        lambda tree: remove(tree / "test"),
        r"test: cannot be listed: No such file.*wanted are",
    ),
    ("no directory", remove, r"train: cannot be listed: No such file.*wanted are train/<class>/"),
    (
        "a class of one part",
        lambda tree: remove(tree / "test/cat"),
        r"train/cat: there is no class 'cat' in .*test",
    ),
    (
        "a test class alone",
        lambda tree: remove(tree / "train/cat"),
        r"test/cat: there is no class 'cat' in .*train",
    ),
    (
        "one class",
        lambda tree: [remove(tree / part / "cat") for part in ("train", "test")],
        r"train: at least 2 class",
    ),
    ("an empty class", lambda tree: remove(tree / "test/ant/1.png"), r"test/ant: no \.png or \.jpg file"),
]

UNUSABLE: list[tuple[str, Callable[[Path], object], str]] = [
    (
        "other size",
        lambda path: save(path, shape=(5, 5, 3)),
        r"2\.png: 5x5 RGB, but .*train/ant/1\.png is 5x6 RGB",
    ),
    ("other colours", lambda path: save(path, shape=GREY), r"2\.png: 5x6 grey, but .*ant/1\.png is 5x6 RGB"),
    ("transparent", lambda path: save(path, shape=(6, 5, 4)), r"2\.png: has transparent pixels; allowed are"),
    ("16-bit", lambda path: Image.new("I;16", (5, 6)).save(path), r"2\.png: has 16 bits a channel; allowed"),
    (
        "16-bit RGB",
        lambda path: path.write_bytes(write_png(random_samples(6, 5, 3, depth=16), bitdepth=16)),
        r"2\.png: has 16 bits a channel; allowed are 8",
    ),
    (
        "a transparent colour",
        lambda path: path.write_bytes(write_png(random_samples(6, 5, 3, depth=1), transparent=(0, 1, 0))),
        r"2\.png: has transparent pixels; allowed are",
    ),
    ("no image", lambda path: path.write_text("hello"), r"2\.png: is no PNG or JPEG file"),
    ("cut short", cut_short, r"2\.png: is damaged or cut short"),
    (
        "another format",
        lambda path: Image.new("RGB", (5, 6)).save(path, "BMP"),
        r"2\.png: is a BMP file; PNG and JPEG are read",
    ),
]


@pytest.mark.parametrize(
    ("damage", "message"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN]
)
def test_a_wrong_layout_is_one_line_that_names_the_place(
    tree: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(tree)

    for use in (lambda: load_dataset("folder", data_dir=tree), lambda: fingerprint("folder", tree)):
        with pytest.raises(DataError, match=message) as caught:
            use()
        assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("damage", "message"), [case[1:] for case in UNUSABLE], ids=[case[0] for case in UNUSABLE]
)
def test_an_unusable_image_is_one_line_that_names_it(
    tree: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(tree / "train/cat/2.png")

    with pytest.raises(DataError, match=message) as caught:
        load_dataset("folder", data_dir=tree)
    assert len(caught.value.problems) == 1


def test_a_constant_channel_cannot_be_normalised(tree: Path) -> None:
    for path in (tree / "train").rglob("*.png"):
        with Image.open(path) as image:
            pixels = np.array(image)
        pixels[:, :, 2] = 7
        Image.fromarray(pixels).save(path)

    with pytest.raises(
        DataError, match=r"train: channel\(s\) 3 of 3: one value in every pixel of every training image"
    ):
        load_dataset("folder", data_dir=tree)


def test_without_a_directory_the_message_says_what_is_wanted() -> None:
    for use in (lambda: load_dataset("folder"), lambda: fingerprint("folder", None)):
        with pytest.raises(
            DataError, match=r"folder: name the directory .* with --data DIR; wanted are train/<class>/"
        ):
            use()


def test_the_fingerprint_follows_paths_and_content_and_nothing_else(
    tree: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    original = fingerprint("folder", tree)
    assert len(original) == 64

    copy = tmp_path_factory.mktemp("elsewhere") / "images"
    shutil.copytree(tree, copy, copy_function=shutil.copy)  # other directory, other times
    (copy / "train/ant/notes.txt").write_text("not an image")
    assert fingerprint("folder", copy) == original

    (copy / "train/ant/1.png").rename(copy / "train/ant/0.png")
    renamed = fingerprint("folder", copy)
    save(copy / "train/ant/0.png", seed=99)
    changed = fingerprint("folder", copy)
    save(copy / "train/ant/3.png", seed=98)
    longer = fingerprint("folder", copy)
    assert len({original, renamed, changed, longer}) == 4


def test_the_fingerprint_sees_two_images_swap(tree: Path) -> None:
    original = fingerprint("folder", tree)
    first, second, aside = tree / "train/ant/1.png", tree / "train/cat/1.png", tree / "aside"
    first.rename(aside)
    second.rename(first)
    aside.rename(second)

    assert fingerprint("folder", tree) != original


def test_a_sweep_tells_the_notes_of_its_data_when_it_begins(
    tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tree / "train/ant/a.webp").write_bytes(b"")
    cell = NamedCell(name="L_b", cell=cell_from_values({"dataset": "folder", "student.batch_size": 2}))
    sweep = dataclasses.replace(make_sweep(), dataset="folder", cells=(cell,))

    with pytest.raises(InputError, match=r"teacher\.batch_size"):  # which is larger than the data
        check_data(make_study(sweep, None, data_dir=tree))

    assert caplog.messages == ["folder: passed over: 1 .webp (train/ant/a.webp)"]
