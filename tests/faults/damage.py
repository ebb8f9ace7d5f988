"""What can happen to a file on a disk."""

from pathlib import Path


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def flip_everywhere(path: Path) -> None:
    """A bit of every row of a table, whichever of them will be read."""
    content = bytearray(path.read_bytes())
    content[::16] = bytes(byte ^ 1 for byte in content[::16])
    path.write_bytes(content)
