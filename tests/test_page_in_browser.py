"""report.html in a real browser: on a desk and on a phone, light and dark, with a keyboard, in print."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from browsing import CHROMIUM, FLAGS
from playwright.sync_api import Browser, Page, expect, sync_playwright
from report_example import fill, make_sweep, put_run

from hkrun.figures.palette import PALETTE
from hkrun.report import render_report, summarise
from hkrun.store import open_store

REQUIRED = os.environ.get("HKRUN_REQUIRE_BROWSER") == "1"
pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not CHROMIUM.exists() and not REQUIRED, reason=f"there is no browser at {CHROMIUM}"),
]
DESK, PHONE = (1280, 800), (400, 800)
SEEDS = 14  # more than a table has unfolded


@dataclass
class Visit:
    """A page that is open, and what the browser had to say."""

    page: Page
    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of four cells, of which a run diverged."""
    folder = tmp_path_factory.mktemp("page")
    store, sweep = open_store(folder / "store"), make_sweep(num_seeds=SEEDS)
    lost = sweep.cells[3]
    fill(store, sweep, without={(lost.name, 2)})
    put_run(store, lost, 2, errors=[70.0, 90.0], status="diverged", diverged_epoch=3)
    path = folder / "report.html"
    path.write_bytes(render_report(summarise(sweep, store))["report.html"])
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def visit(browser: Browser, report: Path, *, size: tuple[int, int] = DESK, mode: str = "light") -> Visit:
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if mode == "dark" else "light",
        has_touch=size == PHONE,
    )
    found = Visit(context.new_page())
    found.page.on("console", lambda message: found.messages.append(message.text))
    found.page.on("pageerror", lambda error: found.messages.append(str(error)))
    found.page.on("request", lambda request: found.requests.append(request.url))
    found.page.goto(report.as_uri())
    return found


def rgb(color: str) -> str:
    return f"rgb({', '.join(str(int(color[place : place + 2], 16)) for place in (1, 3, 5))})"


@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_nothing_is_cut_and_no_page_scrolls_sideways(browser, report, size, mode):
    found = visit(browser, report, size=size, mode=mode)
    found.page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    width = size[0]
    assert found.page.evaluate("document.documentElement.scrollWidth") <= width
    edges = found.page.evaluate(
        """() => [...document.querySelectorAll('svg.figure, .scroll, p, h1, h2, h3, pre, li')]
            .map(item => item.getBoundingClientRect()).filter(box => box.width > 0)
            .map(box => [box.left, box.right])"""
    )
    assert len(edges) > 50
    assert all(left >= 0 and right <= width for left, right in edges)
    drawn = found.page.locator("svg.figure").count()
    assert (
        drawn
        == 2 * found.page.locator("figure").count()
        == 2 * found.page.locator("svg:visible.figure").count()
    )
    assert found.messages == []
    assert found.requests == [report.as_uri()]


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_figures_have_the_colours_that_the_reader_prefers(browser, report, mode):
    page = visit(browser, report, mode=mode).page
    colors = page.evaluate(
        """() => [getComputedStyle(document.body).backgroundColor,
            ...[...document.querySelectorAll('svg.wide path[stroke]')]
                .map(path => getComputedStyle(path).stroke)]"""
    )
    paints = {rgb(getattr(paint, mode)) for paint in PALETTE.values()}
    assert colors[0] == rgb(getattr(PALETTE["paper"], mode))
    assert set(colors) <= paints | {"rgba(0, 0, 0, 0)", "none"}
    assert rgb(getattr(PALETTE["cell-1"], mode)) in colors


def test_the_first_screen_has_the_answer_and_what_came_of_the_claims(browser, report):
    for size in (DESK, PHONE):
        page = visit(browser, report, size=size).page
        for what in ("h1", ".question", ".outcomes", ".answer li:first-child"):
            expect(page.locator(what)).to_be_in_viewport(ratio=1)


