#!/usr/bin/env bash
# Guess: a label with mathematics that stands in ten figures is read once: `MathTextParser` has a cache.
# Truth: the cache is by parser, and each renderer has a parser of its own. A figure saved as SVG with
#        layout="constrained" has three, and each reads the label anew, 10 ms. With one TextToPath for all it is once.
# Hurts: who draws many figures that are labelled alike: a quarter of the time of a page of eight.
. "$(dirname "$0")/isolated.bash"
packages matplotlib==3.11.2 numpy==2.4.6

MPLCONFIGDIR=$folder python - <<'PYTHON'
import functools
import io

import matplotlib
from matplotlib import text, textpath
from matplotlib.figure import Figure
from matplotlib.mathtext import MathTextParser

reads = []
parse = MathTextParser._parse_cached.__wrapped__


def count(self, label, *rest):
    reads.append(label)
    return parse(self, label, *rest)


MathTextParser._parse_cached = functools.lru_cache(50)(count)


def reads_of_figures(number):
    reads.clear()
    for _ in range(number):
        figure = Figure(layout="constrained")
        figure.subplots().set_title(r"$L_{\mathrm{adv}}$")
        figure.savefig(io.BytesIO(), format="svg")
    return len(reads)


print(f"matplotlib {matplotlib.__version__}")
print("one label in ten figures is read", apart := reads_of_figures(10), "times")
text.TextToPath = lambda: textpath.text_to_path
print("with one TextToPath for all", shared := reads_of_figures(10), "times")
assert (apart, shared) == (30, 1), (apart, shared)
PYTHON
