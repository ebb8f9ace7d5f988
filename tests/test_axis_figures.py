"""Figures over axes: what is drawn of each cell, and which figure a study has."""

import contextlib
import dataclasses
import itertools
import re

import numpy as np
import pytest
from figure_example import LAMBDA, RATE, draw_line, make_lost, make_map, make_point
from matplotlib.colors import to_hex
from report_example import EPOCHS, TEST_IMAGES, make_sweep, put_run

from hkrun import figures
from hkrun.config import cell_from_values
from hkrun.figures import (
    AxisLine,
    DotRow,
    Factor,
    LinePanel,
    PairedDifferences,
    PlacedPoint,
    contents,
    palette,
    points,
)
from hkrun.report import render_report, summarise
from hkrun.report.drawing import draw_figures
from hkrun.spaces import NamedCell
from hkrun.store import open_store


def texts_of(axes):
    return [text.get_text() for text in axes.texts]


def find_marks(axes, marker):
    return [line for line in axes.lines if line.get_marker() == marker]


# --- one key of numbers -------------------------------------------------------------------------------------


def test_error_and_s_stand_over_the_values_of_a_key_with_their_intervals():
    error, s = draw_line(make_point(5.0, 0.02), make_point(4.0, 0.03), make_point(6.0, 0.01)).axes
    assert (error.get_ylabel(), s.get_ylabel()) == ("Test error, last epoch (%)", "S (pp²)")
    for axes, means, ends in (
        (error, [5.0, 4.0, 6.0], [(4.5, 5.5), (3.5, 4.5), (5.5, 6.5)]),
        (s, [0.02, 0.03, 0.01], [(0.01, 0.04), (0.015, 0.06), (0.005, 0.02)]),
    ):
        assert axes.get_xlabel() == "lambda_3"
        line, *rest = axes.lines
        np.testing.assert_allclose(line.get_xydata(), np.column_stack([LAMBDA.values, means]))
        intervals = [item for item in rest if len(item.get_xdata()) == 2]
        assert [tuple(item.get_ydata()) for item in intervals] == ends
        assert [item.get_xdata()[0] for item in intervals] == list(LAMBDA.values)
        assert [tuple(mark.get_xydata()[0]) for mark in find_marks(axes, "o")] == list(
            zip(LAMBDA.values, means, strict=True)
        )
        low, high = axes.get_ylim()
        assert low < min(end for pair in ends for end in pair)
        assert high > max(end for pair in ends for end in pair)


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([0.1, 1, 10], "log"),
        ([0.01, 0.03, 0.1, 0.8], "log"),
        ([16, 32, 64, 128], "log"),
        ([1, 2, 3, 4], "linear"),
        ([0.5, 0.9, 0.99], "linear"),
        ([0.1, 10], "log"),
        ([20, 40], "linear"),
        ([3], "linear"),
        ([0, 0.1, 1, 10], "symlog"),
        ([0, 1, 2, 3], "linear"),
        ([-1, 0, 1], "linear"),
    ],
)
def test_values_that_are_spread_over_magnitudes_have_a_logarithmic_axis(values, scale):
    assert points.choose_scale(values) == scale


def test_zero_has_a_place_of_its_own_on_a_logarithmic_axis():
    axis = Factor(name="k", values=(0, 0.1, 1, 10), labels=("0", "0.1", "1", "10"), numeric=True)
    figure = draw_line(*(make_point() for _ in range(4)), axis=axis)
    axes = figure.axes[0]
    places = axes.transData.transform([(value, 5.0) for value in axis.values])[:, 0]
    gaps = np.diff(places)
    assert gaps.min() > 0.3 * gaps.max()
    assert [label.get_text() for label in axes.get_xticklabels()] == list(axis.labels)
    left, right = axes.get_xlim()
    assert left < 0 < 10 < right


