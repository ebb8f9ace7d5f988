"""Results of other code, kept beside those that took their place: `earlier/<digest>/` in a run's folder."""

import logging
from collections.abc import Callable
from typing import TypeVar

from hkrun.code_identity import Code
from hkrun.digests import short_digest
from hkrun.records import TrainingRecord
from hkrun.store.transactions import CommittedFolders, DamagedError, NotCommittedError

EARLIER = "earlier"
_RECORD = "record.json"

log = logging.getLogger("hkrun")
R = TypeVar("R", bound=TrainingRecord)


def stands(
    folders: CommittedFolders, folder: str, *, standing: TrainingRecord | None, new: TrainingRecord
) -> bool:
    """Whether a result in a folder stays where there is a new one; else it is copied, to be kept."""
    if standing is None:
        return False
    if standing.code.same_numbers(new.code):
        return True
    _keep(folders, folder)
    return False


def _keep(folders: CommittedFolders, folder: str) -> str:
    """Copies the result in a folder beside it; the name of the copy, empty where it is damaged.

    The copy is whole or not there, and made twice it is the same.
    """
    try:
        manifest = folders.manifest(folder) or {}
        files = {name: folders.read(folder, name) for name in manifest}
    except DamagedError as error:
        log.warning("not kept beside the new one: %s", error.message)
        return ""
    sums = "\n".join(f"{name} {known.sha256}" for name, known in sorted(manifest.items()))
    name = short_digest(sums)
    folders.commit(f"{folder}/{EARLIER}/{name}", files)
    return name


def read_earlier(folders: CommittedFolders, folder: str, parse: Callable[[bytes], R]) -> list[tuple[str, R]]:
    """The results that are kept beside one, by the time that they began: the name of each, and its record.

    A copy that a kill left unfinished is none; one that is damaged is left out, and the log names it.
    """
    found: list[tuple[str, R]] = []
    for name in folders.folders(f"{folder}/{EARLIER}"):
        try:
            found.append((name, parse(folders.read(f"{folder}/{EARLIER}/{name}", _RECORD))))
        except NotCommittedError:
            continue
        except DamagedError as error:
            log.warning("passed over: %s", error.message)
    return sorted(found, key=lambda each: each[1].started_at)


def find_own(
    folders: CommittedFolders, folder: str, parse: Callable[[bytes], R], *, code: Code
) -> tuple[str, R] | None:
    """The newest result beside a folder's own that has the numbers of a code; None where none has."""
    found = [each for each in read_earlier(folders, folder, parse) if each[1].code.same_numbers(code)]
    return found[-1] if found else None


def bring_back(
    folders: CommittedFolders, folder: str, name: str, *, standing: TrainingRecord | None, code: Code
) -> None:
    """Makes an earlier result that of its folder again, and keeps the one of other code that stands there.

    That one is copied first, and the earlier one's place is given up last: at every moment each of the two is
    whole in one place at least, and after a kill the same call does the rest.

    Raises:
        DamagedError: A file of the earlier result is damaged. Nothing has changed.
        StoreError: The place cannot be written.
    """
    source = f"{folder}/{EARLIER}/{name}"
    files = {each: folders.read(source, each) for each in folders.names(source)}
    if standing is None or not standing.code.same_numbers(code):
        if standing is not None:
            _keep(folders, folder)
        folders.commit(folder, files, tidy=True)
    folders.delete(source)
