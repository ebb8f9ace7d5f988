"""The verbs `data pack` and `data verify`: from folders of images to shards, and whether all is whole."""

from collections.abc import Iterator
from pathlib import Path

import click

from hkrun.cli.invocation import Invocation
from hkrun.cli.verbs import verb
from hkrun.config import keys
from hkrun.errors import EXIT_DATA, EXIT_DONE, DataError, InputError
from hkrun.redaction import redact


@verb(
    "data pack",
    purpose="Find your way",
    examples=(
        ("hkrun data pack --data ~/data --to ~/packed", "~/data/imagenet/{train,val} to ~/packed/imagenet"),
        ("hkrun data pack --data ~/data --to s3://bucket/data", "to an object store"),
    ),
)
@click.option("--to", "target", metavar="DIR|URI", required=True, help="Where the folder imagenet goes.")
def pack(invocation: Invocation, *, target: str) -> int:
    """Pack ImageNet's folders into Parquet shards, for `--data` of other verbs.

    The shards hold the same bytes in the same order as the folders have for hkrun: a run on them is the same
    run. Each has its SHA-256 in manifest.json, which is written last. Nothing is decoded: `hkrun data verify`
    names damaged images, before or after.
    """
    from hkrun.data.imagenet import load_imagenet
    from hkrun.data.places import Place
    from hkrun.data.shards import write_shards

    dataset = load_imagenet(data_dir=invocation.data_dir)
    if dataset.packed:
        given = redact(str(invocation.data_dir))
        raise InputError(f"--data {given}: holds shards; name the folders that they were made of")
    place = Place.below(target, "imagenet")
    manifest = write_shards(
        dataset,
        place,
        on_file=lambda file, images: invocation.messages.print(
            f"{file}: {images} images" if images else file
        ),
    )
    parts = manifest["parts"]
    num_files = sum(len(part["files"]) for part in parts.values())
    num_bytes = sum(file["bytes"] for part in parts.values() for file in part["files"].values())
    if invocation.as_json:
        images = {part: content["images"] for part, content in parts.items()}
        invocation.print_document(
            {"place": str(place), "images": images, "files": num_files, "bytes": num_bytes}
        )
    invocation.say(
        f"{parts['train']['images']} training and {parts['val']['images']} validation images in {num_files} "
        f"files, {num_bytes / 2**20:.1f} MiB, at {place}; use them with --data {redact(target)}"
    )
    return EXIT_DONE


@verb(
    "data verify",
    purpose="Find your way",
    examples=(
        ("hkrun data verify imagenet --data ~/data", "decode every image, or check every shard too"),
        ("hkrun data verify cifar10 --data ~/data --json", "the official checksums; for a script"),
    ),
)
@click.argument("dataset", metavar="DATASET")
def verify(invocation: Invocation, *, dataset: str) -> int:
    """Read a data set whole, and name what is missing or damaged; exit code 3 if anything is.

    imagenet: every image is decoded, and of shards the SHA-256 is compared. cifar10, cifar100: the official
    MD5 sums. folder: every image is read as for a run. Nothing is downloaded.
    """
    known = keys()["dataset"][2].choices
    if dataset not in known:
        raise InputError(f"{dataset!r} is no data set that can be verified; one of {', '.join(known)}")
    problems = list(_find_problems(dataset, invocation.data_dir))
    if invocation.as_json:
        invocation.print_document({"dataset": dataset, "problems": problems})
    for problem in problems:
        invocation.say(problem)
    invocation.say(f"{dataset}: {len(problems)} problems" if problems else f"{dataset}: whole")
    return EXIT_DATA if problems else EXIT_DONE


def _find_problems(name: str, data_dir: Path | str | None) -> Iterator[str]:
    """What is wrong, a line each."""
    from hkrun.data import StreamedDataset, load_dataset
    from hkrun.data.places import Place
    from hkrun.data.shards import find_damage
    from hkrun.data.streams import find_damaged_images

    try:
        dataset = load_dataset(name, data_dir=data_dir, download=False)
    except DataError as error:
        yield from error.problems
        return
    if not isinstance(dataset, StreamedDataset):
        return  # its loading has read and checked all
    if dataset.packed:
        assert data_dir is not None
        damaged = [problem for _, problem in find_damage(Place.below(data_dir, "imagenet")) if problem]
        yield from damaged
        if damaged:
            return  # what they hold cannot be told apart from what they should
    for part, split in (("train", dataset.train), ("val", dataset.test)):
        for image in find_damaged_images(split):
            yield f"{part}/{image}: cannot be decoded"
