"""ImageNet's folder layout, its shards, and what training sees of both."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from image_examples import exif, random_samples, with_chunks, write_png
from imagenet_example import WNIDS, damage, jpeg, make_tree
from scipy.io import savemat
from torchvision.transforms import v2

from hkrun.data import fingerprint, load_dataset
from hkrun.data.cropping import TestView, TrainingView, draw_crop
from hkrun.data.decoding import decode, decode_rgb
from hkrun.data.encoded import BLOCK, WINDOW, epoch_order
from hkrun.data.image_files import ImageError
from hkrun.data.imagenet import DEVKIT, GROUND_TRUTH
from hkrun.data.shards import Place, find_damage, read_manifest, write_shards
from hkrun.data.streams import ImageStream, carry_in_threads, plan_window, split_windows
from hkrun.errors import DataError
from hkrun.seeding import Purpose, derive


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    make_tree(tmp_path)
    return tmp_path


def pack(data_dir: Path, to: Path, *, images_per_shard: int = BLOCK) -> None:
    write_shards(
        load_dataset("imagenet", data_dir=data_dir),
        Place.below(to, "imagenet"),
        images_per_shard=images_per_shard,
    )


def read_all(dataset, *, carry=carry_in_threads) -> list:
    """Every training image of a shuffled epoch, as training sees it."""
    order = epoch_order(len(dataset.train), torch.Generator().manual_seed(1))
    view = TrainingView(9, Purpose.AUGMENTATION, size=16, flip=True)
    return list(ImageStream(dataset.train).read([order], view, carry=carry))


# --- layout -------------------------------------------------------------------------------------------------


def test_labels_follow_the_sorted_folders_and_stay_with_their_images(data_dir):
    dataset = load_dataset("imagenet", data_dir=data_dir)
    assert dataset.classes == WNIDS
    assert (len(dataset.train), len(dataset.test), dataset.num_channels) == (90, 24, 3)
    for part, split in (("train", dataset.train), ("val", dataset.test)):
        assert sorted(split.names) == sorted(
            path.relative_to(data_dir / "imagenet" / part).as_posix()
            for path in (data_dir / "imagenet" / part).glob("*/*")
        )
        for number, name in enumerate(split.names):
            assert split.labels[number] == WNIDS.index(name.partition("/")[0])
            (content,) = split.reader.read([number])
            assert content == (data_dir / "imagenet" / part / name).read_bytes()
            assert split.sizes[number] == len(content)


def test_the_fixed_order_mixes_the_classes(data_dir):
    labels = load_dataset("imagenet", data_dir=data_dir).train.labels
    assert all(set(part.tolist()) == {0, 1, 2} for part in labels.split(15))


def flatten(root: Path) -> None:
    """Turns val into the archive's flat folder, with a development kit whose IDs are in another order."""
    ids = {wnid: number for number, wnid in zip((2, 3, 1), WNIDS, strict=True)}
    wnids = {path.name: path.parent.name for path in (root / "val").glob("*/*")}
    for path in list((root / "val").glob("*/*")):
        path.rename(root / "val" / path.name)
    for wnid in WNIDS:
        (root / "val" / wnid).rmdir()
    devkit = root / DEVKIT
    devkit.mkdir(parents=True)
    (devkit / GROUND_TRUTH).write_text("".join(f"{ids[wnids[name]]}\n" for name in sorted(wnids)))
    synsets = np.array(
        [(number, wnid, 0) for wnid, number in ids.items()],
        dtype=[("ILSVRC2012_ID", "u2"), ("WNID", "O"), ("num_children", "u1")],
    )
    savemat(devkit / "meta.mat", {"synsets": synsets[:, None]})


def test_flat_validation_images_are_sorted_by_the_development_kit(data_dir, tmp_path_factory):
    before = load_dataset("imagenet", data_dir=data_dir)
    flatten(data_dir / "imagenet")
    after = load_dataset("imagenet", data_dir=data_dir)
    assert after.test.names == before.test.names
    assert torch.equal(after.test.labels, before.test.labels)
    assert after.test.reader.read(range(24)) != [b""] * 24
    copy = tmp_path_factory.mktemp("folders")
    make_tree(copy)
    whole = load_dataset("imagenet", data_dir=copy)
    assert after.test.reader.read(range(24)) == whole.test.reader.read(range(24))
    assert fingerprint("imagenet", data_dir) == fingerprint("imagenet", copy)