def test_labels_that_would_overlap_are_left_out_but_not_their_ticks():
    values = tuple(float(value) for value in range(1000, 1040))
    axis = Factor(name="k", values=values, labels=tuple(f"{value:.0f}" for value in values), numeric=True)
    axes = draw_line(*(make_point() for _ in values), axis=axis).axes[0]
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert len(axes.get_xticks()) == 40
    assert 5 < sum(map(bool, labels)) < 25


def test_the_reference_is_ringed_and_has_the_margin_around_it():
    error, s = draw_line(make_point(5.0), make_point(4.0, reference=True), make_point(6.0)).axes
    (band,) = error.patches
    assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx((3.5, 4.5))
    assert not s.patches
    for axes, value in ((error, 4.0), (s, 0.02)):
        (ring,) = [mark for mark in find_marks(axes, "o") if mark.get_markersize() > 8]
        assert tuple(ring.get_xydata()[0]) == (1.0, value)
        assert ring.get_markerfacecolor() == "none"


def test_what_diverged_or_is_missing_is_a_cross_with_its_reason_and_no_part_of_the_line():
    error, s = draw_line(make_point(5.0), make_lost(), make_lost("3 diverged, 2 missing")).axes
    for axes in (error, s):
        crosses = find_marks(axes, "x")
        assert [cross.get_xdata()[0] for cross in crosses] == [1.0, 10.0]
        assert all(cross.get_transform() == axes.get_xaxis_transform() for cross in crosses)
        assert texts_of(axes) == ["5 diverged", "3 diverged, 2 missing"]
        assert np.isnan(axes.lines[0].get_ydata()[1:]).all()
    assert error.get_ylim()[1] > 5.5 + 0.25 * (5.5 - error.get_ylim()[0])  # room for the words


def test_a_point_that_lacks_runs_is_hollow_and_says_how_many_finished():
    part = make_point(5.0, finished=3, lost="2 diverged")
    error = draw_line(make_point(4.0), part, make_point(6.0)).axes[0]
    faces = [to_hex(mark.get_markerfacecolor()) for mark in find_marks(error, "o")]
    assert faces == [contents.ACCENT, palette.PAPER, contents.ACCENT]
    assert texts_of(error) == ["3/5"]


def test_an_s_that_is_undefined_is_called_so():
    error, s = draw_line(make_point(5.0), make_point(4.0, s=np.nan, s_ci95=None), make_point(6.0)).axes
    assert texts_of(error) == []
    assert texts_of(s) == ["undefined"]
    assert s.texts[0].xy[0] == 1.0
    assert [mark.get_xdata()[0] for mark in find_marks(s, "o")] == [0.1, 10.0]


def test_without_any_s_there_is_the_error_alone():
    items = [make_point(error, s=np.nan, s_ci95=None, ci95=None) for error in (5.0, 4.0, 6.0)]
    (error,) = draw_line(*items).axes
    assert not [line for line in error.lines if len(line.get_xdata()) == 2]


def test_an_axis_without_any_finished_run_can_be_drawn():
    figure = draw_line(make_lost(), make_lost("5 missing"), make_lost("5 failed"))
    assert texts_of(figure.axes[0]) == ["5 diverged", "5 missing", "5 failed"]
    assert figures.encode(figure, "png").startswith(b"\x89PNG")


def test_errors_that_span_much_have_a_logarithmic_scale():
    error = draw_line(make_point(5.0), make_point(4.0), make_point(90.0)).axes[0]
    assert error.get_yscale() == "log"
    assert error.get_ylim()[0] < 3.5
    assert draw_line(make_point(5.0), make_point(4.0), make_point(20.0)).axes[0].get_yscale() == "linear"


def test_points_of_one_line_have_the_colours_of_their_cells():
    error = draw_line(*(make_point(look=look) for look in (0, 5, 2))).axes[0]
    colors = [to_hex(mark.get_markeredgecolor()) for mark in find_marks(error, "o")]
    assert colors == [palette.COLORS[look] for look in (0, 5, 2)]