def test_every_line_of_the_contents_leads_to_its_section(browser, report):
    page = visit(browser, report).page
    links = page.locator("nav.side a")
    assert links.count() >= 7
    for place in range(links.count()):
        links.nth(place).click()
        section = page.locator(f"section{links.nth(place).get_attribute('href')} h2")
        expect(section).to_be_in_viewport()
        assert section.inner_text() == links.nth(place).inner_text()


def test_on_a_phone_the_contents_are_folded(browser, report):
    page = visit(browser, report, size=PHONE).page
    expect(page.locator("nav.side")).to_be_hidden()
    line = page.locator("details.contents a").first
    expect(line).to_be_hidden()
    page.locator("details.contents summary").click()
    line.click()
    expect(page.locator("#test-error h2")).to_be_in_viewport()


def test_a_link_opens_the_folded_part_that_it_leads_to(browser, report):
    page = visit(browser, report).page
    expect(page.locator("#table-seeds table")).to_be_hidden()
    page.goto(f"{report.as_uri()}#table-seeds")
    expect(page.locator("#table-seeds table")).to_be_visible()
    expect(page.locator("#table-conditions table")).to_be_hidden()
    page.evaluate("location.hash = '#table-conditions'")
    expect(page.locator("#table-conditions table")).to_be_in_viewport()


def test_a_heading_sorts_its_table_and_runs_without_a_figure_come_last(browser, report):
    page = visit(browser, report).page
    page.locator("#table-seeds summary").click()
    column = page.locator("#table-seeds thead th").nth(4)
    fields = page.locator("#table-seeds tbody tr > :nth-child(5)")
    before = fields.all_inner_texts()
    figures = sorted(float(text) for text in before if text[0].isdigit())
    assert before[2] == "diverged, epoch 3"
    for order, expected in (("ascending", figures), ("descending", figures[::-1])):
        column.get_by_role("button").click()
        expect(column).to_have_attribute("aria-sort", order)
        *shown, last = fields.all_inner_texts()
        assert [float(text) for text in shown] == expected
        assert last == "diverged, epoch 3"


def test_print_is_light_and_has_all_that_is_folded(browser, report):
    page = visit(browser, report, mode="dark").page
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == rgb(PALETTE["paper"].light)
    for table in ("seeds", "configuration", "conditions"):
        expect(page.locator(f"#table-{table} table")).to_be_visible()
    expect(page.locator("nav.side")).to_be_hidden()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.emulate_media(media="screen")
    expect(page.locator("#table-seeds table")).to_be_hidden()


def test_marks_say_what_they_show_to_mouse_touch_and_keyboard(browser, report):
    page, tip = visit(browser, report).page, "#tip"
    figure = page.locator("figure#figure-differences svg.wide")
    figure.scroll_into_view_if_needed()
    expect(page.locator(tip)).to_be_hidden()
    notes = figure.evaluate("figure => [...figure.querySelectorAll('.mark')].map(mark => mark.note)")
    assert len(notes) >= 3
    assert all(notes)
    figure.locator(".mark").first.hover(force=True)
    expect(page.locator(tip)).to_have_text(notes[0])
    page.mouse.move(0, 0)
    expect(page.locator(tip)).to_be_hidden()
    figure.focus()
    for note in notes[:3]:
        page.keyboard.press("ArrowRight")
        expect(page.locator(tip)).to_have_text(note)
    page.keyboard.press("Escape")
    expect(page.locator(tip)).to_be_hidden()
    page = visit(browser, report, size=PHONE).page
    figure = page.locator("figure#figure-differences svg.narrow")
    figure.scroll_into_view_if_needed()
    figure.locator(".mark").first.tap(force=True)
    expect(page.locator(tip)).to_be_visible()
    box = page.locator(tip).bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= PHONE[0]


def test_the_page_says_all_without_scripts(browser, report):
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(report.as_uri())
    expect(page.locator("figure#figure-differences svg.wide .mark > title").first).to_be_attached()
    page.locator("#table-seeds summary").click()
    expect(page.locator("#table-seeds table")).to_be_visible()
