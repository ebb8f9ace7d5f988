"""Results of other code, kept beside those that took their place: `earlier/<digest>/` in a run's folder."""

import logging

from hkrun.digests import short_digest
from hkrun.records import TrainingRecord
from hkrun.store.transactions import CommittedFolders, DamagedError

EARLIER = "earlier"

log = logging.getLogger("hkrun")


def stands(
    folders: CommittedFolders, folder: str, *, standing: TrainingRecord | None, new: TrainingRecord
) -> bool:
    """Whether a result in a folder stays where there is a new one; else it is copied, to be kept.

    The copy is whole or not there, and made twice it is the same. What is damaged is not copied.
    """
    if standing is None:
        return False
    if standing.code.same_numbers(new.code):
        return True
    try:
        manifest = folders.manifest(folder) or {}
        files = {name: folders.read(folder, name) for name in manifest}
    except DamagedError as error:
        log.warning("not kept beside the new one: %s", error.message)
        return False
    sums = "\n".join(f"{name} {known.sha256}" for name, known in sorted(manifest.items()))
    folders.commit(f"{folder}/{EARLIER}/{short_digest(sums)}", files)
    return False
