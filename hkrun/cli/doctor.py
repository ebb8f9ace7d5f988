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


@dataclass(frozen=True)
class Check:
    """One line of the doctor's.

    Attributes:
        state: "ok", "warn" (works, with a limit) or "fail" (something will not work).
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
        return Check("Python", "fail", version, "hkrun needs Python 3.11 or newer", EXIT_RESOURCES)
    return Check("Python", "ok", f"{version}, hkrun {importlib.metadata.version('hkrun')}")


def _check_torch() -> Iterator[Check]:
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a shared library that does not load
        yield Check(
            "PyTorch",
            "fail",
            f"cannot be imported: {error}",
            "install it again: make setup, or pip install --force-reinstall torch",
            EXIT_RESOURCES,
        )
        return
    yield Check("PyTorch", "ok", torch.__version__)
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        yield Check("Devices", "ok", names)
    else:
        detail = "CPU only: enough for digits and mnist5k; CIFAR at the paper's size needs a GPU"
        yield Check("Devices", "ok", detail)


def _check_machine() -> Iterator[Check]:
    from hkrun.cluster.nodes.resources import local_node

    node = local_node(gpus=False)
    yield Check("CPU cores", "ok", f"{node.cpus} that this process may use")
    memory_gib = node.memory_bytes / 2**30
    if memory_gib < _MIN_MEMORY_GIB:
        yield Check(
            "Memory",
            "fail",
            f"{memory_gib:.1f} GiB",
            f"a trial with Ray needs about {_MIN_MEMORY_GIB:g} GiB",
            EXIT_RESOURCES,
        )
    else:
        yield Check("Memory", "ok", f"{memory_gib:.1f} GiB")


def _check_package(package: str, why: str) -> Check:
    name = {"ray": "Ray", "mlflow": "MLflow"}[package]
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return Check(
            name,
            "fail",
            f"not installed; {why}",
            "make setup, or install hkrun again from its clone or wheel",
            EXIT_RESOURCES,
        )
    from packaging.requirements import Requirement  # brought by Ray and MLflow

    for wanted in map(Requirement, importlib.metadata.requires("hkrun") or ()):
        if wanted.name == package and wanted.marker is None and version not in wanted.specifier:
            return Check(
                name,
                "warn",
                f"{version}; hkrun was tested with {wanted.name}{wanted.specifier}",
                f"pip install '{wanted.name}{wanted.specifier}'",
            )
    return Check(name, "ok", version)


def _check_token() -> Check:
    """Whether others can read the token with which Ray's clusters let their user in."""
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if os.environ.get("RAY_AUTH_TOKEN"):
        return Check("Ray token", "ok", "from RAY_AUTH_TOKEN")
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return Check("Ray token", "ok", "none yet; the first sweep makes one")
    if mode & 0o077:
        return Check(
            "Ray token", "warn", f"{path} can be read by others (mode {mode:04o})", f"chmod 600 {path}"
        )
    return Check("Ray token", "ok", f"{path}, for your eyes only")


def _check_store(invocation: Invocation) -> Check:
    name = "Store"
    try:
        store = invocation.find_store()
    except StoreError as error:
        advice = "name another with --store or HKRUN_STORE"
        return Check(name, "fail", error.message, advice, EXIT_STORE)
    if store is not None and store.local_path is None:
        return Check(name, "ok", f"{store.place}, reachable")
    if "://" in invocation.store_uri and store is None:
        detail = f"{redact(invocation.store_uri)}, which the first sweep makes"
        return Check(name, "ok", detail)
    place = Path(invocation.store_uri).expanduser().absolute()
    existing = next(folder for folder in (place, *place.parents) if folder.exists())
    what = str(place) if store is not None else f"{place}, which the first sweep makes"
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        return Check(
            name,
            "fail",
            f"{existing} cannot be written: {error.strerror}",
            "change its permissions, or name another with --store or HKRUN_STORE",
            EXIT_STORE,
        )
    free_gib = shutil.disk_usage(existing).free / 2**30
    if free_gib < _MIN_FREE_GIB:
        return Check(
            name,
            "warn",
            f"{what}; only {free_gib:.1f} GiB are free",
            "free some space, or name another disk with --store",
        )
    return Check(name, "ok", f"{what}; {free_gib:.0f} GiB free")


def _check_dataset(name: str, invocation: Invocation) -> Check:
    """Whether a data set could be loaded now, with what is on this machine."""
    from hkrun.data import load_dataset

    label = f"Data {name}"
    entry = find_dataset(name)
    if entry.files == "given" and invocation.data_dir is None:
        return Check(label, "ok", f"{entry.summary}, named with --data DIR")
    try:
        dataset = load_dataset(name, data_dir=invocation.data_dir, download=False)
    except DataError as error:
        what, _, advice = error.message.removeprefix(f"{name}: ").partition("; ")
        if entry.files == "embedded":
            return Check(label, "fail", what, advice, EXIT_DATA)
        if entry.files == "downloaded" and what.endswith("not found"):
            what, advice = "not here yet; a sweep downloads it", f"without a network: {advice}"
            return Check(label, "ok", what, advice)
        return Check(label, "warn", what, advice)
    detail = f"{len(dataset.train.labels):,} training and {len(dataset.test.labels):,} test images"
    return Check(label, "ok", detail)
