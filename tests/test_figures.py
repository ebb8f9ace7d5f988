import contextlib
import dataclasses
import functools
import subprocess
import sys
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.mathtext import MathTextParser

from hkrun import figures
from hkrun.figures import CellCurves, CellHealth, PairedDifferences, names, palette, style
from hkrun.figures import errors as labels
from hkrun.stats import spread_of

NAMES = [
    *("supervised learning", "L_b", "L_b + L_is [hierarchical]", "L_b + L_is [original]"),
    *("L_b + L_adv", "L_b + L_is + L_adv^o + L_adv^C", "L_b + L_is + L_adv^o + L_reg", "L_b + L_is [AT]"),
    *("L_b + L_is [VID]", "L_b + L_is [FSP]", "cost $5 & 20 %", "loss.lambda_3 = 10.0"),
]


def make_cells(number: int, *, runs: int = 5, epochs: int = 40) -> list[CellCurves]:
    epoch = np.arange(1, epochs + 1)
    return [
        CellCurves.of_runs(
            name=NAMES[index],
            error_pct=3
            + 0.02 * index
            + 80 * np.exp(-epoch / 4)
            + np.random.default_rng(index).normal(0, 0.1, (runs, epochs)),
        )
        for index in range(number)
    ]


def draw(figure):
    """The figure's renderer after drawing, to measure texts with."""
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    canvas.draw()
    return canvas.get_renderer()


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_same_data_give_the_same_bytes(kind):
    first, second = (figures.encode(figures.draw_errors(make_cells(3), window=10), kind) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_a_picture_is_drawn_once(kind, monkeypatch):
    drawn, draw_axes = [], Axes.draw
    monkeypatch.setattr(Axes, "draw", lambda axes, renderer: (drawn.append(axes), draw_axes(axes, renderer)))
    figure = figures.draw_ranges(make_cells(2), window=10, ddof=0)
    figures.encode(figure, kind)
    assert drawn == figure.axes


def test_the_pictures_of_a_figure_have_one_layout_whichever_is_first():
    def encode(*kinds):
        figure = figures.draw_ranges(make_cells(2), window=10, ddof=0)
        return {kind: figures.encode(figure, kind) for kind in kinds}

    assert encode("png", "svg") == encode("svg", "png")


def test_svg_holds_no_date_and_needs_nothing_from_elsewhere():
    text = figures.encode(figures.draw_errors(make_cells(2), window=10), "svg").decode()
    assert "<dc:date>" not in text
    assert "<image" not in text
    assert "font-family" not in text


def test_the_users_matplotlib_settings_change_nothing_and_stay_as_they_are():
    plain = figures.encode(figures.draw_errors(make_cells(2), window=10), "png")
    with mpl.rc_context({"lines.linewidth": 9, "font.size": 30, "axes.facecolor": "red"}):
        styled = figures.encode(figures.draw_errors(make_cells(2), window=10), "png")
        assert mpl.rcParams["font.size"] == 30
    assert styled == plain


def test_drawing_loads_no_pyplot():
    code = "import sys, hkrun.figures.axis_lines; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("number", [1, 4, 6, 7, 12])
def test_labels_lie_within_the_figure_and_overlap_neither_each_other_nor_the_panels(number):
    figure = figures.draw_errors(make_cells(number), window=10)
    renderer = draw(figure)
    late = figure.axes[-1]
    boxes = [text.get_window_extent(renderer) for text in late.texts]
    assert len(boxes) == number
    panel = late.get_window_extent(renderer)
    for box in boxes:
        assert box.x0 > panel.x1
        assert box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0
        assert box.y1 <= figure.bbox.y1
    boxes.sort(key=lambda box: box.y0)
    assert all(below.y1 <= above.y0 for below, above in pairwise(boxes))


def test_labels_are_ordered_as_the_curves_end():
    cells = [
        CellCurves.of_runs(name=name, error_pct=np.full((2, 8), level))
        for name, level in (("low", 1.0), ("high", 3.0), ("middle", 2.0))
    ]
    texts = figures.draw_errors(cells, window=4).axes[-1].texts
    assert [text.get_text() for text in sorted(texts, key=lambda text: text.get_position()[1])] == [
        "low",
        "middle",
        "high",
    ]


@pytest.mark.parametrize("epochs", [1, 64, 130])
def test_curves_are_mean_standard_deviation_and_range_over_runs(epochs):
    errors = np.random.default_rng(epochs).uniform(2, 9, (5, epochs))
    curves = CellCurves.of_runs(errors, name="L_b")
    assert curves.runs == 5
    np.testing.assert_allclose(curves.mean, [np.mean(each) for each in errors.T])
    np.testing.assert_allclose(curves.sd, [np.std(each, ddof=1) for each in errors.T])
    np.testing.assert_array_equal(curves.spread, [max(each) - min(each) for each in errors.T.tolist()])


def test_a_single_run_has_no_standard_deviation_and_no_run_no_curve():
    single = CellCurves.of_runs(np.array([[3.0, 2.0]]), name="one")
    assert single.mean.tolist() == [3.0, 2.0]
    assert np.isnan(single.sd).tolist() == [True, True]
    none = CellCurves.of_runs(np.empty((0, 40)), name="none")
    assert (none.runs, len(none.mean), len(none.sd), len(none.spread)) == (0, 0, 0, 0)


def test_lines_are_means_and_bands_one_standard_deviation_over_seeds():
    (cell,) = make_cells(1, runs=6)
    whole, late = figures.draw_errors([cell], window=10).axes
    mean, sd = cell.mean, cell.sd
    np.testing.assert_allclose(whole.lines[0].get_xydata(), np.column_stack([np.arange(1, 41), mean]))
    np.testing.assert_allclose(late.lines[0].get_xydata(), np.column_stack([np.arange(31, 41), mean[30:]]))
    edges = [line.get_ydata() for line in late.lines[1:3]]
    np.testing.assert_allclose(edges, [mean[30:] - sd[30:], mean[30:] + sd[30:]])
    assert late.lines[1].get_linewidth() < late.lines[0].get_linewidth() / 2
    assert late.get_xlim() == (31, 40)


def count_curves(panel):
    """Means and edges of bands, without what stands beside the panel."""
    return sum(line.get_transform() == panel.transData for line in panel.lines)


def test_bands_are_left_out_where_they_would_hide_each_other():
    assert count_curves(figures.draw_errors(make_cells(6), window=10).axes[-1]) == 6 * 3
    crowded = figures.draw_errors(make_cells(7), window=10).axes
    assert count_curves(crowded[-1]) == 7
    assert crowded[0].get_title(loc="left") == "Test error: mean over seeds"


def test_a_cell_has_its_colour_wherever_it_stands():
    cells = [dataclasses.replace(cell, look=7) for cell in make_cells(1)]
    color = palette.COLORS[7]
    for axes in (
        figures.draw_errors(cells, window=10).axes[0],
        figures.draw_error_panels(cells, window=10, reference=None).axes[0],
        figures.draw_ranges(cells, window=10, ddof=0).axes[0],
    ):
        assert color in {line.get_color() for line in axes.lines}


def test_a_line_says_what_its_cell_came_to():
    (cell,) = make_cells(1)
    noted = dataclasses.replace(cell, note="L_b: 3.02 %")
    drawings = (
        figures.draw_errors([noted], window=10),
        figures.draw_error_panels([noted], window=10, reference=None),
        figures.draw_ranges([noted], window=10, ddof=0),
    )
    for drawing in drawings:
        assert set(drawing.notes.values()) == {("L_b: 3.02 %",)}


# --- many cells ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("lambda_3 = 0.1, lr = 0.1", ["lambda_3 = 0.1,", "lr = 0.1"]),
        ("L_b + L_is [lambda_3 = 10]", ["L_b + L_is", "[lambda_3 = 10]"]),
        # What no line holds is broken all the same.
        ("learning_rate_drops = 0.1234567", ["learning_rate_drops =", "0.1234567"]),
    ],
)
def test_a_line_is_not_broken_between_a_key_and_its_value(name, lines):
    assert names.split_lines(name, 22) == lines


