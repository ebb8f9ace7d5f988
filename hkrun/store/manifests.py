"""What a folder's manifest says, and which names may stand in it."""

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import NamedTuple

from hkrun.errors import StoreError

MANIFEST = "manifest.json"


class DamagedError(StoreError):
    """A committed file is missing, or its content is not what its manifest says."""


class NotCommittedError(StoreError):
    """No such file is committed, and perhaps none is anywhere in its folder."""


class Sum(NamedTuple):
    """SHA-256 and bytes of a file's content, and the name that it lies under where that is not its own."""

    sha256: str
    size: int
    stored_as: str = ""


Manifest = dict[str, Sum]


def check_name(name: str) -> str:
    """Returns a name that stands for one entry of one folder.

    Raises:
        StoreError: It could lead out of its folder, or hide in it.
    """
    if not name or name.startswith(".") or "/" in name or "\\" in name or not name.isprintable():
        raise StoreError(
            f"{name!r} is no name for the store: it is empty, starts with '.', or holds a separator"
        )
    return name


def check_folder(folder: str) -> str:
    """Returns a path of a folder within the store: names joined by '/'.

    Raises:
        StoreError: A part of it is no name.
    """
    for part in folder.split("/"):
        check_name(part)
    return folder


def sum_of(content: bytes) -> Sum:
    """What a manifest says of a content that lies under its own name."""
    return Sum(hashlib.sha256(content).hexdigest(), len(content))


def describe(known: Sum) -> str:
    """A content in words."""
    return f"SHA-256 {known.sha256[:12]} and {known.size} bytes"


def stored_names(manifest: Manifest) -> set[str]:
    """The names under which the files of a manifest lie."""
    return {known.stored_as or name for name, known in manifest.items()}


def kept_of(before: Manifest, keep: Collection[str] | None, replaced: Collection[str]) -> Manifest:
    """What stays of a manifest: the names to keep, None for all, that get no new content."""
    return {
        name: known
        for name, known in before.items()
        if (keep is None or name in keep) and name not in replaced
    }


def to_json(manifest: Manifest, **notes: str) -> bytes:
    """A manifest as its file; notes tell two manifests apart."""
    listed: Mapping[str, Mapping[str, object]] = {
        name: {key: value for key, value in known._asdict().items() if value or key != "stored_as"}
        for name, known in sorted(manifest.items())
    }
    return json.dumps({"files": listed, **notes}, indent=1).encode()


def from_json(text: bytes) -> Manifest:
    """The inverse of `to_json`.

    Raises:
        ValueError: It is no manifest, or a name in it leads elsewhere.
    """
    try:
        return {
            check_name(name): Sum(
                str(known["sha256"]),
                int(known["size"]),
                check_name(known["stored_as"]) if "stored_as" in known else "",
            )
            for name, known in json.loads(text)["files"].items()
        }
    except (KeyError, TypeError, AttributeError, StoreError) as error:
        raise ValueError(str(error)) from error