@pytest.mark.parametrize("trouble", ["no kit", "short", "unknown id", "no numbers", "no matlab"])
def test_a_development_kit_that_does_not_fit_is_refused(data_dir, trouble):
    root = data_dir / "imagenet"
    flatten(root)
    truth = root / DEVKIT / GROUND_TRUTH
    if trouble == "no kit":
        shutil.rmtree(root / DEVKIT)
    elif trouble == "no matlab":
        (root / DEVKIT / "meta.mat").write_bytes(b"not matlab at all" * 20)
    else:
        lines = truth.read_text().splitlines()
        lines = {"short": lines[1:], "unknown id": ["9", *lines[1:]], "no numbers": ["x", *lines[1:]]}[
            trouble
        ]
        truth.write_text("\n".join(lines))
    with pytest.raises(DataError, match="does not tell their classes") as caught:
        load_dataset("imagenet", data_dir=data_dir)
    assert len(caught.value.problems) == 1


def test_a_class_that_train_lacks_is_refused(data_dir):
    shutil.rmtree(data_dir / "imagenet/train" / WNIDS[1])
    with pytest.raises(DataError, match=rf"val/{WNIDS[1]}: there is no class '{WNIDS[1]}' in .*train"):
        load_dataset("imagenet", data_dir=data_dir)


@pytest.mark.parametrize(
    ("remove", "problem"),
    [
        ("imagenet", r"imagenet.train: cannot be listed: .*wanted are DIR/imagenet/train/<wnid>/\*\.JPEG"),
        ("imagenet/val", r"imagenet.val: cannot be listed"),
    ],
)
def test_what_is_missing_is_named_with_what_to_put_there(data_dir, remove, problem):
    shutil.rmtree(data_dir / remove)
    with pytest.raises(DataError, match=problem):
        load_dataset("imagenet", data_dir=data_dir)


def test_an_empty_class_and_a_missing_directory_are_named(data_dir):
    with pytest.raises(DataError, match=r"with --data DIR; wanted are"):
        load_dataset("imagenet")
    for part in ("train", "val"):
        (data_dir / "imagenet" / part / "n09999999").mkdir()
        with pytest.raises(DataError, match=rf"{part}.n09999999: ") as caught:
            load_dataset("imagenet", data_dir=data_dir)
    assert [line.rpartition("imagenet/")[2] for line in caught.value.problems] == [
        "val/n09999999: no .png or .jpg file",
        "train/n09999999: no .png or .jpg file",
    ]


def test_the_content_is_known_by_names_classes_and_sizes(data_dir, tmp_path_factory):
    original = fingerprint("imagenet", data_dir)
    (data_dir / "imagenet/train" / WNIDS[0] / ".DS_Store").write_text("not an image")
    assert fingerprint("imagenet", data_dir) == original
    packed = tmp_path_factory.mktemp("packed")
    pack(data_dir, packed)
    assert fingerprint("imagenet", packed) == original
    first = next((data_dir / "imagenet/train" / WNIDS[0]).glob("*.JPEG"))
    first.write_bytes(first.read_bytes() + b"\0")
    longer = fingerprint("imagenet", data_dir)
    first.unlink()
    assert len({original, longer, fingerprint("imagenet", data_dir)}) == 3


def test_what_is_passed_over_is_counted_and_named(data_dir):
    root = data_dir / "imagenet"
    assert load_dataset("imagenet", data_dir=data_dir).notes == ()
    (root / "train" / WNIDS[0] / "a.webp").write_bytes(b"")
    (root / "train" / WNIDS[0] / "more").mkdir()
    (root / "val/.hidden").mkdir()
    (root / "val/stray.JPEG").write_bytes(b"")  # of flat images, beside class folders
    dataset = load_dataset("imagenet", data_dir=data_dir)
    assert (len(dataset.train), len(dataset.test)) == (90, 24)
    (note,) = dataset.notes
    assert note == (
        f"passed over: 1 .webp (train/{WNIDS[0]}/a.webp); 1 hidden (val/.hidden); "
        f"1 image(s) outside class folders (val/stray.JPEG); 1 nested folder(s) (train/{WNIDS[0]}/more)"
    )