@pytest.mark.parametrize("number", [7, 12])
def test_many_cells_have_two_panels_each_on_two_scales(number):
    cells = make_cells(number)
    figure = figures.draw_error_panels(cells, window=10, reference=cells[0].name)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert len(shown) == 2 * number
    whole, late = shown[::2], shown[1::2]
    for axes, cell in zip(whole, cells, strict=True):
        assert axes.get_title(loc="left") == names.wrap(cell.name, 44)
        assert axes.get_xlim() == (1, 40)
    assert {axes.get_xlim() for axes in late} == {(31, 40)}
    for panels in (whole, late):
        assert len({axes.get_ylim() for axes in panels}) == 1
        assert len({axes.get_yscale() for axes in panels}) == 1


def test_a_panel_holds_its_own_mean_and_spread_and_the_mean_of_the_reference_dashed():
    first, second = make_cells(2)
    figure = figures.draw_error_panels([first, second], window=10, reference=first.name)
    own, late, other, late_other = figure.axes[:4]
    assert len(own.lines) == len(late.lines) == 1
    dashed, line = late_other.lines
    assert dashed.get_linestyle() == "--"
    np.testing.assert_allclose(dashed.get_ydata(), first.mean[30:])
    np.testing.assert_allclose(line.get_xydata()[:, 0], np.arange(31, 41))
    np.testing.assert_allclose(line.get_ydata(), second.mean[30:])
    (band,) = other.collections
    edges = band.get_paths()[0].vertices
    mean, sd = second.mean, second.sd
    at_20 = sorted(set(edges[edges[:, 0] == 20][:, 1]))
    np.testing.assert_allclose(at_20, [mean[19] - sd[19], mean[19] + sd[19]])