def test_every_point_says_what_it_is():
    figure = draw_line(make_point(5.0), make_point(4.0), make_lost())
    assert list(figure.notes.values()) == [("x: 5.00 %",), ("x: 4.00 %",), ("x: 5 diverged",)] * 2


def test_lines_of_words_differ_in_colour_dashes_and_marker_and_are_named_once():
    lines = [
        AxisLine(name=name, points=[make_point(), None, make_lost() if name == "nst" else make_point()])
        for name in ("at", "fsp", "nst", "vid")
    ]
    panel = LinePanel(title="", axis=LAMBDA, lines=lines)
    figure = figures.draw_lines([panel], legend="form", margin=0.5)
    (legend,) = figure.legends
    assert legend.get_title().get_text() == "form"
    assert [text.get_text() for text in legend.get_texts()] == ["at", "fsp", "nst", "vid"]
    handles = legend.get_lines()
    assert len({handle.get_color() for handle in handles}) == 4
    assert len({handle.get_marker() for handle in handles}) == 4
    assert len({str(handle._dash_pattern) for handle in handles}) == 4
    error = figure.axes[0]
    assert not error.patches  # a margin would belong to one of the lines
    (cross,) = find_marks(error, "x")
    assert cross.get_color() == handles[2].get_color()
    assert texts_of(error) == ["5 diverged"]
    joined = [line for line in error.lines if line.get_marker() == "" and len(line.get_xdata()) == 2]
    starts = error.transData.inverted().transform(
        [line.get_transform().transform(line.get_xydata()[0]) for line in joined[:1]]
    )
    assert starts[0, 0] != pytest.approx(0.1)  # beside the value, so that intervals do not hide each other


def test_panels_share_the_scales_of_error_and_of_s():
    panels = [
        LinePanel(
            title="", axis=axis, lines=[AxisLine(name="", points=[make_point(level)] * len(axis.values))]
        )
        for axis, level in ((LAMBDA, 4.0), (RATE, 8.0))
    ]
    figure = figures.draw_lines(panels, legend="", margin=0.5)
    (first, second), (s_first, s_second) = figure.axes[:2], figure.axes[2:]
    assert first.get_ylim() == second.get_ylim()
    assert s_first.get_ylim() == s_second.get_ylim()
    assert [axes.get_xlabel() for axes in figure.axes] == ["lambda_3", "lr"] * 2
    assert not figure.legends


# --- two keys of numbers ------------------------------------------------------------------------------------


def patches_of(axes):
    return {
        (round(patch.get_x() + 0.49), round(patch.get_y() + 0.49)): patch
        for patch in axes.patches
        if patch.get_fill()
    }


def test_a_map_writes_every_figure_and_marks_the_lowest_the_reference_and_what_differs():
    error, s, *_ = figures.draw_maps([make_map()]).axes
    assert texts_of(error) == [
        *("4.00", "± 0.50", "6.00 *", "± 0.50", "diverged\n0/5"),
        *("5.00", "± 0.50", "88.00\n2/5"),
    ]
    assert [text for text in texts_of(s) if text] == [
        *("0.50", "0.020", "diverged\n0/5"),
        *("0.10", "9.0\n2/5"),
    ]
    assert [text.get_text() for text in error.texts if text.get_fontweight() == "bold"] == ["4.00"]
    assert [text.get_text() for text in s.texts if text.get_fontweight() == "bold"] == ["0.020"]
    for axes in (error, s):
        (frame,) = [patch for patch in axes.patches if not patch.get_fill()]
        assert (round(frame.get_x() + 0.46), round(frame.get_y() + 0.44)) == (0, 1)
    assert (error.get_xlabel(), error.get_ylabel()) == ("lambda_3", "lr")
    assert [label.get_text() for label in error.get_xticklabels()] == ["0.1", "1", "10"]
    assert [label.get_text() for label in error.get_yticklabels()] == ["0.01", "0.1"]