def test_flat_validation_images_are_not_outside_class_folders(data_dir):
    flatten(data_dir / "imagenet")
    assert load_dataset("imagenet", data_dir=data_dir).notes == ()


@pytest.mark.parametrize("flat", [False, True])
def test_a_class_without_validation_images_is_refused(data_dir, flat):
    root = data_dir / "imagenet"
    for path in (root / "val" / WNIDS[1]).iterdir():
        path.unlink()
    (root / "val" / WNIDS[1]).rmdir()
    if flat:
        (root / "val" / WNIDS[1]).mkdir()
        flatten(root)
    with pytest.raises(DataError, match=rf"train/{WNIDS[1]}: there is no class '{WNIDS[1]}' in .*val"):
        load_dataset("imagenet", data_dir=data_dir)


# What each kind of file is in a stream: its shape, or why it is passed over.
KINDS = {
    "16-bit grey": (write_png(random_samples(40, 36, 1, depth=16), bitdepth=16), "has 16 bits a channel"),
    "16-bit RGB": (write_png(random_samples(40, 36, 3, depth=16), bitdepth=16), "has 16 bits a channel"),
    "alpha": (write_png(random_samples(40, 36, 4)), "has transparent pixels"),
    "tRNS": (write_png(random_samples(40, 36, 1, depth=1), transparent=0), "has transparent pixels"),
    "WebP": (b"RIFF\x24\0\0\0WEBPVP8 ", "is a WebP file"),
    "turned": (with_chunks(write_png(random_samples(40, 36, 3)), {b"eXIf": exif(8)}), (3, 36, 40)),
    "1 bit": (write_png(random_samples(40, 36, 1, depth=1), bitdepth=1), (3, 40, 36)),
    "a PNG called .JPEG": (write_png(random_samples(40, 36, 3)), (3, 40, 36)),
}


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "shards"])
def test_the_rule_of_a_folder_of_images_holds_in_streams(data_dir, tmp_path, caplog, packed):
    """Each kind is decoded to the same pixels, or refused for the same reason."""
    for number, (content, _) in enumerate(KINDS.values()):
        (data_dir / "imagenet/train" / WNIDS[0] / f"kind_{number}.JPEG").write_bytes(content)
    if packed:
        pack(data_dir, tmp_path / "packed")
    dataset = load_dataset("imagenet", data_dir=tmp_path / "packed" if packed else data_dir)
    stream = ImageStream(dataset.train)
    seen = dict(stream.read([torch.arange(len(dataset.train))], AsDecoded()))
    for number, (content, expected) in enumerate(KINDS.values()):
        name = f"{WNIDS[0]}/kind_{number}.JPEG"
        image = seen[dataset.train.names.index(name)]
        if isinstance(expected, str):
            assert image is None
            assert name in stream.unusable
            assert f"{name} is passed over: it {expected}" in caplog.text
        else:
            assert image.shape == expected
            alone = decode(content)
            assert torch.equal(image, alone.expand(3, *alone.shape[1:]))
    assert len(stream.unusable) == 5


class AsDecoded:
    """A view of an image as a whole."""

    def __call__(self, image, image_id):
        return image


# --- order --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_images", [1, BLOCK - 1, WINDOW, 2 * WINDOW + 3 * BLOCK + 5])
def test_an_epoch_has_every_image_once(num_images):
    order = epoch_order(num_images, torch.Generator().manual_seed(3))
    assert torch.equal(order.sort().values, torch.arange(num_images))
    assert torch.equal(order, epoch_order(num_images, torch.Generator().manual_seed(3)))


