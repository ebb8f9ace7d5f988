"""The verb `doctor`: whether this machine is ready, and what to do where it is not."""

import importlib.metadata
import os
import platform
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from hkrun.cli.invocation import Invocation
from hkrun.cli.verbs import verb
from hkrun.config import keys
from hkrun.datasets import find_dataset
from hkrun.errors import EXIT_DATA, EXIT_DONE, EXIT_RESOURCES, EXIT_STORE, DataError, StoreError
from hkrun.redaction import redact

_OLDEST_PYTHON = (3, 11)
_MIN_MEMORY_GIB = 2.0  # one trial with torch and Ray
_MIN_FREE_GIB = 2.0  # a sweep of eighty runs on digits keeps well under one


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the doctor's.

    Attributes:
        name: What was looked at.
        state: "ok", "warn" (works, with a limit) or "fail" (something will not work).
        detail: What was found.
        advice: What to do; empty where nothing is.
        exit_code: What a failure makes of the command.
    """

    name: str
    state: Literal["ok", "warn", "fail"]
    detail: str
    advice: str = ""
    exit_code: int = EXIT_DONE


@verb(
    "doctor",
    purpose="Find your way",
    examples=(
        ("hkrun doctor", "look at this machine and ./hkrun-store"),
        ("hkrun doctor --store s3://bucket/study --data ~/data", "at what a study will use"),
    ),
)
def doctor(invocation: Invocation) -> int:
    """Check this machine, and say what to do where it is not ready.

    Looks at Python, PyTorch and its devices, cores and memory, Ray, MLflow, the store and the data sets.
    Exits with 0 when nothing failed, else with the exit code of the worst failure.
    """
    checks = list(_checks(invocation))
    code = max(check.exit_code for check in checks)
    if invocation.as_json:
        invocation.print_document({"checks": [asdict(check) for check in checks], "exit_code": code})
        return code
    from rich.table import Table
    from rich.text import Text

    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    table = Table(box=None, show_header=False, pad_edge=False)
    for check in checks:
        found = Text.assemble(check.detail, (f"\n{check.advice}" if check.advice else "", "bold"))
        table.add_row(Text(check.state, colours[check.state]), check.name, found)
    invocation.results.print(table)
    return code


def _checks(invocation: Invocation) -> Iterator[Check]:
    yield _check_python()
    yield from _check_torch()
    yield from _check_machine()
    for package, why in (("ray", "sweeps run through it"), ("mlflow", "runs are shown in it")):
        yield _check_package(package, why)
    yield _check_token()
    yield _check_store(invocation)
    for name in keys()["dataset"][2].choices:
        yield _check_dataset(name, invocation)


def _check_python() -> Check:
    version = platform.python_version()
    if sys.version_info < _OLDEST_PYTHON:
        return Check(
            name="Python",
            state="fail",
            detail=version,
            advice="hkrun needs Python 3.11 or newer",
            exit_code=EXIT_RESOURCES,
        )
    return Check(name="Python", state="ok", detail=f"{version}, hkrun {importlib.metadata.version('hkrun')}")


def _check_torch() -> Iterator[Check]:
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a shared library that does not load
        yield Check(
            name="PyTorch",
            state="fail",
            detail=f"cannot be imported: {error}",
            advice="install it again: make setup, or pip install --force-reinstall torch",
            exit_code=EXIT_RESOURCES,
        )
        return
    yield Check(name="PyTorch", state="ok", detail=torch.__version__)
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        yield Check(name="Devices", state="ok", detail=names)
    else:
        detail = "CPU only: enough for digits and mnist5k; CIFAR at the paper's size needs a GPU"
        yield Check(name="Devices", state="ok", detail=detail)


def _check_machine() -> Iterator[Check]:
    from hkrun.cluster.nodes.resources import local_node

    node = local_node(gpus=False)
    yield Check(name="CPU cores", state="ok", detail=f"{node.cpus} that this process may use")
    memory_gib = node.memory_bytes / 2**30
    if memory_gib < _MIN_MEMORY_GIB:
        yield Check(
            name="Memory",
            state="fail",
            detail=f"{memory_gib:.1f} GiB",
            advice=f"a trial with Ray needs about {_MIN_MEMORY_GIB:g} GiB",
            exit_code=EXIT_RESOURCES,
        )
    else:
        yield Check(name="Memory", state="ok", detail=f"{memory_gib:.1f} GiB")


def _check_package(package: str, why: str) -> Check:
    name = {"ray": "Ray", "mlflow": "MLflow"}[package]
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return Check(
            name=name,
            state="fail",
            detail=f"not installed; {why}",
            advice="make setup, or pip install hkrun again",
            exit_code=EXIT_RESOURCES,
        )
    from packaging.requirements import Requirement  # brought by Ray and MLflow

    for wanted in map(Requirement, importlib.metadata.requires("hkrun") or ()):
        if wanted.name == package and wanted.marker is None and version not in wanted.specifier:
            return Check(
                name=name,
                state="warn",
                detail=f"{version}; hkrun was tested with {wanted.name}{wanted.specifier}",
                advice=f"pip install '{wanted.name}{wanted.specifier}'",
            )
    return Check(name=name, state="ok", detail=version)


def _check_token() -> Check:
    """Whether others can read the token with which Ray's clusters let their user in."""
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if os.environ.get("RAY_AUTH_TOKEN"):
        return Check(name="Ray token", state="ok", detail="from RAY_AUTH_TOKEN")
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return Check(name="Ray token", state="ok", detail="none yet; the first sweep makes one")
    if mode & 0o077:
        return Check(
            name="Ray token",
            state="warn",
            detail=f"{path} can be read by others (mode {mode:04o})",
            advice=f"chmod 600 {path}",
        )
    return Check(name="Ray token", state="ok", detail=f"{path}, for your eyes only")


