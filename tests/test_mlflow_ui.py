"""The links of a sweep, opened in a real browser on MLflow's real UI."""

import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import CHROMIUM, WAIT_MS, links_to, open_page, open_view
from playwright.sync_api import Page, expect
from processes import find_mlflow_servers
from sweep_example import fill_store, make_curves, make_summaries, make_sweep

from hkrun.spaces import name_cells
from hkrun.store import open_store
from hkrun.tracking import Links, serve, sync

expect.set_options(timeout=WAIT_MS)
REQUIRED = os.environ.get("HKRUN_REQUIRE_BROWSER") == "1"
pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not CHROMIUM.exists() and not REQUIRED, reason=f"there is no browser at {CHROMIUM}"),
]
SWEEP = make_sweep(num_cells=3, num_seeds=4, epochs=20)
NAMES = [cell.name for cell in SWEEP.cells]
TRACES = """() => Array.from(document.querySelectorAll('.js-plotly-plot')).slice(0, 2).map(plot => ({
    range: plot.layout.xaxis.range,
    lines: plot.data.filter(trace => trace.uuid).map(trace => ({name: trace.uuid, x: trace.x, y: trace.y})),
    bands: plot.data.filter(trace => trace.fill === 'tozeroy').length,
    drawn: Array.from(plot.querySelectorAll('path.js-line')).map(path => path.getBoundingClientRect().width),
}))"""

# The columns right of the fixed ones, from the left, of which the whole heading is in the list's window.
SEEN = """() => {
    const edge = document.querySelector('.ag-header-viewport')?.getBoundingClientRect().right ?? 0;
    return Array.from(document.querySelectorAll('.ag-header-viewport [role=columnheader][col-id]'))
        .filter(heading => isNaN(parseInt(heading.getAttribute('col-id'))))
        .filter(heading => !heading.getAttribute('col-id').match(/^(params|metrics|tags)_/))
        .map(heading => [heading.getBoundingClientRect(), heading.getAttribute('col-id')])
        .filter(([box]) => box.right <= edge + 1)
        .sort(([one], [other]) => one.left - other.left)
        .map(([_, name]) => name);
}"""


@pytest.fixture(scope="module")
def links(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Links]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        store = open_store(tmp_path_factory.mktemp("ui") / "store")
        assert store.local_path is not None
        shutil.copy(empty_database, store.local_path / "mlflow.db")
        fill_store(store, SWEEP)
        sync(SWEEP, store, summaries=make_summaries(store, SWEEP), files={"report.md": b"# The report\n"})
        with serve(store) as server:
            yield links_to(store, "stability-digits", address=server.address)
            assert len(find_mlflow_servers(store.local_path)) >= 3  # the supervisor, MLflow and uvicorn
        assert find_mlflow_servers(store.local_path) == []


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with open_page() as opened:
        yield opened


def test_the_view_shows_a_mean_line_per_cell_over_its_seeds(page: Page, links: Links, tmp_path: Path) -> None:
    open_view(page, links, num_cells=3)
    whole, late = page.evaluate(TRACES)
    for chart in (whole, late):
        lines: dict[str, Any] = {line["name"]: line for line in chart["lines"]}
        assert len(lines) == len(NAMES)
        for name in NAMES:
            curves = [make_curves(name, seed, epochs=20)["error_pct"].to_pylist() for seed in SWEEP.seeds]
            means = [math.fsum(run[epoch] for run in curves) / 4 for epoch in range(20)]
            line = lines[f"param.cell.name.{name}"]
            first = 1 if chart is whole else line["x"][0]  # the second chart asks for the late epochs only
            assert line["x"] == list(range(first, 21))
            assert line["y"] == pytest.approx(means[-len(line["y"]) :], rel=1e-9)
        assert chart["bands"] == 3
        assert sum(width > 100 for width in chart["drawn"]) >= 3
    assert late["range"] == [16, 20]
    assert late["lines"][0]["x"][0] <= 16
    for name in NAMES:
        expect(page.get_by_text(f"Group: {name}", exact=True)).to_be_visible()
    assert page.get_by_text("12 matching runs").is_visible()
    page.screenshot(path=tmp_path / "view.png")


def read_rows(page: Page, *columns: str) -> list[list[str]]:
    """The fields of these columns, row by row from the top of the list."""
    found: list[list[str]] = page.evaluate(
        """columns => Array.from(document.querySelectorAll('.ag-center-cols-container [role=row]'))
            .sort((a, b) => a.getAttribute('row-index') - b.getAttribute('row-index'))
            .map(row => columns.map(name => row.querySelector(`[col-id*="${name}"]`)?.innerText ?? null))""",
        list(columns),
    )
    return found


def test_the_list_of_cells_has_errors_and_s_as_columns_and_begins_with_the_best(
    page: Page, links: Links, tmp_path: Path
) -> None:
    page.goto(links.comparison)
    for name in NAMES:
        expect(page.get_by_role("link", name=name, exact=True)).to_be_visible()
    for heading in ("error_last", "error_best", "stability"):
        expect(page.get_by_role("columnheader").filter(has_text=heading).first).to_be_visible()
    rows = [[float(text.rstrip("…")) for text in row] for row in read_rows(page, "error_last", "stability")]
    page.screenshot(path=tmp_path / "cells.png")
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    assert len(rows) == 3
    assert all(s > 0 for _, s in rows)


def test_axes_error_and_s_are_the_first_columns_and_all_in_a_small_window(page: Page, links: Links) -> None:
    axes = [f"params.`{key}`" for key in name_cells(SWEEP.cells).short.values()]
    wanted = [*axes, "metrics.`error_last`", "metrics.`stability`"]
    usual = page.viewport_size
    assert usual is not None
    page.set_viewport_size({"width": 1280, "height": 800})
    try:
        page.goto("about:blank")  # the UI keeps the columns that it has drawn
        page.goto(links.comparison)
        page.wait_for_function(
            f"wanted => ({SEEN})().slice(0, {len(wanted)}).join() === wanted.join()", arg=wanted
        )
        page.set_viewport_size({"width": 2400, "height": 800})
        rest = ["metrics.`s2`", "metrics.`error_best`", "duration"]
        page.wait_for_function(f"wanted => ({SEEN})().join() === wanted.join()", arg=[*wanted, *rest])
    finally:
        page.set_viewport_size(usual)


def test_the_list_of_runs_has_their_seeds_errors_and_ends(page: Page, links: Links) -> None:
    page.goto(links.experiment)
    expect(page.get_by_text("12 matching runs")).to_be_visible()
    for heading in ("error_last", "seed", "hkrun.status"):
        expect(page.get_by_role("columnheader").filter(has_text=heading).first).to_be_visible()
    rows = read_rows(page, "`seed`", "hkrun.status")
    assert sorted(int(seed) for seed, _ in rows) == sorted(list(SWEEP.seeds) * 3)
    assert {status for _, status in rows} == {"finished"}