def test_a_window_needs_each_of_its_blocks_once_and_mixes_them():
    num_images = 3 * WINDOW
    order = epoch_order(num_images, torch.Generator().manual_seed(3))
    blocks = [set((window // BLOCK).tolist()) for window in order.split(WINDOW)]
    assert [len(found) for found in blocks] == [WINDOW // BLOCK] * 3
    assert not blocks[0] & blocks[1]
    first = order[:BLOCK] // BLOCK
    assert len(set(first.tolist())) > 20  # of 32, for a batch of 64
    other = epoch_order(num_images, torch.Generator().manual_seed(4))
    assert not torch.equal(order, other)


def test_requests_cover_a_window_and_know_their_places():
    window = torch.tensor([130, 3, 64, 1, 131])
    plan = plan_window(window)
    assert [ids for ids, _ in plan] == [(130, 131), (3, 1), (64,)]
    restored = torch.zeros(5, dtype=torch.int64)
    for ids, places in plan:
        restored[places] = torch.tensor(ids)
    assert torch.equal(restored, window)


def test_a_worker_s_images_are_cut_where_windows_end():
    places = torch.tensor([0, 5, WINDOW - 1, WINDOW, 3 * WINDOW])
    cut = split_windows(places + 7, places)
    assert [part.tolist() for part in cut] == [[7, 12, WINDOW + 6], [WINDOW + 7], [3 * WINDOW + 7]]
    assert split_windows(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)) == []


# --- what is seen of an image -------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(57, 43), (300, 20), (20, 300), (16, 16), (1, 1)])
def test_training_views_are_torchvision_s_from_the_image_s_own_generator(width, height):
    image = torch.randint(256, (3, height, width), dtype=torch.uint8)
    transform = v2.Compose([v2.RandomResizedCrop(24, antialias=True), v2.RandomHorizontalFlip()])
    view = TrainingView(77, Purpose.AUGMENTATION, size=24, flip=True)
    for image_id in range(40):
        torch.manual_seed(derive(77, Purpose.AUGMENTATION, image_id))
        expected = transform(image)
        torch.manual_seed(0)
        assert torch.equal(view(image, image_id), expected)


def test_without_flips_no_view_is_mirrored():
    image = torch.arange(60, dtype=torch.uint8).expand(3, 50, 60).contiguous()
    plain = TrainingView(77, Purpose.AUGMENTATION, size=24, flip=False)
    assert all((plain(image, number).float().diff(dim=2) >= 0).all() for number in range(20))


def test_views_differ_by_image_seed_and_purpose():
    image = torch.randint(256, (3, 50, 60), dtype=torch.uint8)
    seen = [
        TrainingView(seed, purpose, size=24, flip=True)(image, image_id)
        for seed, purpose, image_id in [
            (1, Purpose.AUGMENTATION, 1),
            (2, Purpose.AUGMENTATION, 1),
            (1, Purpose.AUGMENTATION, 2),
            (1, Purpose.TEACHER_AUGMENTATION, 1),
        ]
    ]
    assert len({view.numpy().tobytes() for view in seen}) == 4


def test_crops_lie_within_the_image():
    generator = torch.Generator().manual_seed(5)
    for _ in range(300):
        top, left, height, width = draw_crop(31, 47, generator)
        assert 0 <= top <= top + height <= 31
        assert 0 <= left <= left + width <= 47
        assert 0.5 < width / height < 2


def test_test_views_are_the_centre_of_the_resized_image():
    image = torch.randint(256, (3, 300, 400), dtype=torch.uint8)
    expected = v2.Compose([v2.Resize(256, antialias=True), v2.CenterCrop(224)])(image)
    assert torch.equal(TestView(224)(image, 0), expected)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_every_colour_space_becomes_rgb(mode):
    image = decode_rgb(jpeg(1, width=40, height=30, mode=mode))
    assert image.shape == (3, 30, 40)
    assert image.dtype == torch.uint8


@pytest.mark.parametrize(
    "content",
    [b"", b"text", jpeg(1, width=40, height=30)[:-40], jpeg(1, width=40, height=30)[:300]],
    ids=["empty", "text", "end missing", "half missing"],
)
def test_damage_is_seen(content):
    with pytest.raises(ImageError):
        decode_rgb(content)


# --- streams ------------------------------------------------------------------------------------------------


def test_images_do_not_depend_on_who_reads_them(data_dir):
    dataset = load_dataset("imagenet", data_dir=data_dir)
    ahead, one_by_one = read_all(dataset), read_all(dataset, carry=map)
    assert [number for number, _ in ahead] == [number for number, _ in one_by_one]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(ahead, one_by_one, strict=True))


def test_stopping_early_leaves_no_thread_at_work(data_dir):
    dataset = load_dataset("imagenet", data_dir=data_dir)
    images = ImageStream(dataset.train).read([torch.arange(90)], TestView(16))
    next(images)
    images.close()


def test_damaged_images_are_named_once_and_the_others_stay_as_they_were(data_dir, caplog):
    before = dict(read_all(load_dataset("imagenet", data_dir=data_dir)))
    names = damage(data_dir / "imagenet", 3, 40, 41)
    dataset = load_dataset("imagenet", data_dir=data_dir)
    stream = ImageStream(dataset.train)
    view = TrainingView(9, Purpose.AUGMENTATION, size=16, flip=True)
    for _ in range(2):
        found = dict(stream.read([torch.arange(90)], view))
    assert stream.unusable == set(names)
    assert len(caplog.records) == 3
    for number, name in enumerate(dataset.train.names):
        if name in names:
            assert found[number] is None
        else:
            assert torch.equal(found[number], before[number])


def test_a_damaged_image_is_replaced_by_the_next_whole_one(data_dir):
    dataset = load_dataset("imagenet", data_dir=data_dir)
    for number in (89, 0):
        (data_dir / "imagenet/train" / dataset.train.names[number]).write_bytes(b"")
    stream = ImageStream(dataset.train)
    number, image = stream.replace(89, TestView(16))
    assert number == 1
    ((_, expected),) = stream.read([torch.tensor([1])], TestView(16))
    assert torch.equal(image, expected)


def test_a_data_set_without_a_whole_image_is_refused(data_dir):
    for path in (data_dir / "imagenet/train").glob("*/*"):
        path.write_bytes(b"")
    stream = ImageStream(load_dataset("imagenet", data_dir=data_dir).train)
    with pytest.raises(DataError, match="images after it cannot be used; the last one is empty, or gone"):
        stream.replace(5, TestView(16))


def test_an_image_that_has_gone_counts_as_damaged(data_dir):
    dataset = load_dataset("imagenet", data_dir=data_dir)
    (data_dir / "imagenet/train" / dataset.train.names[7]).unlink()
    stream = ImageStream(dataset.train)
    assert dict(stream.read([torch.arange(90)], TestView(16)))[7] is None
    assert stream.unusable == {dataset.train.names[7]}


# --- shards -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("images_per_shard", [BLOCK, 2 * BLOCK])
def test_shards_give_the_same_images_as_the_folder(data_dir, tmp_path_factory, images_per_shard):
    packed = tmp_path_factory.mktemp("packed")
    damage(data_dir / "imagenet", 3, 40)
    pack(data_dir, packed, images_per_shard=images_per_shard)
    shutil.copytree(data_dir, packed / "original")
    shutil.rmtree(data_dir)
    folder = load_dataset("imagenet", data_dir=packed / "original")
    shards = load_dataset("imagenet", data_dir=packed)
    assert shards.packed
    assert not folder.packed
    assert shards.classes == folder.classes
    for ours, theirs in ((shards.train, folder.train), (shards.test, folder.test)):
        assert ours.names == theirs.names
        assert torch.equal(ours.labels, theirs.labels)
        assert torch.equal(ours.sizes, theirs.sizes)
    seen, expected = read_all(shards), read_all(folder)
    assert [number for number, _ in seen] == [number for number, _ in expected]
    for (_, image), (_, original) in zip(seen, expected, strict=True):
        assert (image is None) == (original is None)
        assert image is None or torch.equal(image, original)


def test_the_manifest_has_the_sums_of_every_file(data_dir, tmp_path):
    pack(data_dir, tmp_path / "packed")
    place = Place.below(tmp_path / "packed", "imagenet")
    files = {
        **read_manifest(place)["parts"]["train"]["files"],
        **read_manifest(place)["parts"]["val"]["files"],
    }
    assert set(files) == {path.name for path in Path(place.uri).iterdir()} - {"manifest.json"}
    assert dict(find_damage(place)) == dict.fromkeys(files, "")


def test_every_damaged_or_missing_shard_is_named(data_dir, tmp_path):
    pack(data_dir, tmp_path / "packed")
    place = Place.below(tmp_path / "packed", "imagenet")
    folder = Path(place.uri)
    content = bytearray((folder / "train-00000.parquet").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "train-00000.parquet").write_bytes(content)
    (folder / "train-00001.parquet").unlink()
    (folder / "val-00000.parquet").write_bytes((folder / "val-00000.parquet").read_bytes()[:-1])
    found = {file: problem for file, problem in find_damage(place) if problem}
    assert set(found) == {"train-00000.parquet", "train-00001.parquet", "val-00000.parquet"}
    assert "its SHA-256 is not the one that was written" in found["train-00000.parquet"]
    assert found["train-00001.parquet"].startswith("cannot read")
    assert found["val-00000.parquet"].endswith(" were written")


def test_a_place_that_holds_shards_is_not_packed_over(data_dir, tmp_path):
    pack(data_dir, tmp_path / "packed")
    with pytest.raises(DataError, match="holds shards already"):
        pack(data_dir, tmp_path / "packed")


def test_an_unfinished_packing_is_no_data_set(data_dir, tmp_path, monkeypatch):
    dataset = load_dataset("imagenet", data_dir=data_dir)
    (data_dir / "imagenet/train" / dataset.train.names[70]).write_bytes(b"changed")
    with pytest.raises(DataError, match=rf"{dataset.train.names[70]}: changed while it was packed"):
        write_shards(dataset, Place.below(tmp_path / "packed", "imagenet"), images_per_shard=BLOCK)
    with pytest.raises(DataError, match="cannot be listed"):
        load_dataset("imagenet", data_dir=tmp_path / "packed")


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("manifest.json", b"{", r"manifest\.json: is damaged"),
        ("manifest.json", b'{"format": 1}', r"manifest\.json: is damaged"),
        ("manifest.json", b'{"format": 2}', r"format 2, this hkrun reads 1"),
        ("train-index.parquet", b"PAR1", r"train-index\.parquet: is damaged"),
    ],
)
def test_a_damaged_manifest_or_index_is_named(data_dir, tmp_path, file, content, problem):
    pack(data_dir, tmp_path / "packed")
    (tmp_path / "packed/imagenet" / file).write_bytes(content)
    with pytest.raises(DataError, match=problem):
        load_dataset("imagenet", data_dir=tmp_path / "packed")


