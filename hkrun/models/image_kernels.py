"""Convolutions of a pack's members on small images, compiled by Numba for this machine's processor.

Maps are [k, C, H, W B]: each row of an image holds all images of the batch, one position after another, so
that the innermost loops run over images and are vectors whatever the number of channels. Four channels are
computed at once, from up to three positions, so that what is loaded is used several times. They are summed up
in memory of their own: rows of maps often begin at a multiple of 4 KiB from each other, and would then push
each other out of the first cache.
"""

import numpy as np

from hkrun.models.compiling import Floats, compiled, inlined

Four = tuple[Floats, Floats, Floats, Floats]

# Numbers of a row at a time: seven rows of them in float32 stay in a cache of 32 KiB.
_CHUNK = 768


@inlined
def _next_three(channel: int, channels: int) -> tuple[int, int, int]:
    """The channels after one; where there are no more, the last again."""
    last = channels - 1
    return min(channel + 1, last), min(channel + 2, last), min(channel + 3, last)


@inlined
def _see(
    x: int, out_width: int, width: int, kernel_width: int, stride: int, padding: int
) -> tuple[int, int, int, int]:
    """What the output's position x sees of a row: where the kernel begins, and its columns within the image.

    And how many positions from x on see the same columns of the kernel, each one further on.
    """
    left, positions = x * stride - padding, 1
    first, after = max(0, -left), min(kernel_width, width - left)
    if stride == 1 and after - first == kernel_width:
        positions = min(width - left - kernel_width + 1, out_width - x)
    return left, first, after, positions


@inlined
def _begin(sums: Floats, length: int) -> Four:
    """The first numbers of four rows, set to zero."""
    rows = sums[0, :length], sums[1, :length], sums[2, :length], sums[3, :length]
    for row in rows:
        row[:] = 0
    return rows


@inlined
def _part(rows: Four, first: int, after: int) -> Four:
    return rows[0][first:after], rows[1][first:after], rows[2][first:after], rows[3][first:after]


@inlined
def _copy(row: Floats, there: Floats) -> None:
    for n in range(len(row)):
        there[n] = row[n]


@inlined
def _write(rows: Four, maps: Floats, channel: int, y: int, first: int) -> None:
    """Copies rows into those of four channels of [C, H, W B], or of as many as there are."""
    channels, after = len(maps), first + len(rows[0])
    _copy(rows[0], maps[channel, y, first:after])
    if channel + 1 < channels:
        _copy(rows[1], maps[channel + 1, y, first:after])
    if channel + 2 < channels:
        _copy(rows[2], maps[channel + 2, y, first:after])
    if channel + 3 < channels:
        _copy(rows[3], maps[channel + 3, y, first:after])


@inlined
def _add_one(rows: Four, weights: Four, column: int, a: Floats) -> None:
    p0, p1, p2, p3 = rows
    w0, w1, w2, w3 = weights[0][column], weights[1][column], weights[2][column], weights[3][column]
    for n in range(len(a)):
        p0[n] += w0 * a[n]
        p1[n] += w1 * a[n]
        p2[n] += w2 * a[n]
        p3[n] += w3 * a[n]


@inlined
def _add_two(rows: Four, weights: Four, column: int, a: Floats, b: Floats) -> None:
    p0, p1, p2, p3 = rows
    w0, w1, w2, w3 = weights[0][column], weights[1][column], weights[2][column], weights[3][column]
    then = column + 1
    v0, v1, v2, v3 = weights[0][then], weights[1][then], weights[2][then], weights[3][then]
    for n in range(len(a)):
        p0[n] += w0 * a[n] + v0 * b[n]
        p1[n] += w1 * a[n] + v1 * b[n]
        p2[n] += w2 * a[n] + v2 * b[n]
        p3[n] += w3 * a[n] + v3 * b[n]


@inlined
def _add_three(rows: Four, weights: Four, column: int, a: Floats, b: Floats, c: Floats) -> None:
    p0, p1, p2, p3 = rows
    w0, w1, w2, w3 = weights[0][column], weights[1][column], weights[2][column], weights[3][column]
    then, last = column + 1, column + 2
    v0, v1, v2, v3 = weights[0][then], weights[1][then], weights[2][then], weights[3][then]
    u0, u1, u2, u3 = weights[0][last], weights[1][last], weights[2][last], weights[3][last]
    for n in range(len(a)):
        p0[n] += w0 * a[n] + v0 * b[n] + u0 * c[n]
        p1[n] += w1 * a[n] + v1 * b[n] + u1 * c[n]
        p2[n] += w2 * a[n] + v2 * b[n] + u2 * c[n]
        p3[n] += w3 * a[n] + v3 * b[n] + u3 * c[n]