def test_cells_that_lack_runs_are_hatched_and_out_of_the_scale_of_colours():
    error = figures.draw_maps([make_map()]).axes[0]
    patches = patches_of(error)
    assert {place for place, patch in patches.items() if patch.get_hatch()} == {(2, 0), (1, 1)}
    colors = {place: to_hex(patch.get_facecolor()) for place, patch in patches.items()}
    assert colors[0, 0] == palette.TONES[0]  # 4 %, the lowest
    assert colors[1, 0] == palette.TONES[-1]  # 6 %, the highest of a cell that is whole; 88 % is not
    assert colors[0, 1] == palette.TONES[4]
    assert colors[2, 0] == colors[1, 1] == palette.BAND
    assert (2, 1) not in patches


def test_a_map_that_spans_magnitudes_has_a_logarithmic_scale_of_colours():
    cells = [[make_point(4.0), make_point(18.0), make_point(81.0)]]
    rows = Factor(name="lr", values=(0.1,), labels=("0.1",), numeric=True)
    error = figures.draw_maps([make_map(rows=rows, points=cells)]).axes[0]
    colors = [to_hex(patch.get_facecolor()) for patch in patches_of(error).values()]
    assert colors == [palette.TONES[0], palette.TONES[4], palette.TONES[-1]]


def test_an_interval_that_was_cut_where_errors_end_is_written_with_its_ends():
    rows = Factor(name="lr", values=(0.1,), labels=("0.1",), numeric=True)
    cells = [[make_point(1.0, ci95=(0.0, 3.5)), make_point(4.0), None]]
    error = figures.draw_maps([make_map(rows=rows, points=cells)]).axes[0]
    assert texts_of(error) == ["1.00", "0.0 to 3.5", "4.00", "± 0.50"]


def test_a_map_of_equal_errors_and_one_without_any_can_be_drawn():
    rows = Factor(name="lr", values=(0.1,), labels=("0.1",), numeric=True)
    for cells in ([[make_point(0.0, 0.0)] * 3], [[make_lost()] * 3]):
        figure = figures.draw_maps([make_map(rows=rows, points=cells)])
        assert figures.encode(figure, "svg").startswith(b"<?xml")


def test_maps_of_words_share_one_scale_of_colours():
    low = [[make_point(2.0)] * 3, [make_point(4.0)] * 3]
    high = [[make_point(6.0)] * 3, [make_point(10.0)] * 3]
    maps = [make_map(title=title, points=cells) for title, cells in (("at", low), ("fsp", high))]
    figure = figures.draw_maps(maps)
    titles = {axes.get_title(loc="left"): axes for axes in figure.axes if axes.get_title(loc="left")}
    assert list(titles) == [
        *("Test error, last epoch (%) · at", "Test error, last epoch (%) · fsp"),
        *("S (pp²) · at", "S (pp²) · fsp"),
    ]
    error = titles["Test error, last epoch (%) · fsp"]
    assert to_hex(patches_of(error)[0, 0].get_facecolor()) == palette.TONES[4]


def test_hatches_keep_their_pattern_in_a_page():
    figure = figures.draw_maps([make_map()])
    page = figures.InlineFigures()
    text = page.add("map", figures.encode(figure, "svg"), notes=figure.notes, attributes={})
    patterns = set(re.findall(r'<pattern[^>]* id="([^"]*)"', text))
    assert patterns
    assert set(re.findall(r'fill="url\(#([^)]*)\)"', text)) == patterns


# --- words --------------------------------------------------------------------------------------------------


