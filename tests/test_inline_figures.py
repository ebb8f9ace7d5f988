"""Figures as elements of a page: their palettes, their ids and what their marks say."""

import itertools
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from figure_example import draw_line, make_lost, make_map, make_point
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from hkrun import figures
from hkrun.figures import CellCurves, InlineFigures, PairedDifferences, palette, style

ON_PAPER = [f"cell-{index}" for index in range(1, 12)] + ["ink", "muted", "seed", "alarm", "good", "bad"]
TEXTS = [("ink", 7), ("muted", 4.5), ("link", 4.5), ("alarm", 4.5), ("good", 4.5), ("bad", 4.5)]


def luminance(color):
    """WCAG 2.2, relative luminance."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast(first, second):
    """WCAG 2.2, contrast ratio."""
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_marks_stand_out_from_the_paper_as_wcag_asks(mode):
    paper = getattr(palette.PALETTE["paper"], mode)
    for name in ON_PAPER:
        assert contrast(getattr(palette.PALETTE[name], mode), paper) >= 3, name


@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("ground", ["paper", "soft"])
@pytest.mark.parametrize(("name", "least"), TEXTS)
def test_text_is_readable_as_wcag_asks(mode, ground, name, least):
    colors = (getattr(palette.PALETTE[key], mode) for key in (name, ground))
    assert contrast(*colors) >= least


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_figures_are_readable_on_every_tone_and_tones_rise_evenly(mode):
    tones = [getattr(palette.PALETTE[f"tone-{index}"], mode) for index in range(len(palette.TONES))]
    assert min(contrast(getattr(palette.PALETTE["ink"], mode), tone) for tone in tones) >= 4.5
    steps = np.diff([luminance(tone) for tone in tones])
    assert (steps < 0).all() if mode == "light" else (steps > 0).all()


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_the_colours_of_cells_are_told_apart(mode):
    """Distance in CIE L*a*b*, by Euclid: 2.3 is just seen, lines of a figure need much more."""
    names = ["ink", *(f"cell-{index}" for index in range(1, 12))]
    colors = [_to_lab(getattr(palette.PALETTE[name], mode)) for name in names]
    assert min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(colors, 2)) > 20


def _to_lab(color):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    matrix = [(0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505)]
    x, y, z = np.cbrt(np.array(matrix) @ linear / (0.9505, 1, 1.089))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_a_light_colour_has_one_name():
    lights = [paint.light for paint in palette.PALETTE.values()]
    assert len(set(lights)) == len(lights)


# --- inline figures -----------------------------------------------------------------------------------------


def draw_all():
    cells = [
        CellCurves.of_runs(name=name, error_pct=np.array([[9.0, 5.0, 4.0], [9.0, 4.0, 3.0]]))
        for name in ("a", "b")
    ]
    pair = PairedDifferences(name="b", by_seed=(-1.0, 0.5), mean=-0.25, ci95=(-2.0, 1.0))
    return {
        "errors": figures.draw_errors(cells, window=2),
        "ranges": figures.draw_ranges(cells, window=2, ddof=0),
        "differences": figures.draw_differences([pair], reference="a"),
        "lines": draw_line(make_point(5.0), make_point(4.0, reference=True), make_lost()),
        "map": figures.draw_maps([make_map()]),
    }


def test_a_page_of_figures_has_unique_ids_variables_for_colours_and_no_style():
    page = InlineFigures()
    elements = [
        page.add(name, figures.encode(figure, "svg"), notes=figure.notes, attributes={"class": "figure"})
        for name, figure in draw_all().items()
    ]
    text = figures.write_letters(page.letters) + "".join(elements)
    assert "style" not in text
    assert "&#10;" not in text
    assert not re.search(r'"#[0-9a-f]{6}', text)
    variables = set(re.findall(r"var\(--([\w-]+)\)", text))
    assert {"paper", "ink", "grid", "cell-1"} <= variables <= set(palette.PALETTE)
    ids = re.findall(r' id="([^"]*)"', text)
    assert len(ids) == len(set(ids))
    referred = set(re.findall(r'href="#([^"]*)"', text)) | set(re.findall(r"url\(#([^)]*)\)", text))
    assert referred == set(ids)
    assert all(element.startswith('<svg viewBox="0 0 ') for element in elements)


def test_the_same_figures_give_the_same_page():
    def render():
        page = InlineFigures()
        figure = draw_all()["errors"]
        return page.add(
            "errors", figures.encode(figure, "svg"), notes={}, attributes={}
        ) + figures.write_letters(page.letters)

    assert render() == render()


def draw_marks(*notes, line="none"):
    with style.styled():
        figure = style.new_figure(4, 3)
        axes = figure.subplots()
        (points,) = axes.plot([1, 2, 3], [4, 5, 6], marker="o", linestyle=line, color=palette.COLORS[1])
        style.explain(points, *notes)
    return figure


def inline(figure):
    return ElementTree.fromstring(
        InlineFigures().add("x", figures.encode(figure, "svg"), notes=figure.notes, attributes={})
    )


def test_every_marker_says_what_it_shows_and_text_stays_text():
    marks = inline(draw_marks("<b>", "a & b", '"c"')).findall(".//use[@class='mark']")
    assert [mark.findtext("title") for mark in marks] == ["<b>", "a & b", '"c"']


def test_a_line_says_what_it_shows_and_can_be_pointed_at():
    (mark,) = inline(draw_marks("a line", line="-")).findall(".//g[@class='mark']")
    assert mark[0].tag == "title"
    assert mark[0].text == "a line"
    hit = mark.find("path[@class='hit']")
    assert hit.get("d") == mark.find(".//path").get("d")


def test_a_hatch_has_the_palettes_colours_and_its_own_id():
    with style.styled():
        figure = style.new_figure(4, 3)
        axes = figure.subplots()
        axes.add_patch(Rectangle((0, 0), 1, 1, facecolor=palette.BAND, edgecolor=palette.MUTED, hatch="///"))
    root = inline(figure)
    (pattern,) = root.findall(".//pattern")
    assert pattern.find("rect").get("fill") == "var(--band)"
    assert pattern.find("path").get("stroke") == "var(--muted)"
    assert root.find(f".//path[@fill='url(#{pattern.get('id')})']") is not None
    assert pattern.get("id").startswith("x-")


def test_another_number_of_notes_than_of_marks_is_a_mistake():
    with pytest.raises(ValueError, match="2 notes on 3 marks: a"):
        inline(draw_marks("a", "b"))


def test_a_colour_of_no_palette_is_a_mistake():
    figure = draw_marks("a")
    figure.axes[0].lines[0].set_color("#123456")
    with pytest.raises(ValueError, match="#123456 is not in the palette"):
        inline(figure)


def test_an_image_cannot_follow_the_reader_and_is_a_mistake():
    with style.styled():
        figure = style.new_figure(4, 3)
        figure.subplots().imshow([[0.0, 1.0]])
    with pytest.raises(ValueError, match="x: an image in a figure"):
        inline(figure)


def test_a_name_stands_for_one_figure():
    page, svg = InlineFigures(), figures.encode(draw_marks("a"), "svg")
    page.add("x", svg, notes={}, attributes={})
    with pytest.raises(ValueError, match="two figures are called x"):
        page.add("x", svg, notes={}, attributes={})


def test_a_narrow_page_has_narrow_figures_of_two_panels_in_a_row():
    cells = [
        CellCurves.of_runs(name=str(index), error_pct=np.array([[3.0, 2.0], [3.0, 1.0]]))
        for index in range(4)
    ]
    with figures.narrow_page():
        narrow = figures.draw_ranges(cells, window=2, ddof=0)
    wide = figures.draw_ranges(cells, window=2, ddof=0)
    assert narrow.get_figwidth() == figures.NARROW_PAGE == figures.PAGE / 2
    assert wide.get_figwidth() == figures.PAGE
    assert len({axes.get_position().y0 for axes in narrow.axes}) == 2
    assert len({axes.get_position().y0 for axes in wide.axes}) == 1
