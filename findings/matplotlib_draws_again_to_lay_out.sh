#!/usr/bin/env bash
# Guess: `savefig` draws each artist once; a figure that has been laid out and then told `set_layout_engine("none")` surely so.
# Truth: with any layout engine, also the placeholder that "none" leaves in the place of a constrained one, `savefig` walks through
#        all artists once more, only to lay the figure out. After `set_layout_engine(None)`, with rcParams that ask for no
#        engine, it draws once.
# Hurts: reports of many figures, each saved as SVG and as PNG: one more pass over all artists, without output, for each file.
. "$(dirname "$0")/isolated.bash"
packages matplotlib==3.11.2 numpy==2.4.6

MPLCONFIGDIR=$folder python - <<'PYTHON'
import io

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot
from matplotlib.lines import Line2D

walks = []


class Watched(Line2D):
    def draw(self, renderer):
        walks.append(type(renderer).__name__)
        super().draw(renderer)


def count(figure, kind):
    walks.clear()
    figure.savefig(io.BytesIO(), format=kind)
    return len(walks)


def make(layout):
    figure, axes = pyplot.subplots(layout=layout)
    axes.add_line(Watched([0, 1], [0, 1]))
    return figure


print("matplotlib", matplotlib.__version__)
found = {}
for kind in ("png", "svg"):
    found[kind, "no engine"] = count(make(None), kind)
    found[kind, "constrained"] = count(make("constrained"), kind)
    for engine in ("none", None):
        figure = make("constrained")
        figure.get_layout_engine().execute(figure)
        figure.set_layout_engine(engine)
        found[kind, f"laid out, then set_layout_engine({engine!r})"] = count(figure, kind)
for (kind, what), number in found.items():
    print(f"  {kind}, {what}: artists are walked through {number} times")
assert {what: number for (kind, what), number in found.items() if kind == "png"} == {
    what: number for (kind, what), number in found.items() if kind == "svg"
}
assert found["png", "no engine"] == found["png", "laid out, then set_layout_engine(None)"] == 1
assert found["png", "constrained"] == found["png", "laid out, then set_layout_engine('none')"] == 2
print("As described: the placeholder costs a second pass, None does not.")
PYTHON
