"""What follows from what nodes report: whether every one can do the work. Without Ray."""

import importlib.metadata
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hkrun.errors import DataError, HkrunError, ResourceError, StoreError

if TYPE_CHECKING:
    from packaging.requirements import Requirement

# Those that numbers depend on, or that processes speak to each other through.
COMPARED = ("torch", "torchvision", "numpy", "numba", "scipy", "pyarrow", "ray", "mlflow")
_SHARE = "a path must name a folder that all nodes share (NFS), or use --store s3://BUCKET/PREFIX"


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What every node must see and have.

    Attributes:
        store: Path or URI of the store.
        data: Path or URI of `--data`; None where no data is needed.
        files: Files that runs read, such as a `teacher.file`.
        requirements: What hkrun requires, as its package's metadata says it.
        expected: The versions of packages that results are promised for.
    """

    store: str
    data: str | None = None
    files: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()
    expected: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class NodeReport:
    """What a node says of itself.

    Attributes:
        name: Such as `worker-2 (10.0.0.12)`.
        code: A digest of hkrun's source.
        store: Why it cannot use the store; empty where it can.
        data: Why it cannot read the data; likewise.
        files: Files that it cannot read.
        problem: Why there is no report.
    """

    name: str
    python: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    code: str = ""
    store: str = ""
    data: str = ""
    files: tuple[str, ...] = ()
    problem: str = ""


def judge(reports: Sequence[NodeReport], needs: Needs, *, place: str) -> HkrunError | None:
    """What keeps the nodes from the work, in one error; None where nothing does.

    `place` is the store's name in messages, without a password.

    Returns:
        ResourceError (exit code 4) where nodes cannot run hkrun as one, else StoreError (6), DataError (3).
    """
    unable = [f"{report.name}: {report.problem}" for report in reports if report.problem]
    able = [report for report in reports if not report.problem]
    unable += _judge_versions(able, needs)
    if unable:
        return ResourceError("\n".join(unable))
    stores = _judge_store(able, place)
    data = _group(
        ((report.data, report.name) for report in able),
        lambda why, names: f"--data: {names} cannot read it: {why}; it must be there on every node",
    )
    files = _group(
        ((path, report.name) for report in able for path in report.files),
        lambda path, names: f"{path}: {names} cannot read it; it must be there on every node",
    )
    if stores:
        return StoreError("\n".join([*stores, *data, *files]))
    return DataError("\n".join([*data, *files])) if data or files else None


def note_versions(reports: Sequence[NodeReport], needs: Needs) -> list[str]:
    """Where the cluster's versions differ from those that results are promised for."""
    found = []
    for name, expected in sorted(needs.expected.items()):
        there = {_public(report.versions[name]) for report in reports if name in report.versions}
        if there and there != {_public(expected)}:
            found.append(f"{name} {', '.join(sorted(there))} (expected {expected})")
    if not found:
        return []
    note = (
        f"the cluster has {'; '.join(found)}: results need not be equal to the bit to those of the expected "
        "versions; --environment lock installs those"
    )
    return [note]


def required_names(needs: Needs) -> list[str]:
    """The names of the packages that hkrun requires, extras left out."""
    return [requirement.name for requirement in _requirements(needs)]


def find_versions(names: Iterable[str]) -> dict[str, str]:
    """The versions of those packages that are installed here."""
    found = {}
    for name in sorted(names):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _requirements(needs: Needs) -> "list[Requirement]":
    from packaging.requirements import Requirement

    every = map(Requirement, needs.requirements)
    return [each for each in every if each.marker is None or each.marker.evaluate({"extra": ""})]


def _judge_versions(reports: Sequence[NodeReport], needs: Needs) -> list[str]:
    """Where a node lacks what hkrun requires, or nodes differ among each other, a line each."""
    lacking = [
        (f"{wanted.name}{wanted.specifier} is required, and {found or 'none'} is there", report.name)
        for wanted in _requirements(needs)
        for report in reports
        if (found := report.versions.get(wanted.name)) is None
        or not wanted.specifier.contains(_public(found), prereleases=True)
    ]
    if lacking:
        return _group(lacking, lambda why, names: f"{names}: {why}")
    looks = {"Python": {report.name: report.python for report in reports}}
    looks["hkrun's code"] = {report.name: report.code for report in reports}
    for package in COMPARED:
        looks[package] = {report.name: _public(report.versions.get(package, "none")) for report in reports}
    problems = []
    for what, values in looks.items():
        if len(set(values.values())) > 1:
            told = _group(
                ((value, name) for name, value in values.items()), lambda value, names: f"{value} on {names}"
            )
            problems.append(f"the nodes differ in {what}: {', '.join(told)}; all must have the same")
    return problems


def _judge_store(reports: Sequence[NodeReport], place: str) -> list[str]:
    seeing = [report.name for report in reports if not report.store]
    others = f", only {_listed(seeing)} can" if seeing else ""
    advice = f"; {_SHARE}" if "://" not in place else ""
    return _group(
        ((report.store, report.name) for report in reports),
        lambda why, names: f"the store {place}: {names} cannot use it{others}: {why}{advice}",
    )


def _group(pairs: Iterable[tuple[str, str]], describe: Callable[[str, str], str]) -> list[str]:
    """A line for each different thing that nodes say, with the names of those nodes; none for nothing."""
    by_thing: dict[str, list[str]] = {}
    for thing, name in pairs:
        if thing:
            by_thing.setdefault(thing, []).append(name)
    return [describe(thing, _listed(names)) for thing, names in by_thing.items()]


def _listed(names: Sequence[str]) -> str:
    """Names of nodes in a sentence; of many, some."""
    shown = list(names[:5]) + ([f"{len(names) - 5} more"] if len(names) > 5 else [])
    if len(shown) == 1:
        return f"node {shown[0]}"
    return f"nodes {', '.join(shown[:-1])} and {shown[-1]}"


def _public(version: str) -> str:
    """A version without its build, such as `+cpu`: the same release is built for different devices."""
    return version.partition("+")[0]
