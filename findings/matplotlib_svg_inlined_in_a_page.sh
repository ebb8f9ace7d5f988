#!/usr/bin/env bash
# Guess: a figure that Matplotlib saved as SVG can be put into an HTML page, and styles itself alone.
# Truth: it carries a style sheet with a rule for `*`, which holds for every drawing of the page; and the ground of a
#        hatch is coloured by an attribute where all other colours are in `style`.
# Hurts: who inlines figures into a report: icons and charts of others get round joins; and who maps colours to a
#        dark palette by the styles leaves hatches in the light one.
. "$(dirname "$0")/isolated.bash"
packages matplotlib==3.11.2

python - <<'PYTHON'
import io, re
import matplotlib
from matplotlib.figure import Figure

figure = Figure()
axes = figure.subplots()
axes.bar([0], [1], color="#123456", edgecolor="#654321")
axes.bar([1], [1], facecolor="#abcdef", edgecolor="#fedcba", hatch="//")
text = io.StringIO()
figure.savefig(text, format="svg")
svg = text.getvalue()
rules = re.findall(r"<style[^>]*>(.*?)</style>", svg, flags=re.S)
print(f"matplotlib {matplotlib.__version__}")
print(f"  style sheet in the SVG: {rules}")
print(f"  the bar's colour: {re.findall(r'[a-z]+[:=][ ]?.?#123456', svg)}")
print(f"  the hatched bar's: {re.findall(r'[a-z]+[:=][ ]?.?#abcdef', svg)}")
assert rules == ["*{stroke-linejoin: round; stroke-linecap: butt}"]
assert re.search(r'style="fill: #123456', svg)
assert re.search(r'fill="#abcdef"', svg) and not re.search(r'fill: #abcdef', svg)
PYTHON