def test_a_cell_without_a_finished_run_has_panels_that_say_so():
    lost = CellCurves.of_runs(name="lost", error_pct=np.empty((0, 40)), diverged=(np.array([90.0, 95.0]),))
    figure = figures.draw_error_panels([*make_cells(1), lost], window=10, reference=None)
    whole, late = figure.axes[2:4]
    assert [text.get_text() for text in late.texts] == ["no run finished"]
    thin, cross = whole.lines
    np.testing.assert_allclose(thin.get_xydata(), [[1, 90], [2, 95]])
    assert cross.get_marker() == "x"
    assert whole.get_ylim()[1] >= 95


def test_panels_of_few_epochs_are_one_a_cell_four_in_a_row():
    figure = figures.draw_error_panels(make_cells(8, epochs=10), window=10, reference=None)
    assert len(figure.axes) == 8
    assert len({round(axes.get_position().y0, 3) for axes in figure.axes}) == 2


def test_a_narrow_page_has_the_parts_of_a_figure_below_each_other_and_its_labels_below_them():
    with figures.narrow_page():
        figure = figures.draw_errors(make_cells(3), window=10)
    whole, late = figure.axes
    draw(figure)
    assert whole.get_position().y0 > late.get_position().y1
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "\n".join(names.wrap(name, 22).split("\n")) for name in NAMES[:3]
    ]


# --- details ------------------------------------------------------------------------------------------------


def test_no_word_of_a_name_is_broken():
    name = "student.learning_rate=0.316 and-more-of-it"
    figure = figures.draw_errors([CellCurves.of_runs(name=name, error_pct=np.full((2, 8), 3.0))], window=4)
    (text,) = figure.axes[-1].texts
    assert "student.learning_rate=0.316" in text.get_text().split("\n")


def test_late_errors_that_span_much_are_on_a_logarithmic_axis_too():
    cells = [CellCurves.of_runs(name=str(level), error_pct=np.full((2, 20), level)) for level in (4.0, 90.0)]
    late = figures.draw_errors(cells, window=5).axes[1]
    assert late.get_yscale() == "log"
    assert "enlarged" in late.get_title(loc="left")
    assert late.get_ylim()[0] < 4


