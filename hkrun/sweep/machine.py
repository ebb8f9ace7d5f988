"""What a sweep asks of the machine that it runs on: threads, a device, slots, a place for logs."""

import tempfile
from pathlib import Path

from hkrun.store import Store

# One thread per process, whatever the machine: as many runs as cores use them better than threads would, and
# the number of threads decides the last bits of a result.
THREADS = 1


def find_device() -> str:
    """The device: "cuda" where there is a GPU, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def find_slots(workers: int, log_folder: Path) -> int:
    """How many runs fit at a time.

    Raises:
        ResourceError: Not one.
    """
    from hkrun.cluster import Request, find_slots

    return find_slots(Request(workers=workers, threads=THREADS, device=find_device()), log_folder=log_folder)


def log_folder_of(store: Store | None) -> Path:
    """Logs are files of this machine: beside the records where those are too."""
    if store is not None and store.local_path is not None:
        return store.local_path / "logs"
    return Path(tempfile.gettempdir()) / "hkrun-logs"