def test_words_are_rows_of_seeds_means_and_paired_differences():
    pair = PairedDifferences(name="at", by_seed=(-1.0, 0.5), mean=-0.25, ci95=(-2.0, 1.5))
    rows = [
        DotRow(label="squeezed", point=make_point(5.0, reference=True), differences=None, reason="reference"),
        DotRow(label="at", point=make_point(4.0, finished=2, lost="3 diverged"), differences=pair, reason=""),
        DotRow(label="fsp", point=make_lost(), differences=None, reason="withheld"),
    ]
    error, differences = figures.draw_dots(rows, title="form", reference="squeezed").axes
    assert [label.get_text() for label in error.get_yticklabels()] == ["squeezed", "at (2/5)", "fsp"]
    assert error.get_ylabel() == "form"
    seeds = [line for line in error.lines if line.get_marker() == "o" and line.get_markersize() < 5]
    np.testing.assert_allclose(seeds[0].get_xdata(), [4.9, 5.1])
    means = find_marks(error, "D")
    assert [mark.get_xdata()[0] for mark in means] == [5.0, 4.0]
    assert texts_of(error) == ["5 diverged"]
    (cross,) = find_marks(error, "x")
    assert cross.get_ydata()[0] == 2
    assert texts_of(differences) == ["reference", "withheld"]
    np.testing.assert_allclose(differences.lines[0].get_xdata(), [-1.0, 0.5])
    assert differences.get_xlabel() == "Difference to squeezed (pp); left is better"


def test_without_a_reference_there_are_no_differences():
    rows = [DotRow(label=str(n), point=make_point(), differences=None, reason="-") for n in range(3)]
    assert len(figures.draw_dots(rows, title="form", reference="").axes) == 1


# --- more ---------------------------------------------------------------------------------------------------


def test_cells_over_many_axes_are_sorted_by_error_with_their_values_below():
    form = Factor(name="form", values=("at", "fsp"), labels=("at", "fsp"), numeric=False)
    placed = [
        PlacedPoint(point=make_point(6.0), at=(0, 0)),
        PlacedPoint(point=make_lost(), at=(1, 1)),
        PlacedPoint(point=make_point(4.0), at=(2, 1)),
    ]
    figure = figures.draw_sorted([LAMBDA, form], placed)
    top, lambdas, forms = figure.axes
    assert [tuple(mark.get_xydata()[0]) for mark in find_marks(top, "o")] == [(1, 4.0), (2, 6.0)]
    (cross,) = find_marks(top, "x")
    assert cross.get_xdata()[0] == 3
    assert figure.notes[cross.get_gid()] == ("x: 5 diverged",)
    assert list(lambdas.lines[0].get_ydata()) == [2, 0, 1]
    assert list(forms.lines[0].get_ydata()) == [1, 0, 1]
    assert [label.get_text() for label in forms.get_yticklabels()] == ["at", "fsp"]


# --- which figure a study has -------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "store")


def make_axes(axes, *, groups=("",), **changes):
    """A sweep over the product of values, for each cell by its name."""
    cells = []
    for place, group in enumerate(groups):
        for values in itertools.product(*axes.values()):
            point = dict(zip(axes, values, strict=True))
            shown = ", ".join(f"{key}={value}" for key, value in point.items())
            name = f"{group} [{shown}]" if group else shown
            cell = cell_from_values({"student.epochs": EPOCHS, "loss.mu": 1.0 + place, **point})
            cells.append(NamedCell(name=name, cell=cell, group=group, point=point))
    return make_sweep(cells=tuple(cells), reference=None, published=(), num_seeds=3, **changes)


def fill_levels(store, sweep, *, diverged=(), missing=()):
    """Runs whose last error is a number of wrong images of their own: 20 more for each cell."""
    for place, named in enumerate(sweep.cells):
        for seed in sweep.seeds:
            count = 40 + 20 * place + seed
            errors = [100 * (count + (epoch % 2) * seed) / TEST_IMAGES for epoch in range(1, EPOCHS + 1)]
            if (place, seed) in missing:
                continue
            status = "diverged" if (place, seed) in diverged else "finished"
            put_run(store, named, seed, errors=errors[:3] if status == "diverged" else errors, status=status)


