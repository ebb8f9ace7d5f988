#!/usr/bin/env bash
# Guess: compiled functions that call one another by the same types share one compilation, whatever the values.
# Truth: a number written out in a call from compiled code has a type of its own, alone or in a tuple: `f(x, 1)`, `f(x, 0)` and
#        `f(x, number)` compile f three times. Handed on as arguments, the same numbers compile it once.
# Hurts: a large kernel that others call with strides or sizes: seconds of compiling for each combination, silently.
. "$(dirname "$0")/isolated.bash"
packages numba==0.68.1 numpy==2.4.6

python -W ignore - <<'PYTHON'
import numba
import numpy as np


@numba.njit
def by_tuple(x, stride):
    return x[stride[0]] + x[stride[1]]


@numba.njit
def by_number(x, stride):
    return x[stride] + x[stride]


@numba.njit
def written_out(x, pair, number):
    tuples = by_tuple(x, pair) + by_tuple(x, (1, 1)) + by_tuple(x, (0, 0))
    return tuples + by_number(x, number) + by_number(x, 1) + by_number(x, 0)


@numba.njit
def handed_on(x, pairs):
    return by_tuple_again(x, pairs[0]) + by_tuple_again(x, pairs[1]) + by_tuple_again(x, pairs[2])


@numba.njit
def by_tuple_again(x, stride):
    return x[stride[0]] + x[stride[1]]


print("numba", numba.__version__)
x = np.arange(3.0)
assert written_out(x, (2, 2), 2) == 2 * handed_on(x, ((2, 2), (1, 1), (0, 0)))
for name, function in (("tuples", by_tuple), ("numbers", by_number), ("the same tuples as arguments", by_tuple_again)):
    print(f"  {name}: compiled {len(function.signatures)} times:", *(str(args[1]) for args in function.signatures))
assert [len(each.signatures) for each in (by_tuple, by_number, by_tuple_again)] == [3, 3, 1]
print("As described: each written-out number compiles what it is handed to once more.")
PYTHON
