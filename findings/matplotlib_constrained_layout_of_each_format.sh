#!/usr/bin/env bash
# Guess: a figure has one layout; savefig as SVG, PNG and PDF gives one picture in three formats.
# Truth: with layout="constrained" each savefig lays the figure out anew, with the widths that text has in that
#        format and resolution: the axes have other bounds in each file, and the figure keeps those of the last one.
# Hurts: who lays an image map, a link or an annotation over the picture by positions read from the figure, or
#        compares formats: a tenth of a pixel, or more than one. `fig.set_layout_engine("none")` after a first savefig
#        keeps that one's.
. "$(dirname "$0")/isolated.bash"
packages matplotlib==3.11.2 numpy==2.4.6

MPLBACKEND=agg MPLCONFIGDIR=$folder python -W ignore - <<'PYTHON'
import io

import matplotlib
import matplotlib.pyplot as plt


def bounds(figure, axes, kind, **options):
    figure.savefig(io.BytesIO(), format=kind, **options)
    return tuple(round(float(value), 9) for value in axes.get_position().bounds)


def drawn(**options):
    figure, axes = plt.subplots(**options)
    axes.plot([0, 1], [0, 1])
    axes.set_ylabel("accuracy")
    kinds = {"svg": ("svg", {}), "pdf": ("pdf", {}), "png": ("png", {}), "png, dpi=72": ("png", {"dpi": 72})}
    found = {name: bounds(figure, axes, kind, **more) for name, (kind, more) in kinds.items()}
    again = bounds(figure, axes, "svg")
    figure.set_layout_engine("none")
    fixed = {bounds(figure, axes, kind, **more) for kind, more in kinds.values()}
    return found, again, fixed


print("matplotlib", matplotlib.__version__)
plain, _, _ = drawn()
constrained, again, fixed = drawn(layout="constrained")
for name, found in constrained.items():
    print(f"constrained, {name}: left {found[0]:.5f}, width {found[2]:.5f} of the figure")
print("without a layout engine: bounds in four files:", len(set(plain.values())))
print("constrained:             bounds in four files:", len(set(constrained.values())))
print("constrained, then none:  bounds in four files:", len(fixed))
assert len(set(plain.values())) == 1
assert len(set(constrained.values())) == 4
assert again == constrained["svg"]  # no drift: the format decides
assert fixed == {again}
PYTHON