def draw(sweep, store):
    """The figures by their names, the summary beside them."""
    drawn = draw_figures(summarise(sweep, store))
    assert len({figure.name for figure in drawn}) == len(drawn)
    return {figure.name: figure for figure in drawn}


WEIGHTS = (0.1, 1.0, 10.0)


def test_one_key_of_numbers_is_the_first_figure_of_the_report(store):
    sweep = make_axes({"loss.lambda_3": WEIGHTS})
    fill_levels(store, sweep, diverged={(2, 0), (2, 1), (2, 2)})
    drawn = draw(sweep, store)
    assert list(drawn)[:2] == ["sensitivity", "error-curves"]
    assert drawn["sensitivity"].section == "lead"
    error, s = drawn["sensitivity"].drawn.axes
    means = [100 * (40 + 20 * place + 1) / TEST_IMAGES for place in (0, 1)]
    np.testing.assert_allclose(error.lines[0].get_ydata(), [*means, np.nan])
    assert error.get_xlabel() == "lambda_3"
    assert error.get_xscale() == "log"
    assert texts_of(error) == texts_of(s) == ["3 diverged"]
    (ring,) = [mark for mark in find_marks(error, "o") if mark.get_markersize() > 8]
    assert ring.get_xdata()[0] == 1.0  # the default of loss.lambda_3
    report = render_report(summarise(sweep, store))["report.md"].decode()
    images = re.findall(r"\]\(([\w-]+)\.svg\)", report)
    assert images == list(drawn)


def test_a_cell_has_one_colour_in_all_figures(store):
    sweep = make_axes({"loss.lambda_3": WEIGHTS})
    fill_levels(store, sweep)
    drawn = draw(sweep, store)
    points_ = find_marks(drawn["sensitivity"].drawn.axes[0], "o")
    colors = [to_hex(mark.get_markeredgecolor()) for mark in points_ if mark.get_markersize() < 8]
    assert colors == list(palette.COLORS[:3])
    late = drawn["error-curves"].drawn.axes[-1]
    assert [line.get_color() for line in late.lines if line.get_linewidth() == 1.6][:3] == colors
    panels = drawn["ranges"].drawn.axes
    assert [panel.lines[-1].get_color() for panel in panels] == colors


def test_numbers_and_words_are_a_line_for_each_word(store):
    sweep = make_axes({"loss.lambda_3": WEIGHTS, "knowledge.form": ("at", "nst")})
    fill_levels(store, sweep)
    figure = draw(sweep, store)["sensitivity"]
    (legend,) = figure.drawn.legends
    assert legend.get_title().get_text() == "form"
    assert [text.get_text() for text in legend.get_texts()] == ["at", "nst"]
    lines = [
        line for line in figure.drawn.axes[0].lines if line.get_marker() == "" and line.get_zorder() == 2
    ]
    at, nst = (
        [100 * (41 + 20 * place) / TEST_IMAGES for place in places] for places in ((0, 2, 4), (1, 3, 5))
    )
    np.testing.assert_allclose([line.get_ydata() for line in lines], [at, nst])


def test_cells_that_are_crossed_with_numbers_are_a_line_each(store):
    sweep = make_axes({"loss.lambda_3": WEIGHTS}, groups=("one", "two"))
    fill_levels(store, sweep)
    (legend,) = draw(sweep, store)["sensitivity"].drawn.legends
    assert legend.get_title().get_text() == "cell"
    assert [text.get_text() for text in legend.get_texts()] == ["one", "two"]


def test_words_with_numbers_crossed_with_cells_are_panels(store):
    sweep = make_axes({"loss.lambda_3": WEIGHTS, "knowledge.form": ("at", "nst")}, groups=("one", "two"))
    fill_levels(store, sweep)
    figure = draw(sweep, store)["sensitivity"].drawn
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["one", "two", "", ""]