def test_one_seed_has_no_band_and_says_so():
    (panel,) = figures.draw_errors(make_cells(1, runs=1, epochs=3), window=20).axes
    assert count_curves(panel) == 1
    assert panel.get_title(loc="left") == "Test error: one seed"


def test_the_window_is_not_enlarged_where_it_is_all_there_is():
    assert len(figures.draw_errors(make_cells(2, epochs=10), window=10).axes) == 1
    assert len(figures.draw_errors(make_cells(2, epochs=11), window=10).axes) == 2


def test_a_diverged_run_is_drawn_but_not_averaged():
    (cell,) = make_cells(1)
    curve = np.array([80.0, 60.0, 90.0, np.nan])
    with_run = dataclasses.replace(cell, diverged=(curve,))
    whole = figures.draw_errors([with_run], window=10).axes[0]
    np.testing.assert_allclose(whole.lines[0].get_ydata(), cell.mean)
    thin, cross = whole.lines[1:]
    np.testing.assert_allclose(thin.get_xydata(), [[1, 80], [2, 60], [3, 90]])
    np.testing.assert_allclose(cross.get_xydata(), [[3, 90]])
    assert cross.get_marker() == "x"


def test_a_cell_without_a_finished_run_is_named_where_something_is_drawn_of_it():
    lost = CellCurves.of_runs(name="lost", error_pct=np.empty((0, 40)), diverged=(np.array([90.0]),))
    never = CellCurves.of_runs(name="never", error_pct=np.empty((0, 40)))
    texts = [
        text.get_text()
        for text in figures.draw_errors([*make_cells(1), lost, never], window=10).axes[-1].texts
    ]
    assert texts == ["supervised learning", "lost (no run finished)"]


@pytest.mark.parametrize("cells", [[], [CellCurves.of_runs(name="never", error_pct=np.empty((0, 5)))]])
def test_a_sweep_without_runs_can_be_drawn(cells):
    assert figures.encode(figures.draw_errors(cells, window=20), "png").startswith(b"\x89PNG")


def test_the_axis_is_logarithmic_only_where_errors_span_much_and_none_is_zero():
    def scale(*levels: float) -> str:
        cell = CellCurves.of_runs(name="x", error_pct=np.array([levels, levels]))
        return str(figures.draw_errors([cell], window=20).axes[0].get_yscale())

    assert scale(90, 20, 3) == "log"
    assert scale(5, 4, 3) == "linear"
    assert scale(90, 20, 0) == "linear"


def test_twelve_cells_differ_without_colour():
    strokes = [style.stroke_of(index) for index in range(12)]
    assert len({(str(stroke["linestyle"]), stroke["marker"]) for stroke in strokes}) == 12


