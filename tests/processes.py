"""Processes of a sweep, a server or a cluster under test: what they inherit, and which they are by now."""

import contextlib
import os
from pathlib import Path

from hkrun.cluster.driver.cleanup import is_rays


def inherited_environment() -> dict[str, str]:
    """This process's environment without settings of hkrun's, Ray's, MLflow's and clients' of S3."""
    strange = ("AWS_", "HKRUN_", "MLFLOW_", "RAY_")
    return {name: value for name, value in os.environ.items() if not name.startswith(strange)}


def find_processes(mark: str, folder: Path) -> list[Path]:
    """The folders in /proc of processes that have a mark in their environment, or are Ray's and write there.

    Ray's agents write their title over the beginning of their environment, with the mark if it stands there.
    """
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_marked = mark.encode() in (process / "environ").read_bytes()
            if is_marked or is_rays(process, folder):
                found.append(process)
        except OSError:
            continue  # it has ended
    return found


def find_mlflow_servers(folder: Path) -> list[int]:
    """The processes of `mlflow server` on a store, which have its database in their environment."""
    database = f"MLFLOW_BACKEND_STORE_URI=sqlite:///{folder}/".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if database in (process / "environ").read_bytes():
                found.append(int(process.name))
    return found