def test_two_keys_of_numbers_are_a_map_with_the_first_rising_upward(store):
    sweep = make_axes({"loss.lambda_3": WEIGHTS, "student.learning_rate": (0.1, 0.01)})
    fill_levels(store, sweep, diverged={(0, 1)}, missing={(5, 2)})
    drawn = draw(sweep, store)
    error = drawn["grid"].drawn.axes[0]
    assert (error.get_ylabel(), error.get_xlabel()) == ("lambda_3", "lr")
    assert [label.get_text() for label in error.get_xticklabels()] == ["0.01", "0.1"]
    hatched = {place for place, patch in patches_of(error).items() if patch.get_hatch()}
    assert hatched == {(1, 0), (0, 2)}  # lr 0.1 with lambda_3 0.1, lr 0.01 with 10
    assert [text for text in texts_of(error) if "/" in text] == ["3.70\n2/3", "12.69\n2/3"]
    assert "Hatched cells lack runs" in drawn["grid"].caption
    assert drawn["grid"].caption.count("lambda_3") == 1


def test_words_are_dots_beside_paired_differences_that_are_drawn_once(store):
    sweep = make_axes({"knowledge.form": ("squeezed", "at", "fsp")})
    sweep = dataclasses.replace(sweep, reference="knowledge.form=squeezed")
    fill_levels(store, sweep)
    drawn = draw(sweep, store)
    assert "differences" not in drawn
    error, differences = drawn["categories"].drawn.axes
    assert [label.get_text() for label in error.get_yticklabels()] == ["squeezed", "at", "fsp"]
    means = [mark.get_xdata()[0] for mark in find_marks(differences, "D")]
    np.testing.assert_allclose(means, [100 * 20 / TEST_IMAGES, 100 * 40 / TEST_IMAGES])
    assert texts_of(differences) == ["reference"]


def test_switches_and_lists_are_words(store):
    sweep = make_axes({"knowledge.relative": (True, False), "knowledge.form": ("at", "fsp")})
    fill_levels(store, sweep)
    error = draw(sweep, store)["categories"].drawn.axes[0]
    labels = [label.get_text() for label in error.get_yticklabels()]
    assert labels == ["true, at", "true, fsp", "false, at", "false, fsp"]
    assert error.get_ylabel() == "relative, form"


def test_three_keys_of_numbers_are_sorted_by_error(store):
    axes = {"loss.lambda_1": (0.1, 1.0), "loss.lambda_2": (0.1, 1.0), "loss.lambda_3": (0.1, 1.0)}
    sweep = make_axes(axes)
    fill_levels(store, sweep)
    drawn = draw(sweep, store)
    top, *below = drawn["sorted"].drawn.axes
    assert len(find_marks(top, "o")) == 8
    assert [panel.get_ylabel() for panel in below] == ["lambda_1", "lambda_2", "lambda_3"]
    assert drawn["sorted"].caption.startswith(
        "Test error of the last epoch over lambda_1, lambda_2, lambda_3:"
    )


def test_several_figures_of_a_kind_are_numbered(store):
    first = make_axes({"loss.lambda_3": WEIGHTS, "loss.lambda_2": WEIGHTS}, groups=("a",))
    second = make_axes({"loss.lambda_3": WEIGHTS, "loss.lambda_1": WEIGHTS}, groups=("b",))
    sweep = dataclasses.replace(first, cells=first.cells + second.cells)
    fill_levels(store, sweep)
    assert [name for name in draw(sweep, store) if name.startswith("grid")] == ["grid-1", "grid-2"]


def test_an_axis_of_one_value_is_no_figure(store):
    sweep = make_axes({"loss.lambda_3": (1.0,)})
    fill_levels(store, sweep)
    assert next(iter(draw(sweep, store))) == "error-curves"


