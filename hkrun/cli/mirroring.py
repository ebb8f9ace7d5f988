"""The verbs about MLflow: sync, ui."""

import os
import signal
from typing import TYPE_CHECKING

import click

from hkrun.cli import candidates
from hkrun.cli.invocation import Invocation
from hkrun.cli.onward import store_option
from hkrun.cli.stored import find_plans
from hkrun.cli.verbs import verb
from hkrun.counting import count
from hkrun.errors import EXIT_DONE

if TYPE_CHECKING:
    from hkrun.store import Store
    from hkrun.tracking import Links, Site

# 16 s, measured (2026-11-30, 2 cores of an AMD EPYC at a load of 5); less where nothing else works.
_START_TAKES = "about 10 s"


@verb(
    "sync",
    purpose="Look at them in MLflow",
    examples=(
        ("hkrun sync", "every sweep of ./hkrun-store into MLflow"),
        (
            "MLFLOW_TRACKING_URI=http://server:5000 hkrun sync",
            "into that server instead of the store's database",
        ),
        ("hkrun sync lambda3 --every 1", "with every curve at every epoch, as the store has them"),
    ),
)
@click.argument("name", required=False, shell_complete=candidates.studies)
@click.option(
    "--dataset", metavar="NAME", shell_complete=candidates.datasets, help="Only the sweep on this data set."
)
@click.option(
    "--every",
    metavar="N",
    type=click.IntRange(min=1),
    help="All curves, at every N-th epoch. By default losses at 100 epochs at most, and no diagnostics.",
)
def sync(invocation: Invocation, *, name: str | None, dataset: str | None, every: int | None) -> int:
    """Put what MLflow lacks of the store's sweeps there.

    Sweeps do this while they run; this catches up after a server was away, or fills another one. Running it
    again adds nothing. Test errors are there at every epoch, whatever --every says. Runs that lack points of
    it get them; none loses any. Links are printed where a server shows this store: the one that
    MLFLOW_TRACKING_URI names, or a `hkrun ui` that runs.
    """
    from hkrun.sweep import mirror_sweep

    store = invocation.open_store()
    synced = []
    for stored in find_plans(store, name, dataset):
        mirrored = mirror_sweep(stored.sweep, store, workers=stored.workers, every=every)
        links, served = _find_served(mirrored.links, store)
        key = {"sweep": stored.sweep.name, "dataset": stored.sweep.dataset}
        numbers = {"runs": mirrored.runs, "runs_with_more_points": mirrored.denser}
        synced.append({**key, **links_document(links), "served": served, **numbers})
        where = links.view if served else count(mirrored.runs, "run")
        invocation.messages.print(f"{stored.sweep.name} on {stored.sweep.dataset}: {where}")
        if mirrored.denser and every is None:
            invocation.messages.print(
                f"  {mirrored.denser} of {count(mirrored.runs, 'run')} keep the points of more curves that "
                "`--every` or an earlier hkrun put there."
            )
    if invocation.as_json:
        invocation.print_document({"store": store.place, "sweeps": synced})
    else:
        all_served = all(study["served"] for study in synced)
        ways = "opens it" if all_served else "starts its server and prints the links"
        invocation.say(f"MLflow has everything. `hkrun ui{store_option(invocation, store)}` {ways}.")
    return EXIT_DONE


def _find_served(links: "Links", store: "Store") -> "tuple[Links, bool]":
    """The links where a server shows them by now; else those of `hkrun ui`'s usual port, and False."""
    from hkrun.tracking import find_ui, is_server

    if is_server(links.uri):
        return links, True
    address = find_ui(store, links.experiment_id)
    return (links, False) if address is None else (links.at(address), True)


@verb(
    "ui",
    purpose="Look at them in MLflow",
    examples=(
        ("hkrun ui", "MLflow's UI for ./hkrun-store, until Ctrl-C"),
        ("hkrun ui --port 5050 --no-browser", "on that port, links only"),
    ),
)
@click.option(
    "--port",
    metavar="PORT",
    type=click.IntRange(1, 65535),
    help="Port on this machine's loopback; 5000 or the next free.",
)
@click.option("--no-browser", is_flag=True, help="Do not open a browser.")
def ui(invocation: Invocation, *, port: int | None, no_browser: bool) -> int:
    """Open MLflow on the store's sweeps, with the links that matter.

    It answers on this machine only, until Ctrl-C. With MLFLOW_TRACKING_URI set, the links lead to that
    server. The document of --json is printed as soon as the server answers.
    """
    from hkrun.tracking import ui as serve_ui

    store = invocation.open_store()

    def begin(address: str, is_started: bool) -> None:
        what = f"Starting MLflow's server on {address}, {_START_TAKES}" if is_started else f"Asking {address}"
        invocation.messages.print(f"{what} ...")

    def announce(site: "Site") -> None:
        _print_site(invocation, site, store)
        if invocation.as_json:
            invocation.print_document(_site_document(site, store))
            invocation.as_json = False  # the document is out; what may go wrong later is said on stderr alone

    serve_ui(store, port=port, open_browser=not no_browser, begin=begin, announce=announce)
    return EXIT_DONE


def _print_site(invocation: Invocation, site: "Site", store: "Store") -> None:
    invocation.say(f"MLflow answers on {site.address}")
    names = {
        f"{stored.sweep.name}-{stored.sweep.dataset}": f"{stored.sweep.name} on {stored.sweep.dataset}"
        for stored in find_plans(store, None, None)
    }
    for key, links in site.sweeps.items():
        invocation.say(f"\n{names.get(key, key)}")
        if not links.outdated:
            invocation.say(f"  cells, best first       {links.comparison}")
        invocation.say(f"  test error over epochs  {links.view}")
        if links.outdated:
            invocation.say(f"  lists of cells and runs: `hkrun sync{store_option(invocation, store)}` first")
        else:
            invocation.say(f"  all runs, best first    {links.experiment}")
    if not site.sweeps:
        invocation.say("It holds no sweep of this store yet: `hkrun sync NAME` puts one there.")
    if site.is_ours:
        # A shell that runs a script starts what ends in & with Ctrl-C ignored.
        deaf = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        invocation.say(f"\n{f'kill {os.getpid()}' if deaf else 'Ctrl-C'} stops it.")


def _site_document(site: "Site", store: "Store") -> dict[str, object]:
    sweeps = [
        {
            "sweep": key,
            "experiment_id": links.experiment_id,
            "view": links.view,
            "comparison": links.comparison,
            "runs": links.experiment,
            "outdated": links.outdated,
        }
        for key, links in site.sweeps.items()
    ]
    return {"store": store.place, "uri": site.uri, "address": site.address, "sweeps": sweeps}


def links_document(links: "Links") -> dict[str, object]:
    """Where MLflow has a sweep, as JSON documents hold it.

    The view is where `hkrun ui` shows it on its usual port; `hkrun ui --json` tells the one it has taken.
    """
    return {"uri": links.uri, "experiment_id": links.experiment_id, "view": links.view}