def lightness(color):
    """CIE L*, from 0 (black) to 100 (white)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return 116 * float(np.cbrt(np.dot(linear, (0.2126, 0.7152, 0.0722)))) - 16


def test_the_first_four_cells_rise_in_lightness():
    steps = np.diff([lightness(color) for color in palette.COLORS[:4]])
    assert steps.min() > 9
    assert lightness(palette.COLORS[3]) < 70  # and still stands out from white


@pytest.mark.parametrize(
    ("name", "drawn"),
    [
        ("L_b", r"$L_{\mathrm{b}}$"),
        ("L_b + L_adv^C", r"$L_{\mathrm{b}}$ + $L_{\mathrm{adv}}^{C}$"),
        ("loss.lambda_3 = 0.1", "loss.lambda_3 = 0.1"),
        ("$5", r"\$5"),
        ("L_b^2", "L_b^2"),
        ("SQL_b", "SQL_b"),
    ],
)
def test_only_losses_are_typeset(name, drawn):
    assert figures.typeset(name) == drawn


@pytest.mark.parametrize(
    "name", ["a$b$c_{", "\\frac{1", "{}^_%&#~", "L_b $ L_is", "$", "a\nb", "é", "x" * 200]
)
def test_any_name_can_be_drawn(name):
    cells = [CellCurves.of_runs(name=name, error_pct=np.array([[5.0, 4.0, 3.0], [5.0, 4.5, 3.0]]))]
    for figure in (figures.draw_errors(cells, window=2), figures.draw_ranges(cells, window=2, ddof=0)):
        draw(figure)


@pytest.mark.parametrize(
    ("centres", "places"),
    [
        ([0.2, 0.8], [0.2, 0.8]),
        ([0.8, 0.2], [0.8, 0.2]),
        ([0.5, 0.5], [0.45, 0.55]),
        ([0.0, 0.0, 1.0], [0.05, 0.15, 0.95]),
        ([0.5, 0.52, 0.7, 0.69], [0.4525, 0.5525, 0.7525, 0.6525]),
    ],
)
def test_labels_move_apart_as_little_as_possible(centres, places):
    assert labels._spread(centres, [0.1] * len(centres)) == pytest.approx(places)


def test_ranges_are_the_largest_minus_the_smallest_error_of_the_window():
    errors = np.array([[9.0, 3.0, 2.0, 4.0], [9.0, 1.0, 2.5, 3.0], [9.0, 2.0, 2.0, 1.0]])
    (panel,) = figures.draw_ranges([CellCurves.of_runs(name="x", error_pct=errors)], window=3, ddof=0).axes
    mean_line, ranges = panel.lines
    np.testing.assert_allclose(ranges.get_xydata(), [[2, 2.0], [3, 0.5], [4, 3.0]])
    assert mean_line.get_ydata()[0] == pytest.approx(5.5 / 3)
    assert f"S = {np.var([2.0, 0.5, 3.0]):.2g} pp²" in panel.get_title(loc="left")


def test_ranges_share_their_scale_and_start_at_zero():
    axes = figures.draw_ranges(make_cells(5), window=10, ddof=1).axes
    shown = [panel for panel in axes if panel.get_visible()]
    assert len(shown) == 5
    assert len({panel.get_ylim() for panel in shown}) == 1
    assert shown[0].get_ylim()[0] == 0


@pytest.mark.parametrize(("runs", "window"), [(1, 3), (2, 9)])
def test_ranges_refuse_what_they_are_not_defined_for(runs, window):
    with pytest.raises(ValueError, match="two runs and the whole window"):
        figures.draw_ranges(make_cells(1, runs=runs, epochs=8), window=window, ddof=0)


def test_differences_show_every_seed_the_mean_and_its_interval():
    item = PairedDifferences(name="L_b + L_is", by_seed=(-1.0, -0.5, 0.0), mean=-0.5, ci95=(-1.7, 0.7))
    lone = PairedDifferences(name="L_b + L_adv", by_seed=(0.3,), mean=0.3, ci95=None)
    (axes,) = figures.draw_differences([item, lone], reference="L_b").axes
    zero, dots, interval, mean, lone_dot, lone_mean = axes.lines
    assert set(zero.get_xdata()) == {0}
    assert list(dots.get_xdata()) == [-1.0, -0.5, 0.0]
    assert list(interval.get_xdata()) == [-1.7, 0.7]
    assert mean.get_xdata()[0] == -0.5
    assert lone_dot.get_xdata()[0] == lone_mean.get_xdata()[0] == 0.3


# --- the discriminator --------------------------------------------------------------------------------------


def test_of_many_seeds_as_many_are_drawn_as_can_be_told_apart_with_both_ends():
    values = np.random.default_rng(3).normal(0, 1, 2_500).tolist()
    item = PairedDifferences(
        name="many", by_seed=values, mean=0.0, ci95=(-0.1, 0.1), seeds=tuple(range(2_500))
    )
    figure = figures.draw_differences([item], reference="L_b")
    dots = figure.axes[0].get_lines()[1]
    drawn = dots.get_xdata().tolist()
    assert len(drawn) == figures.MOST_DOTS
    assert (min(drawn), max(drawn)) == (min(values), max(values))
    assert np.median(drawn) == pytest.approx(np.median(values), abs=0.01)
    # Each at the height of its own seed, and with its own note.
    heights = 0.12 + np.linspace(-0.16, 0.16, 2_500)
    places = [values.index(value) for value in drawn]
    np.testing.assert_allclose(dots.get_ydata(), heights[places])
    notes = figure.notes[dots.get_gid()]
    assert notes == tuple(f"many, seed {place}: {values[place]:+.2f} pp" for place in places)


def test_what_the_discriminator_did_is_drawn_over_seeds_and_left_out_where_it_is_unknown():
    accuracy = np.array([[0.5, 0.6, 0.7], [0.7, 0.8, 0.9]])
    ratio = spread_of(np.array([[np.nan, 0.2, 0.1], [np.nan, 0.4, 0.3]]), epochs=3)
    known = {"discriminator_accuracy": spread_of(accuracy, epochs=3)}
    cells = [
        CellHealth(name="L_b + L_adv", curves=known, look=0),
        CellHealth(name="other", curves=known | {"adversarial_gradient_ratio": ratio}, look=5),
    ]
    figure = figures.draw_health(cells)
    assert len(figure.axes) == 4
    assert [axes.get_title(loc="left").split("\n")[0] for axes in figure.axes[:2]] == [
        "Share that D",
        "Gradient of adversarial",
    ]
    mean = figure.axes[0].lines[-1]
    np.testing.assert_allclose(mean.get_xydata(), [[1, 0.6], [2, 0.7], [3, 0.8]])
    assert not figure.axes[1].lines
    np.testing.assert_allclose(figure.axes[3].lines[-1].get_xydata(), [[2, 0.3], [3, 0.2]])


def test_what_the_discriminator_did_has_the_colour_of_its_cell_and_scales_of_its_own():
    means = {
        name: spread_of(np.array([[0.1, level], [0.2, level]]), epochs=2)
        for name, level in (
            ("discriminator_accuracy", 0.5),
            ("discriminator_teacher_mean", 0.6),
            ("discriminator_student_mean", 0.4),
            ("discriminator_spread", 0.05),
            ("adversarial_gradient_ratio", 7.0),
        )
    }
    cells = [CellHealth(name=str(look), curves=means, look=look) for look in (2, 5)]
    for narrow in (False, True):
        with figures.narrow_page() if narrow else contextlib.nullcontext():
            figure = figures.draw_health(cells)
        assert len(figure.axes) == 8
        first, second = figure.axes[:4], figure.axes[4:]
        assert {line.get_color() for axes in second for line in axes.lines if len(axes.lines) == 1} == {
            palette.COLORS[5]
        }
        for one, other in zip(first, second, strict=True):
            assert one.get_ylim() == other.get_ylim()
        assert first[2].get_ylim()[1] < 1 < 7 < first[3].get_ylim()[1]
        draw(figure)
        assert len({round(axes.get_position().x0, 3) for axes in figure.axes}) == (2 if narrow else 4)
        assert list(figure.notes.values())[1] == ("2. What D says to teacher: 0.6 [0.6, 0.6] at the end",)


def test_a_logarithmic_axis_says_so():
    errors = np.geomspace(90, 2, 20)[None].repeat(2, axis=0)
    figure = figures.draw_errors([CellCurves.of_runs(name="x", error_pct=errors)], window=5)
    assert figure.axes[0].get_ylabel() == "Test error (%, log scale)"
    assert "linear scale" in figure.axes[1].get_title(loc="left")


def test_pictures_share_what_is_read_of_names_and_leave_matplotlib_as_it_was(monkeypatch):
    read = []
    parse = MathTextParser._parse_cached.__wrapped__

    def count(parser, text, *rest):
        read.append(text)
        return parse(parser, text, *rest)

    monkeypatch.setattr(MathTextParser, "_parse_cached", functools.lru_cache(50)(count))
    each_their_own = mpl.text.TextToPath

    def draw():
        with style.styled():
            figure = style.new_figure(4, 3)
            figure.subplots().set_title(names.typeset("L_adv + L_is"))
        return figures.encode(figure, "svg")

    first = draw()
    assert draw() == first
    assert len(read) == 1
    assert mpl.text.TextToPath is each_their_own
