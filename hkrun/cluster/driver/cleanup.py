"""Removes what is left of a Ray cluster when its command is gone. A program of its own.

`python cleanup.py NAME FOLDER` waits for the end of its stdin, which the kernel closes with the command. Then
it kills every process that has HKRUN_CLUSTER=NAME in its environment, or is Ray's and writes into the folder,
and removes the folder. Most of Ray's processes end with their driver, but its agents outlive a killed one by
a minute, and its sockets and logs stay.
"""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

VARIABLE = "HKRUN_CLUSTER"
ROUNDS = 20
PAUSE_S = 0.1


def find_processes(name: str, folder: Path) -> list[int]:
    """The ids of the processes that belong to a cluster.

    The environment alone does not tell: Ray's agents write their title over the beginning of it. `name` is
    the value of HKRUN_CLUSTER; the folder is without symbolic links. A process that only reads there does not
    belong to it.
    """
    entry = f"{VARIABLE}={name}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if entry in (process / "environ").read_bytes().split(b"\0") or is_rays(process, folder):
                found.append(int(process.name))
        except OSError:
            continue
    return found


def is_rays(process: Path, folder: Path) -> bool:
    """Whether a process has a title of Ray's and a file of the folder open to write.

    The process is given by its folder in /proc; the cluster's folder is without symbolic links.

    Raises:
        OSError: It has ended, or is another user's.
    """
    if not (process / "cmdline").read_bytes().startswith(b"ray::"):
        return False
    for file in (process / "fd").iterdir():
        try:
            if file.readlink().is_relative_to(folder):
                flags = (process / "fdinfo" / file.name).read_text().split("flags:")[1].split()[0]
                if int(flags, 8) & os.O_ACCMODE != os.O_RDONLY:
                    return True
        except FileNotFoundError:
            continue  # it was closed meanwhile
    return False


def clear_away(name: str, folder: Path) -> None:
    """Kills what belongs to a cluster until nothing is left, and removes its folder."""
    for _ in range(ROUNDS):
        processes = find_processes(name, folder.resolve())
        if not processes:
            break
        for process in processes:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(PAUSE_S)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.stdin.buffer.read()
    clear_away(sys.argv[1], Path(sys.argv[2]))
