"""BatchNorm, and a residual block in evaluation, of a pack's members on small images; see `image_kernels`."""

import numpy as np

from hkrun.models.compiling import Floats, compiled
from hkrun.models.image_kernels import convolve_one

Pair = tuple[int, int]  # height, width


@compiled
def normalise(
    rows: Floats,
    weight: Floats,
    bias: Floats,
    eps: float,
    outputs: Floats,
    statistics: tuple[Floats, Floats, Floats],
) -> None:
    """Writes each row normalised by its own statistics: BatchNorm in training.

    Args:
        rows: Shape [C, n]: of a row, what is read three times is in the first cache.
        weight: Shape [C].
        bias: Shape [C].
        eps: Added to the variance.
        outputs: As the rows.
        statistics: The rows' mean, variance and 1 / sqrt(variance + eps), which are written; shape [C] each.
    """
    means, variances, scales = statistics
    number = rows.shape[1]
    for c in range(len(rows)):
        row, there = rows[c], outputs[c]
        total = row.dtype.type(0)
        for n in range(number):
            total += row[n]
        first = row.dtype.type(total / number)
        rest = squares = row.dtype.type(0)
        for n in range(number):
            centred = row[n] - first
            rest += centred
            squares += centred * centred
        # What rounding left of the mean: much, beside the deviations of a channel that is almost constant.
        left = rest / number
        mean, variance = row.dtype.type(first + left), squares / number - left * left
        if variance < 0:
            variance = 0.0
        means[c], variances[c] = mean, variance
        scales[c] = 1 / np.sqrt(variance + eps)
        factor, shift = weight[c] * scales[c], bias[c]
        for n in range(number):
            there[n] = (row[n] - mean) * factor + shift


@compiled
def normalise_back(
    gradient: Floats,
    rows: Floats,
    weight: Floats,
    statistics: tuple[Floats, Floats],
    of_rows: Floats,
    of_weight: Floats,
    of_bias: Floats,
) -> None:
    """Writes the gradients of the rows, weights and biases from that of the outputs of `normalise`.

    Args:
        gradient: Shape [C, n].
        rows: Shape [C, n].
        weight: Shape [C].
        statistics: The rows' mean, and 1 / sqrt(variance + eps).
        of_rows: Shape [C, n].
        of_weight: Shape [C].
        of_bias: Shape [C].
    """
    means, scales = statistics
    number = rows.shape[1]
    for c in range(len(rows)):
        row, along, there, mean = rows[c], gradient[c], of_rows[c], means[c]
        total = product = row.dtype.type(0)
        for n in range(number):
            total += along[n]
            product += along[n] * (row[n] - mean)
        of_weight[c], of_bias[c] = product * scales[c], total
        factor, share = weight[c] * scales[c], row.dtype.type(total / number)
        slope = row.dtype.type(product * scales[c] * scales[c] / number)
        for n in range(number):
            there[n] = (along[n] - share - (row[n] - mean) * slope) * factor


@compiled
def residual_block(
    maps: Floats,
    norms: tuple[Floats, Floats, Floats, Floats],
    weights: tuple[Floats, Floats, Floats],
    outputs: Floats,
    batch: int,
    strides: tuple[Pair, Pair, Pair],
    paddings: tuple[Pair, Pair, Pair],
) -> None:
    """Writes the outputs of a block of BN-ReLU-convolution-BN-ReLU-convolution and its shortcut.

    One member after the other, so that what lies between the layers stays in the second cache.

    Args:
        maps: Shape [k, C, H, W B].
        norms: Scale and shift [k, C] that the first BatchNorm comes to, then those of the second, [k, C'].
        weights: Those of the two convolutions, [k, C', C, *kernel] and [k, C', C', *kernel], and of the
            shortcut's, [k, C', C, *kernel]; [0, ...] where the shortcut is the maps themselves.
        outputs: Shape [k, C', H', W' B].
        batch: B.
        strides: Of these convolutions, see `convolve`. Numbers written out in a kernel would have types of
            their own, for each of which `convolve_one` would be compiled once more.
        paddings: The same.
    """
    first, second, projection = weights
    active = np.empty(maps.shape[1:], maps.dtype)
    hidden = np.empty(outputs.shape[1:], maps.dtype)
    shortcut = np.empty(outputs.shape[1:], maps.dtype)
    for k in range(len(maps)):
        _activate(maps[k], norms[0][k], norms[1][k], active)
        convolve_one(active, first[k], hidden, batch, strides[0], paddings[0])
        _activate(hidden, norms[2][k], norms[3][k], hidden)
        convolve_one(hidden, second[k], outputs[k], batch, strides[1], paddings[1])
        if len(projection):
            convolve_one(active, projection[k], shortcut, batch, strides[2], paddings[2])
            _add(shortcut, outputs[k])
        else:
            _add(maps[k], outputs[k])


@compiled
def _add(maps: Floats, sums: Floats) -> None:
    for c in range(len(maps)):
        for y in range(maps.shape[1]):
            row, there = maps[c, y], sums[c, y]
            for n in range(len(row)):
                there[n] += row[n]


@compiled
def _activate(maps: Floats, scale: Floats, shift: Floats, active: Floats) -> None:
    """Writes each channel of [C, H, W B] scaled, shifted and cut off below zero; NaN stays."""
    for c in range(len(maps)):
        a, b = scale[c], shift[c]
        for y in range(maps.shape[1]):
            row, there = maps[c, y], active[c, y]
            for n in range(len(row)):
                value = a * row[n] + b
                there[n] = row.dtype.type(0) if value < 0 else value
