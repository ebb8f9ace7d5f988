#!/usr/bin/env bash
# Guess: `Image.open(png).convert("RGB")`, the line of every image data set, brings 16-bit PNGs to 8 bits in one way,
#        by scaling.
# Truth: In two ways, neither of which is scaling: grey values are clipped at 255, so that nearly all become white,
#        and of colour values the high byte is kept, so that small ones become black.
# Hurts: Who trains on X-rays, depth or microscopy images in the layout of ImageNet: nothing is raised, all images
#        are constant.
. "$(dirname "$0")/isolated.bash"
packages pillow==13.0.0 pypng==0.20220715.0 numpy==2.4.6

python - <<'PYTHON'
import io

import numpy as np
import PIL
import png
from PIL import Image

VALUES = [200, 255, 256, 4000, 60000]


def write(*, greyscale: bool) -> bytes:
    row = VALUES if greyscale else [value for value in VALUES for _ in range(3)]
    file = io.BytesIO()
    png.Writer(width=len(VALUES), height=1, bitdepth=16, greyscale=greyscale).write(file, [row])
    return file.getvalue()


def open_as_data_sets_do(content: bytes) -> list[int]:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))[0, :, 0].tolist()


grey, colour = (open_as_data_sets_do(write(greyscale=is_grey)) for is_grey in (True, False))
print("pillow", PIL.__version__)
print("16-bit values ", VALUES)
print("scaled        ", [round(value / 257) for value in VALUES])
print("grey, Pillow  ", grey)
print("colour, Pillow", colour)
assert grey == [200, 255, 255, 255, 255]
assert colour == [0, 0, 1, 15, 234]
print("As described: grey is clipped, colour keeps its high byte.")
PYTHON