def test_up_to_twelve_cells_have_curves_and_of_more_the_reference_the_best_and_the_worst(store):
    rates = (0.1, 0.2, 0.3, 0.4)
    twelve = make_axes({"loss.lambda_3": WEIGHTS, "student.learning_rate": rates})
    fill_levels(store, twelve)
    figure = draw(twelve, store)["error-curves"]
    assert len([axes for axes in figure.drawn.axes if axes.get_visible()]) == 24
    assert "Left out" not in figure.caption
    more = make_axes({"loss.lambda_3": WEIGHTS, "student.learning_rate": (*rates, 0.5)})
    lost = {(14, seed) for seed in range(3)}
    fill_levels(store, more, diverged=lost)
    figure = draw(more, store)["error-curves"]
    names = [text.get_text().replace("\n", " ") for text in figure.drawn.axes[-1].texts]
    best, worst, reference = (
        f"lambda_3 = {weight}, lr = {rate}" for weight, rate in ((0.1, 0.1), (10, 0.4), (1, 0.1))
    )
    assert sorted(names) == sorted([best, worst, reference])
    shown = f"it shows default ({reference}), best ({best}), worst ({worst})."
    assert f"Of 15 configurations {shown} Left out: 12, 1 of them without a finished run;" in figure.caption
    assert "the figures above and the tables have them" in figure.caption


def test_the_best_of_many_is_one_of_which_no_run_is_lost(store):
    sweep = make_axes({"loss.lambda_3": WEIGHTS, "student.learning_rate": (0.1, 0.2, 0.3, 0.4, 0.5)})
    fill_levels(store, sweep, diverged={(0, 1)})
    assert "best (lambda_3 = 0.1, lr = 0.2)" in draw(sweep, store)["error-curves"].caption


@pytest.mark.parametrize("lost", ["diverged", "missing"])
def test_a_study_without_a_finished_run_has_figures_that_say_so(store, lost):
    sweep = make_axes({"loss.lambda_3": WEIGHTS})
    every = {(place, seed) for place in range(3) for seed in range(3)}
    fill_levels(store, sweep, **{lost: every})
    drawn = draw(sweep, store)
    assert list(drawn) == ["sensitivity", "error-curves"]
    assert texts_of(drawn["sensitivity"].drawn.axes[0]) == [f"3 {lost}"] * 3
    for figure in drawn.values():
        assert figure.svg.startswith(b"<?xml")


def test_one_seed_has_neither_intervals_nor_s(store):
    sweep = make_axes({"loss.lambda_3": WEIGHTS}, seeds=(0,))
    fill_levels(store, sweep)
    drawn = draw(sweep, store)
    (error,) = drawn["sensitivity"].drawn.axes
    assert len(find_marks(error, "o")) == 4  # and the ring
    assert " and S" not in drawn["sensitivity"].caption
    assert "ranges" not in drawn


def test_every_figure_over_axes_explains_its_cells_and_fits_a_page(store):
    spaces = (
        {"loss.lambda_3": WEIGHTS},
        {"loss.lambda_3": WEIGHTS, "student.learning_rate": (0.1, 0.2)},
        {"knowledge.form": ("at", "fsp")},
        {"loss.lambda_1": (0.1, 1.0), "loss.lambda_2": (0.1, 1.0), "loss.mu": (0.1, 1.0)},
    )
    for axes in spaces:
        sweep = make_axes(axes)
        fill_levels(store, sweep)
        summary = summarise(sweep, store)
        for narrow in (False, True):
            with figures.narrow_page() if narrow else contextlib.nullcontext():
                figure = draw_figures(summary)[0]
                assert figure.drawn.get_figwidth() <= (figures.NARROW_PAGE if narrow else figures.PAGE)
            page = figures.InlineFigures()
            text = page.add("x", figure.svg, notes=figure.drawn.notes, attributes={})
            for cell in summary.cells:
                assert f"{cell.label}: {cell.error_last.mean:.2f} ± " in text
