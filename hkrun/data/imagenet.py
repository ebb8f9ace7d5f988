"""`imagenet`: the images of ILSVRC 2012 as they are unpacked, or any others in that layout.

    DIR/imagenet/train/<wnid>/*.JPEG
    DIR/imagenet/val/<wnid>/*.JPEG          or, as the archive of the validation images unpacks:
    DIR/imagenet/val/*.JPEG                 with DIR/imagenet/ILSVRC2012_devkit_t12/data/ beside it

Labels follow the sorted names of train's folders, as torchvision's weights need it. Where DIR/imagenet holds
shards of `hkrun data pack`, those are read instead. Images are decoded when they are needed, so one that
cannot be used is found then, or by `hkrun data verify`. Other files, nested folders and hidden names are
passed over; the data set's notes say so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from hkrun.data.encoded import EncodedSplit, StreamedDataset, content_sha256, fixed_order
from hkrun.data.listing import File, PassedOver, check_classes, list_classes, list_entries
from hkrun.data.shards import Place, is_packed, read_shards
from hkrun.errors import DataError

FOLDER = "imagenet"
PARTS = ("train", "val")
DEVKIT = "ILSVRC2012_devkit_t12/data"
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_LAYOUT = (
    "wanted are DIR/imagenet/train/<wnid>/*.JPEG and DIR/imagenet/val/<wnid>/*.JPEG, "
    "or the shards that `hkrun data pack` makes of them"
)


@dataclass(frozen=True)
class FolderReader:
    """Reads the images of one part from their files.

    Attributes:
        paths: Path of each image below the folder, by position.
    """

    folder: str
    paths: tuple[str, ...]

    def read(self, image_ids: Sequence[int]) -> list[bytes]:
        """See `Reader`."""
        return [self._read(self.paths[image_id]) for image_id in image_ids]

    def _read(self, path: str) -> bytes:
        try:
            return Path(self.folder, path).read_bytes()
        except OSError:
            return b""  # one image; that the folder is there was seen when it was listed


def load_imagenet(*, data_dir: Path | str | None) -> StreamedDataset:
    """Finds the images below a directory or URI; none is read yet.

    Raises:
        DataError: There are none, or the layout is not as above.
    """
    if data_dir is None:
        raise DataError(f"imagenet: name the place of the images with --data DIR; {_LAYOUT}")
    place = Place.below(data_dir, FOLDER)
    if is_packed(place):
        return read_shards(place)
    if "://" in place.uri:
        raise DataError(
            f"imagenet: {place} holds no shards; `hkrun data pack` makes them of a folder: {_LAYOUT}"
        )
    return read_folder(Path(place.uri))


def read_folder(root: Path) -> StreamedDataset:
    """Lists the images of a directory in ILSVRC's layout.

    Raises:
        DataError: The layout is not as above.
    """
    passed = PassedOver(root)
    folders, beside = {}, {}
    for part in PARTS:
        folders[part], beside[part] = list_entries(root / part, passed, layout=_LAYOUT)
    paths: dict[str, str] = {}
    if beside["val"] and not folders["val"]:
        val = _sort_flat(root, beside.pop("val"))
        folders["val"] = sorted(val)
        paths = {f"{wnid}/{name}": name for wnid, files in val.items() for name, _ in files}
        problems = check_classes(root, folders, layout=_LAYOUT)
    else:
        problems = check_classes(root, folders, layout=_LAYOUT)
        val, empty = list_classes(root / "val", folders["val"], passed)
        problems += empty
    train, empty = list_classes(root / "train", folders["train"], passed)
    if problems := [*problems, *empty]:
        raise DataError("\n".join(problems))
    for part, files in beside.items():
        for name, _ in files:
            passed.add("image(s) outside class folders", root / part / name)
    labels = {name: label for label, name in enumerate(train)}
    return StreamedDataset(
        name="imagenet",
        train=_make_split(root / "train", "train", train, labels, {}),
        test=_make_split(root / "val", "val", val, labels, paths),
        classes=tuple(train),
        packed=False,
        notes=passed.describe(),
    )


def fingerprint_imagenet(*, data_dir: Path | str | None) -> str:
    """The content as `content_sha256` sees it: the same for a folder and the shards made of it.

    Raises:
        DataError: There are no images.
    """
    dataset = load_imagenet(data_dir=data_dir)
    return content_sha256(dataset.classes, (("train", dataset.train), ("val", dataset.test)))


def _make_split(
    folder: Path, part: str, files: dict[str, list[File]], labels: dict[str, int], paths: dict[str, str]
) -> EncodedSplit:
    rows = [(f"{wnid}/{name}", labels[wnid], size) for wnid, found in files.items() for name, size in found]
    order = fixed_order([name for name, _, _ in rows], part=part)
    names = tuple(rows[index][0] for index in order)
    return EncodedSplit(
        names=names,
        labels=torch.tensor([rows[index][1] for index in order]),
        sizes=torch.tensor([rows[index][2] for index in order]),
        reader=FolderReader(str(folder), tuple(paths.get(name, name) for name in names)),
    )


def _sort_flat(root: Path, files: Sequence[File]) -> dict[str, list[File]]:
    """The flat validation images by class, as the development kit says.

    Line k of the ground truth is the ILSVRC2012_ID of the k-th image by name; meta.mat has each ID's wnid.
    """
    from scipy.io import loadmat

    devkit = root / DEVKIT
    try:
        numbers = [int(line) for line in (devkit / GROUND_TRUTH).read_text().split()]
        synsets = loadmat(str(devkit / "meta.mat"), squeeze_me=True)["synsets"]
        wnids = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}
        in_order = sorted(files)
        by_class: dict[str, list[File]] = {}
        for file, number in zip(in_order, numbers, strict=True):
            by_class.setdefault(wnids[number], []).append(file)
    except (OSError, ValueError, KeyError, TypeError, IndexError, NotImplementedError) as error:
        raise DataError(
            f"{root / 'val'}: its images lie in no class folders, and {devkit} does not tell their classes: "
            f"{type(error).__name__}: {' '.join(str(error).split())}"
        ) from error
    return by_class
