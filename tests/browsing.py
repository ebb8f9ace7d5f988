"""MLflow's UI in a system Chromium.

    .venv/bin/python tests/browsing.py [STORE] [SWEEP]

takes the picture for the docs: of a sweep of a store that was mirrored (`make stability` does), or, without
one, of an example made up in the real format.
"""

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Page, sync_playwright
from sweep_example import fill_store, make_summaries, make_sweep

from hkrun.store import Store, open_store
from hkrun.tracking import Links, resolve_uri, serve, sync
from hkrun.tracking.connection import connect
from hkrun.tracking.experiments import find_experiments
from hkrun.tracking.view import find_links

CHROMIUM = Path("/usr/bin/chromium")
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "mlflow-comparison.png"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WAIT_MS = 120_000  # on a busy machine the UI takes its time
# Of each of the view's own two charts: the groups that have a line. The UI draws every line twice.
LINES = """() => Array.from(document.querySelectorAll('.js-plotly-plot')).slice(0, 2)
    .map(plot => new Set((plot.data || []).filter(trace => trace.uuid).map(trace => trace.uuid)))"""


@contextlib.contextmanager
def open_page() -> Iterator[Page]:
    """A page of a fresh browser, whose profile is thrown away."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            page = browser.new_page(viewport={"width": 1600, "height": 1000})
            page.set_default_timeout(WAIT_MS)
            yield page
        finally:
            browser.close()


def open_view(page: Page, links: Links, *, num_cells: int) -> None:
    """Opens the comparison view and waits until its first two charts show a line per cell."""
    page.goto(links.view)
    drawn = f"({LINES})().filter(groups => groups.size === {num_cells}).length === 2"
    page.wait_for_function(drawn)
    # A fresh profile gets MLflow's assistant over a quarter of the window.
    assistant = page.get_by_role("button", name="Close", exact=True)
    if assistant.count():
        assistant.last.click()
    page.wait_for_timeout(2_000)  # the charts grow into the room


def links_to(store: Store, key: str, *, address: str) -> Links:
    """The links to a sweep that was mirrored, on a server at this address."""
    uri = resolve_uri(store)
    client = connect(uri)
    return find_links(client, uri, find_experiments(client, store)[key], address=address)


def take_picture(store: Store, key: str, *, num_cells: int) -> None:
    """Puts the picture of a sweep's comparison view into the docs."""
    with serve(store) as server, open_page() as page:
        open_view(page, links_to(store, key, address=server.address), num_cells=num_cells)
        PICTURE.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=PICTURE)


def main() -> None:
    """See the module."""
    if len(sys.argv) > 1:
        store, key = open_store(sys.argv[1], create=False), (sys.argv[2:] or ["stability-digits"])[0]
        take_picture(store, key, num_cells=4)
        return
    with tempfile.TemporaryDirectory() as folder:
        store, sweep = open_store(folder), make_sweep(num_seeds=20, epochs=60)
        fill_store(store, sweep)
        sync(sweep, store, summaries=make_summaries(store, sweep), files={})
        take_picture(store, "stability-digits", num_cells=4)


if __name__ == "__main__":
    main()
