"""The verbs `data pack` and `data verify`: from folders of images to shards, and whether all is whole."""

import click

from hkrun.cli import candidates
from hkrun.cli.invocation import Invocation
from hkrun.cli.verbs import verb
from hkrun.config import keys
from hkrun.counting import count
from hkrun.errors import EXIT_DATA, EXIT_DONE, InputError
from hkrun.redaction import redact
from hkrun.uris import describe_slip
from hkrun.user_parts import is_own


@verb(
    "data pack",
    purpose="Find your way",
    examples=(
        ("hkrun data pack --data ~/data --to ~/packed", "~/data/imagenet/{train,val} to ~/packed/imagenet"),
        ("hkrun data pack --data ~/data --to s3://bucket/data", "to an object store"),
    ),
)
@click.option(
    "--to",
    "target",
    metavar="DIR|URI",
    required=True,
    shell_complete=candidates.paths("dir"),
    help="Where the folder imagenet goes.",
)
def pack(invocation: Invocation, *, target: str) -> int:
    """Pack ImageNet's folders into Parquet shards, for `--data` of other verbs.

    The shards hold the same bytes in the same order as the folders have for hkrun: a run on them is the same
    run. Each has its SHA-256 in manifest.json, which is written last. Nothing is decoded: `hkrun data verify`
    names images that cannot be used, before or after.
    """
    from hkrun.data.imagenet import FOLDER, load_imagenet
    from hkrun.data.shards import Place, write_shards

    if slip := describe_slip(target):
        raise InputError(f"--to: {slip}")
    dataset = load_imagenet(data_dir=invocation.data_dir)
    if dataset.packed:
        given = redact(str(invocation.data_dir))
        raise InputError(f"--data {given}: holds shards; name the folders that they were made of")
    for note in dataset.notes:
        invocation.messages.print(note, markup=False)
    place = Place.below(target, FOLDER)
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
@click.argument("dataset", metavar="DATASET", shell_complete=candidates.datasets)
def verify(invocation: Invocation, *, dataset: str) -> int:
    """Read a data set whole, and name what is missing or cannot be used; exit code 3 if anything is.

    imagenet, folder: every image is decoded as for a run, and of shards the SHA-256 is compared; notes tell
    which files are passed over, which images are turned, and which are in both parts. cifar10, cifar100: the
    official MD5 sums. One of your own, package.module:name: what is checked before it is trained on. Nothing
    is downloaded.
    """
    from hkrun.data.verification import verify_dataset

    known = keys()["dataset"][2].choices
    if dataset not in known and not is_own(dataset):
        raise InputError(f"{dataset!r} is no data set that can be verified; one of {', '.join(known)}")
    problems, notes = verify_dataset(dataset, data_dir=invocation.data_dir)
    if invocation.as_json:
        invocation.print_document({"dataset": dataset, "problems": problems, "notes": notes})
    for line in (*problems, *notes):
        invocation.say(line)
    invocation.say(f"{dataset}: {count(len(problems), 'problem')}" if problems else f"{dataset}: whole")
    return EXIT_DATA if problems else EXIT_DONE
