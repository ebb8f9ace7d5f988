#!/usr/bin/env bash
# Guess: A grey PNG whose tRNS chunk declares one value transparent gets alpha 0 there from `convert("RGBA")`.
# Truth: With 2 or 4 bits a pixel the declared value is compared as it is in the file with pixels that are scaled to
#        8 bits already: unless it is 0, nothing becomes transparent. With 8 bits it works.
# Hurts: Who masks annotations or composes sprites by alpha; masks come out full.
. "$(dirname "$0")/isolated.bash"
packages pillow==13.0.0 pypng==0.20220715.0 numpy==2.4.6

python - <<'PYTHON'
import io

import numpy as np
import PIL
import png
from PIL import Image


def alphas(bits: int, *, transparent: int) -> tuple[list[int], list[int]]:
    """Of the pixels 0, 1, 2, 3: by Pillow, and by pypng."""
    file = io.BytesIO()
    png.Writer(width=4, height=1, bitdepth=bits, greyscale=True, transparent=transparent).write(file, [[0, 1, 2, 3]])
    content = file.getvalue()
    by_pillow = np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))[0, :, 3].tolist()
    _, _, rows, info = png.Reader(bytes=content).asRGBA()
    (row,) = rows
    most = 2 ** info["bitdepth"] - 1
    return by_pillow, [255 * value // most for value in row[3::4]]


print("pillow", PIL.__version__)
found = {bits: alphas(bits, transparent=1) for bits in (2, 4, 8)}
for bits, (by_pillow, by_pypng) in found.items():
    print(f"{bits} bits, value 1 transparent: Pillow {by_pillow}, pypng {by_pypng}")
assert [by_pypng for _, by_pypng in found.values()] == [[255, 0, 255, 255]] * 3
assert [by_pillow for by_pillow, _ in found.values()] == [[255] * 4, [255] * 4, [255, 0, 255, 255]]
print("As described: below 8 bits Pillow makes nothing transparent.")
PYTHON