def _check_store(invocation: Invocation) -> Check:
    name = "Store"
    try:
        store = invocation.find_store()
    except StoreError as error:
        advice = "name another with --store or HKRUN_STORE"
        return Check(name=name, state="fail", detail=error.message, advice=advice, exit_code=EXIT_STORE)
    if store is not None and store.local_path is None:
        return Check(name=name, state="ok", detail=f"{store.place}, reachable")
    if "://" in invocation.store_uri and store is None:
        detail = f"{redact(invocation.store_uri)}, which the first sweep makes"
        return Check(name=name, state="ok", detail=detail)
    place = Path(invocation.store_uri).expanduser().absolute()
    existing = next(folder for folder in (place, *place.parents) if folder.exists())
    what = str(place) if store is not None else f"{place}, which the first sweep makes"
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        return Check(
            name=name,
            state="fail",
            detail=f"{existing} cannot be written: {error.strerror}",
            advice="change its permissions, or name another with --store or HKRUN_STORE",
            exit_code=EXIT_STORE,
        )
    free_gib = shutil.disk_usage(existing).free / 2**30
    if free_gib < _MIN_FREE_GIB:
        return Check(
            name=name,
            state="warn",
            detail=f"{what}; only {free_gib:.1f} GiB are free",
            advice="free some space, or name another disk with --store",
        )
    return Check(name=name, state="ok", detail=f"{what}; {free_gib:.0f} GiB free")


def _check_dataset(name: str, invocation: Invocation) -> Check:
    """Whether a data set could be loaded now, with what is on this machine."""
    from hkrun.data import load_dataset

    label = f"Data {name}"
    entry = find_dataset(name)
    if entry.files == "given" and invocation.data_dir is None:
        return Check(name=label, state="ok", detail=f"{entry.summary}, named with --data DIR")
    try:
        dataset = load_dataset(name, data_dir=invocation.data_dir, download=False)
    except DataError as error:
        what, _, advice = error.message.removeprefix(f"{name}: ").partition("; ")
        if entry.files == "embedded":
            return Check(name=label, state="fail", detail=what, advice=advice, exit_code=EXIT_DATA)
        if entry.files == "downloaded" and what.endswith("not found"):
            what, advice = "not here yet; a sweep downloads it", f"without a network: {advice}"
            return Check(name=label, state="ok", detail=what, advice=advice)
        return Check(name=label, state="warn", detail=what, advice=advice)
    detail = f"{len(dataset.train.labels)} training and {len(dataset.test.labels)} test images"
    return Check(name=label, state="ok", detail=detail)
