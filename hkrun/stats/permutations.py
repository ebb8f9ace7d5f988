"""Permutation tests of paired runs, and Holm's correction."""

import sys
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PERMUTATIONS = 9_999
_STEP = 250_000  # swaps at a time, which as float64 stay in a core's cache


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrects the p values of one table for their number, by Holm's step-down method (Holm 1979).

    Args:
        p_values: The p values of a family of tests, in any order.

    Returns:
        The corrected ones in the same order. Rejecting those up to 0.05 keeps the probability of any false
        rejection in the family at 5 % or below, however the tests depend on each other.

    Raises:
        ValueError: A value outside 0..1.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not np.all((p >= 0) & (p <= 1)):
        raise ValueError(f"p values must lie in 0..1, not {list(p_values)}")
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return [float(value) for value in corrected]


def swaps(
    pairs: int, permutations: int, generator: np.random.Generator
) -> tuple[Iterator[NDArray[np.bool_]], bool]:
    """Which pairs each permutation swaps, and whether these are all there are.

    They come in parts of shape [permutations, pairs], drawn as they are asked for: of thousands of pairs, all
    at once would be the most of a report's memory.

    Raises:
        ValueError: No permutation.
    """
    if permutations < 1:
        raise ValueError(f"permutations is {permutations}; at least 1 is needed")
    if 2**pairs <= permutations:
        return iter([(np.arange(2**pairs)[:, None] >> np.arange(pairs) & 1).astype(np.bool_)]), True
    rows = max(1, _STEP // pairs)
    sizes = (min(rows, permutations - first) for first in range(0, permutations, rows))
    return (_toss(generator, size * pairs).reshape(-1, pairs) for size in sizes), False


def _toss(generator: np.random.Generator, number: int) -> NDArray[np.bool_]:
    """What `generator.integers(0, 2, number)` draws, and as it leaves the generator, in a fifth of the time.

    NumPy takes the top bit of each half of the generator's 64-bit words, the low half first.
    """
    bits = generator.bit_generator
    plain = isinstance(bits, np.random.PCG64) and not bits.state["has_uint32"] and number % 2 == 0
    if not plain or sys.byteorder != "little":
        return generator.integers(0, 2, number).astype(np.bool_)
    halves: NDArray[np.int32] = bits.random_raw(number // 2).view(np.int32)
    return halves < 0


def p_value(permuted: Floats, observed: float, all_taken: bool) -> float:
    """Share of the permutations at least as extreme as the data (Phipson and Smyth 2010 for random ones)."""
    # Sums in another order differ in the last bits, and errors that move in steps of one image tie often.
    extreme = int(np.count_nonzero(permuted >= observed - 1e-9 * permuted.max()))
    return extreme / len(permuted) if all_taken else (extreme + 1) / (len(permuted) + 1)


def smallest_runs(level: float) -> int:
    """The fewest pairs with which a two-sided permutation p can be as small as a level."""
    return 1 + int(np.ceil(-np.log2(level)))