def test_a_damaged_row_group_is_an_error_of_the_place_not_of_an_image(data_dir, tmp_path):
    pack(data_dir, tmp_path / "packed")
    dataset = load_dataset("imagenet", data_dir=tmp_path / "packed")
    (tmp_path / "packed/imagenet/train-00001.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"train-00001\.parquet"):
        read_all(dataset)


def test_a_uri_names_a_place_too(data_dir, tmp_path):
    pack(data_dir, tmp_path / "packed")
    by_path = load_dataset("imagenet", data_dir=tmp_path / "packed")
    by_uri = load_dataset("imagenet", data_dir=f"file://{tmp_path}/packed")
    assert by_uri.train.names == by_path.train.names
    assert by_uri.train.reader.read([5]) == by_path.train.reader.read([5])


@pytest.mark.parametrize(
    ("uri", "place", "shown"),
    [
        ("s3://bucket/a", "s3://bucket/a/imagenet", "s3://bucket/a/imagenet"),
        ("s3://bucket/a/?region=x", "s3://bucket/a/imagenet?region=x", "s3://bucket/a/imagenet"),
        ("s3://key:secret@bucket", "s3://key:secret@bucket/imagenet", "s3://bucket/imagenet"),
        ("s3://key:se/cret@bucket", "s3://key:se/cret@bucket/imagenet", "s3://bucket/imagenet"),
    ],
)
def test_a_uri_keeps_its_query_and_messages_keep_its_password(uri, place, shown):
    assert Place.below(uri, "imagenet").uri == place
    assert str(Place.below(uri, "imagenet")) == shown


def test_a_uri_of_no_known_kind_is_refused_in_one_line():
    with pytest.raises(DataError, match=r"cannot open nowhere://there/imagenet") as caught:
        load_dataset("imagenet", data_dir="nowhere://there")
    assert len(caught.value.problems) == 1


def test_a_folder_at_a_uri_must_be_packed_first(tmp_path):
    with pytest.raises(DataError, match=r"holds no shards; `hkrun data pack` makes them"):
        load_dataset("imagenet", data_dir=f"file://{tmp_path}")


def test_other_data_sets_must_lie_in_a_directory():
    with pytest.raises(DataError) as caught:
        load_dataset("cifar10", data_dir="s3://key:se/cret@bucket/data")
    problem = "cifar10: its files must lie in a local directory; --data is s3://bucket/data"
    assert caught.value.problems == [problem]
