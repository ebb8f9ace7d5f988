"""`hkrun --version`: which build this is, for bug reports and scripts."""

import importlib.metadata
import platform
from pathlib import Path

import click

import hkrun
from hkrun.cli.invocation import Invocation
from hkrun.code_identity import find_code
from hkrun.git_state import read_state

_LIBRARIES = ("torch", "ray", "mlflow")


def show_version(context: click.Context, _parameter: click.Parameter, asked: bool) -> None:
    """Prints the build and ends; with --json anywhere on the command line as a document."""
    if not asked or context.resilient_parsing:
        return
    invocation = context.ensure_object(Invocation)
    build = describe_build()
    if invocation.as_json:
        invocation.print_document(build)
        context.exit()
    commit = build["commit"] or "none: not run from a repository"
    epoch = build["numbers"] if build["numbers"] != f"source {build['source']}" else "of no epoch"
    lines = {
        "commit": f"{commit}, changed since" if build["changed"] else commit,
        "numbers": f"{epoch}, source {build['source']}",
        "Python": build["python"],
        **{name: build[name] or "not installed" for name in _LIBRARIES},
    }
    click.echo(f"hkrun {build['hkrun']}")
    for name, value in lines.items():
        click.echo(f"{name:8} {value}")
    context.exit()


def describe_build() -> dict[str, str | bool | None]:
    """Versions of hkrun, of its code, of Python and the large libraries; none of these is imported.

    `commit` and `changed` are None where hkrun runs from no repository, as from a wheel. `source` is the hash
    of the code that can change numbers, which records hold too: it tells builds of one version apart. A
    library that is not installed is None.
    """
    state, code = read_state(Path(hkrun.__file__).parent), find_code()
    return {
        "hkrun": hkrun.__version__,
        "commit": None if state is None else state.commit,
        "changed": None if state is None else bool(state.changed),
        "numbers": code.numbers,
        "source": code.source,
        "python": platform.python_version(),
        **{name: _find_version(name) for name in _LIBRARIES},
    }


def _find_version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
