#!/usr/bin/env bash
# Guess: in a loop over n, `a[start + n]` is as fast as `a[start:][n]`: the same addresses, one after another.
# Truth: Numba lets a sum of signed variables be a negative index, which counts from the end. Where it cannot exclude that,
#        each access has a branch and the loop is not vectorised; through a slice, whose n is never negative, it is.
# Hurts: kernels written as in C, with offsets into flat arrays: several times slower than the same loop over slices.
. "$(dirname "$0")/isolated.bash"
packages numba==0.68.1 numpy==2.4.6

python -W ignore - <<'PYTHON'
import time

import numba
import numpy as np

FAST = {"contract", "nsz", "reassoc"}


@numba.njit(fastmath=FAST)
def with_offset(out, a, start, weight, times):
    for _ in range(times):
        for n in range(len(out)):
            out[n] += weight * a[start + n]


@numba.njit(fastmath=FAST)
def with_slice(out, a, start, weight, times):
    part = a[start : start + len(out)]
    for _ in range(times):
        for n in range(len(out)):
            out[n] += weight * part[n]


def measure(function):
    out = np.zeros(1024, np.float32)
    function(out, numbers, 64, np.float32(0.5), 1)
    seconds = []
    for _ in range(7):
        began = time.perf_counter()
        function(out, numbers, 64, np.float32(0.5), 20_000)
        seconds.append(time.perf_counter() - began)
    return min(seconds), out


numbers = np.random.default_rng(0).standard_normal(2048).astype(np.float32)
print("numba", numba.__version__)
(offset_s, first), (slice_s, second) = measure(with_offset), measure(with_slice)
print(f"  ns per number: {offset_s / 20.48e-3:.2f} with a[start + n], {slice_s / 20.48e-3:.2f} through a slice")
assert np.array_equal(first, second) and offset_s > 2 * slice_s
print("As described: the sum of two variables may be negative, and keeps the loop from vectors.")
PYTHON
