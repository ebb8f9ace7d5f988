"""The report's files, written again only where they would say something else."""

import dataclasses
import hashlib
import json

import numpy as np

import hkrun
from hkrun.errors import StoreError
from hkrun.report.documents import write_report
from hkrun.report.summary import Summary
from hkrun.store import Store

RECEIPT_FILE = "report-receipt.json"


def renew_report(summary: Summary, store: Store) -> dict[str, str]:
    """Writes the report, unless the store has it whole and of the same results.

    Returns:
        Where each file is, by name, as `write_report` does.
    """
    folder = store.sweep_folder(summary.sweep.name, summary.sweep.dataset)
    content = _describe_content(summary)
    names = _find_current(store, folder, content)
    if names:
        return {name: f"{store.place}/{folder}/{name}" for name in names}
    paths = write_report(summary, store)
    note = {"content": content, "files": _sums(store, folder, list(paths))}
    store.commit(folder, {RECEIPT_FILE: json.dumps(note, indent=1).encode()}, keep=None)
    return paths


def _describe_content(summary: Summary) -> str:
    """SHA-256 of all that the report is made from, and of the version of hkrun that makes it.

    What an execution did after its report does not count: else each sweep asked for again would have news.
    """
    executions = tuple(execution.before_report() for execution in summary.executions)
    content = [hkrun.__version__, dataclasses.replace(summary, executions=executions)]
    return hashlib.sha256(json.dumps(content, default=_plain).encode()).hexdigest()


def _plain(value: object) -> object:
    """What JSON has no form for: dataclasses by their fields, curves by their bytes, the rest in words."""
    if isinstance(value, np.ndarray):
        return [str(value.dtype), value.shape, hashlib.sha256(value.tobytes()).hexdigest()]
    if dataclasses.is_dataclass(value):
        return {spec.name: getattr(value, spec.name) for spec in dataclasses.fields(value)}
    return str(value)


def _find_current(store: Store, folder: str, content: str) -> list[str]:
    """The names of the report's files where they are those of this content; none where any is not."""
    try:
        note = json.loads(store.read(folder, RECEIPT_FILE))
        names = list(note["files"])
        same = note["content"] == content and _sums(store, folder, names) == note["files"]
    except (StoreError, ValueError, KeyError, TypeError):
        return []
    return names if same else []


def _sums(store: Store, folder: str, names: list[str]) -> dict[str, str]:
    """SHA-256 by name, of what the files hold: one that is damaged or gone is an error."""
    return {name: hashlib.sha256(store.read(folder, name)).hexdigest() for name in names}
