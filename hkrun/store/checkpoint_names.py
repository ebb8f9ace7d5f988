"""How the files of checkpoints are named: by the epochs completed."""

import re

_NAME = re.compile(r"epoch-(\d+)\.pt")


def checkpoint_name(epoch: int) -> str:
    """The file name of the checkpoint after an epoch."""
    return f"epoch-{epoch:06d}.pt"


def read_epoch(name: str) -> int | None:
    """The epoch of the checkpoint that a file name stands for; None if it stands for none."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None
