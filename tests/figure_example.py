"""Cells as points of figures over axes."""

import numpy as np

from hkrun import figures
from hkrun.figures import AxisLine, CellPoint, Factor, HeatMap, LinePanel

LAMBDA = Factor(name="lambda_3", values=(0.1, 1.0, 10.0), labels=("0.1", "1", "10"), numeric=True)
RATE = Factor(name="lr", values=(0.01, 0.1), labels=("0.01", "0.1"), numeric=True)


def make_point(error=5.0, s=0.02, **changes):
    values = {
        "name": "x",
        "error": error,
        "ci95": (error - 0.5, error + 0.5),
        "by_seed": (error - 0.1, error + 0.1),
        "s": s,
        "s_ci95": (s / 2, s * 2),
        "finished": 5,
        "planned": 5,
        "lost": "",
        "reference": False,
        "differs": False,
        "look": None,
        "note": f"x: {error:.2f} %",
    }
    return CellPoint(**{**values, **changes})


def make_lost(what="5 diverged", **changes):
    gone = {"error": np.nan, "ci95": None, "by_seed": (), "s": np.nan, "s_ci95": None, "finished": 0}
    return make_point(**{**gone, "lost": what, "note": f"x: {what}", **changes})


def draw_line(*items, axis=LAMBDA, margin=0.5):
    panel = LinePanel(title="", axis=axis, lines=[AxisLine(name="", points=items)])
    return figures.draw_lines([panel], legend="", margin=margin)


def make_map(**changes):
    cells = [
        [make_point(4.0, 0.5), make_point(6.0, 0.02, differs=True), make_lost()],
        [make_point(5.0, 0.1, reference=True), make_point(88.0, 9.0, finished=2, lost="3 diverged"), None],
    ]
    return HeatMap(**{"title": "", "rows": RATE, "columns": LAMBDA, "points": cells, **changes})
