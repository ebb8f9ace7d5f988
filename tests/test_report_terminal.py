"""The terminal's summary at any width: no name breaks inside a word, no figure is cut, all is spelled out."""

import io

import pytest
from report_example import EPOCHS, TEST_IMAGES, make_cell, make_sweep, put_run
from rich.cells import cell_len
from rich.console import Console

from hkrun.report import print_summary, summarise
from hkrun.report.wording import join
from hkrun.spaces import NamedCell
from hkrun.store import open_store

WORDS = (
    "label supervision only, no teacher at all",
    "label supervision with intermediate supervision at the default weight",
    "without-the-adversarial-loss-and-with-everything-else-as-published",
    "L_b",
)
WIDE = (
    "교사 없이 레이블만으로 학습한 학생 네트워크",
    "敵対的損失なし、その他は論文のとおりの設定",
    "👍🏽 default",
)
AXES = ("loss.lambda_1", "loss.lambda_3", "loss.mu", "student.learning_rate", "student.weight_decay")


def named_cells(names):
    return tuple(NamedCell(name=name, cell=make_cell(0.1 * place, 0.0)) for place, name in enumerate(names))


def axis_cells(keys, *, group=""):
    cells = []
    for place in range(3):
        point = dict.fromkeys(keys, 0.5 + 0.25 * place)
        values = ", ".join(f"{key}={value}" for key, value in point.items())
        name = f"{group} [{values}]" if group else values
        cell = make_cell(0.2, point.get("loss.lambda_3", 0.3), **point)
        cells.append(NamedCell(name=name, cell=cell, group=group, point=point))
    return tuple(cells)


CELLS = {
    "names": named_cells(WORDS),
    "wide": named_cells(WIDE),
    "one axis": axis_cells(AXES[1:2]),
    "five axes": axis_cells(AXES),
    "groups": (*named_cells(WORDS[3:]), *axis_cells(AXES[1:3], group=WORDS[1])),
}


@pytest.fixture(params=CELLS)
def summary(request, tmp_path):
    store, cells = open_store(tmp_path / "store"), CELLS[request.param]
    sweep = make_sweep(cells=cells, num_seeds=4, published=(), reference=cells[0].name)
    for place, named in enumerate(cells):
        for seed in sweep.seeds:
            error_pct = 100 * (50 + 3 * place + seed % 2) / TEST_IMAGES
            put_run(store, named, seed, errors=[error_pct + 0.1 * (seed == 1)] * EPOCHS)
    return summarise(sweep, store)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_table_fits_and_names_are_whole_or_shortened_and_spelled_out(summary, width):
    stream = io.StringIO()
    print_summary(summary, Console(file=stream, width=width, force_terminal=True, color_system=None))
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    assert max(map(cell_len, lines)) <= width
    rule = next(place for place, line in enumerate(lines) if "───" in line)
    rows = lines[rule + 1 : rule + 1 + len(summary.cells)]
    below = "".join(lines[rule + 1 + len(summary.cells) :]).replace(" ", "")
    columns = summary.columns
    for cell, row in zip(summary.cells, rows, strict=True):
        assert f"{cell.error_last.mean:.2f} ± " in row  # no figure is cut
        start = row[: row.index(f"{cell.error_last.mean:.2f}")]
        for text in filter(None, columns.fields[cell.name]):
            whole = f" {text} " in start or f" {columns.labels[cell.name]} " in start
            spelled_out = any(
                f":{full.replace(' ', '')}" in below for full in (text, columns.labels[cell.name])
            )
            assert whole or spelled_out, (text, row)
    assert len({row.split("±")[0] for row in rows}) == len(rows)


def test_labels_with_commas_are_told_apart_in_sentences():
    assert join(["a", "b", "c"]) == "a, b and c"
    assert join(["mu = 1, lr = 2", "mu = 2, lr = 1"]) == "mu = 1, lr = 2; and mu = 2, lr = 1"
    assert join(["mu = 1, lr = 2"]) == "mu = 1, lr = 2"