@compiled
def convolve_one(
    maps: Floats,
    weight: Floats,
    outputs: Floats,
    batch: int,
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> None:
    """`convolve` for one member: [C, H, W B], [C', C, *kernel] and [C', H', W' B]."""
    channels, height, width = maps.shape
    out_channels, out_height, out_width = outputs.shape
    width, out_width = width // batch, out_width // batch
    kernel_height, kernel_width = weight.shape[2:]
    sums = np.empty((4, max(_CHUNK, batch)), outputs.dtype)
    for c0 in range(0, out_channels, 4):
        c1, c2, c3 = _next_three(c0, out_channels)
        for y in range(out_height):
            top = y * stride[0] - padding[0]
            kernel_rows = range(max(0, -top), min(kernel_height, height - top))
            x = 0
            while x < out_width:
                left, first, after, positions = _see(x, out_width, width, kernel_width, stride[1], padding[1])
                positions = max(1, min(positions, _CHUNK // batch))
                length = positions * batch
                rows = _begin(sums, length)
                for c in range(channels):
                    for row in kernel_rows:
                        line = maps[c, top + row]
                        weights = (
                            *(weight[c0, c, row], weight[c1, c, row]),
                            *(weight[c2, c, row], weight[c3, c, row]),
                        )
                        column = first
                        while column < after:
                            at = (left + column) * batch
                            if column + 3 <= after:
                                _add_three(
                                    rows,
                                    weights,
                                    column,
                                    line[at : at + length],
                                    line[at + batch : at + batch + length],
                                    line[at + 2 * batch : at + 2 * batch + length],
                                )
                                column += 3
                            elif column + 2 == after:
                                a, b = line[at : at + length], line[at + batch : at + batch + length]
                                _add_two(rows, weights, column, a, b)
                                column += 2
                            else:
                                _add_one(rows, weights, column, line[at : at + length])
                                column += 1
                _write(rows, outputs, c0, y, x * batch)
                x += positions


@compiled
def convolve(
    maps: Floats,
    weight: Floats,
    outputs: Floats,
    batch: int,
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> None:
    """Writes the convolution of each member's maps with its own weights.

    Args:
        maps: Shape [k, C, H, W B].
        weight: Shape [k, C', C, *kernel].
        outputs: Shape [k, C', H', W' B].
        batch: B.
        stride: Of the output's positions in the input, [height, width].
        padding: Zeros at each edge, [height, width].
    """
    for k in range(len(maps)):
        convolve_one(maps[k], weight[k], outputs[k], batch, stride, padding)


@compiled
def convolve_back(  # noqa: C901 - a function of its own for what is innermost takes a third longer
    gradient: Floats,
    weight: Floats,
    of_maps: Floats,
    batch: int,
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> None:
    """Writes the gradient of the maps from that of the outputs; shapes as those of `convolve`."""
    members, out_channels, out_height, out_width = gradient.shape
    channels, height, width = of_maps.shape[1:]
    width, out_width = width // batch, out_width // batch
    kernel_height, kernel_width = weight.shape[3:]
    sums = np.empty((4, max(_CHUNK, batch)), of_maps.dtype)
    positions = max(1, _CHUNK // batch) if stride[1] == 1 else 1
    # By the kernel's place and the maps' channel, so that weights of one channel after another lie in a row.
    turned = np.ascontiguousarray(weight.transpose(0, 3, 4, 2, 1))
    for k in range(members):
        wanted = of_maps[k]
        for c0 in range(0, channels, 4):
            c1, c2, c3 = _next_three(c0, channels)
            for y in range(height):
                for x in range(0, width, positions):
                    end = min(width, x + positions)
                    rows = _begin(sums, (end - x) * batch)
                    for row in range(kernel_height):
                        out_y, rest = divmod(y + padding[0] - row, stride[0])
                        if rest or not 0 <= out_y < out_height:
                            continue
                        for column in range(kernel_width):
                            # From `first` on, until `after`, the maps' columns that the output saw here.
                            first, after = x, end
                            out_x, rest = divmod(x + padding[1] - column, stride[1])
                            if stride[1] == 1:
                                first = max(x, column - padding[1])
                                after = min(end, out_width + column - padding[1])
                                out_x = first + padding[1] - column
                            if rest or not 0 <= out_x < out_width or first >= after:
                                continue
                            here, until = out_x * batch, (out_x + after - first) * batch
                            part = _part(rows, (first - x) * batch, (after - x) * batch)
                            place = turned[k, row, column]
                            weights = (place[c0], place[c1], place[c2], place[c3])
                            c = 0
                            while c < out_channels:
                                if c + 3 <= out_channels:
                                    _add_three(
                                        part,
                                        weights,
                                        c,
                                        gradient[k, c, out_y, here:until],
                                        gradient[k, c + 1, out_y, here:until],
                                        gradient[k, c + 2, out_y, here:until],
                                    )
                                    c += 3
                                elif c + 2 == out_channels:
                                    _add_two(
                                        part,
                                        weights,
                                        c,
                                        gradient[k, c, out_y, here:until],
                                        gradient[k, c + 1, out_y, here:until],
                                    )
                                    c += 2
                                else:
                                    _add_one(part, weights, c, gradient[k, c, out_y, here:until])
                                    c += 1
                    _write(rows, wanted, c0, y, x * batch)


@inlined
def _correlate_one(sums: Floats, column: int, gradients: Four, a: Floats) -> None:
    g0, g1, g2, g3 = gradients
    s0 = s1 = s2 = s3 = sums.dtype.type(0)
    for n in range(len(a)):
        s0 += a[n] * g0[n]
        s1 += a[n] * g1[n]
        s2 += a[n] * g2[n]
        s3 += a[n] * g3[n]
    sums[0, column] += s0
    sums[1, column] += s1
    sums[2, column] += s2
    sums[3, column] += s3


@inlined
def _correlate_three(sums: Floats, column: int, gradients: Four, a: Floats, b: Floats, c: Floats) -> None:
    g0, g1, g2, g3 = gradients
    s0 = s1 = s2 = s3 = t0 = t1 = t2 = t3 = u0 = u1 = u2 = u3 = sums.dtype.type(0)
    for n in range(len(a)):
        s0 += a[n] * g0[n]
        s1 += a[n] * g1[n]
        s2 += a[n] * g2[n]
        s3 += a[n] * g3[n]
        t0 += b[n] * g0[n]
        t1 += b[n] * g1[n]
        t2 += b[n] * g2[n]
        t3 += b[n] * g3[n]
        u0 += c[n] * g0[n]
        u1 += c[n] * g1[n]
        u2 += c[n] * g2[n]
        u3 += c[n] * g3[n]
    then, last = column + 1, column + 2
    sums[0, column] += s0
    sums[1, column] += s1
    sums[2, column] += s2
    sums[3, column] += s3
    sums[0, then] += t0
    sums[1, then] += t1
    sums[2, then] += t2
    sums[3, then] += t3
    sums[0, last] += u0
    sums[1, last] += u1
    sums[2, last] += u2
    sums[3, last] += u3


@compiled
def correlate(
    maps: Floats,
    gradient: Floats,
    of_weight: Floats,
    batch: int,
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> None:
    """Writes the gradient of the weights from that of the outputs; shapes as those of `convolve`."""
    members, channels, height, width = maps.shape
    out_channels, out_height, out_width = gradient.shape[1:]
    width, out_width = width // batch, out_width // batch
    kernel_height, kernel_width = of_weight.shape[3:]
    sums = np.empty((4, kernel_width), of_weight.dtype)
    for k in range(members):
        for c0 in range(0, out_channels, 4):
            c1, c2, c3 = _next_three(c0, out_channels)
            for c in range(channels):
                for row in range(kernel_height):
                    sums[:] = 0
                    for y in range(out_height):
                        line_number = y * stride[0] - padding[0] + row
                        if not 0 <= line_number < height:
                            continue
                        line = maps[k, c, line_number]
                        rows = gradient[k, c0, y], gradient[k, c1, y], gradient[k, c2, y], gradient[k, c3, y]
                        x = 0
                        while x < out_width:
                            left, first, after, positions = _see(
                                x, out_width, width, kernel_width, stride[1], padding[1]
                            )
                            length = positions * batch
                            part = _part(rows, x * batch, x * batch + length)
                            column = first
                            while column < after:
                                at = (left + column) * batch
                                if column + 3 <= after:
                                    _correlate_three(
                                        sums,
                                        column,
                                        part,
                                        line[at : at + length],
                                        line[at + batch : at + batch + length],
                                        line[at + 2 * batch : at + 2 * batch + length],
                                    )
                                    column += 3
                                else:
                                    _correlate_one(sums, column, part, line[at : at + length])
                                    column += 1
                            x += positions
                    of_weight[k, c0, c, row] = sums[0]
                    of_weight[k, c1, c, row] = sums[1]
                    of_weight[k, c2, c, row] = sums[2]
                    of_weight[k, c3, c, row] = sums[3]
