"""Prints the tables of docs/statistics.md: `make statistics`, a few minutes. STUDIES=N for a quick look."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import sequential_tables
from curve_models import MODELS, UNEQUAL, Model

from hkrun.stats import (
    LEVEL,
    Floats,
    RatioComparison,
    analyse_pair_stability,
    analyse_stability,
    compare_pair_stability,
    compare_stability,
)

STUDIES = int(os.environ.get("STUDIES", "1000"))
_SEED = 0
_PERMUTATIONS = 199


def window_of(name: str) -> int:
    """Epochs of the recipe's window."""
    return 20 if name == "digits" else 100


def s2_of(studies: Floats) -> Floats:
    """S2 of each study over all its epochs."""
    return np.array([analyse_pair_stability(errors, window=errors.shape[1]).s2 for errors in studies])


def s_of(studies: Floats) -> Floats:
    """S of each study over all its epochs."""
    return np.ptp(studies, axis=1).var(axis=1)


def share(values: Iterable[bool]) -> str:
    """A share in percent with its Monte-Carlo standard error."""
    found = np.array(list(values))
    mean = found.mean()
    return f"{100 * mean:.1f} ± {100 * np.sqrt(mean * (1 - mean) / len(found)):.1f}"


def print_table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table in Markdown."""
    print(f"\n{title}\n\n| {' | '.join(headings)} |\n|{'---|' * len(headings)}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def precision(name: str) -> list[str]:
    """Coefficients of variation of S and S2 with 5 to 160 runs."""
    generator = np.random.default_rng(_SEED)
    row = [name]
    for runs in (5, 20, 80, 160):
        studies = MODELS[name].draw((max(50, STUDIES // 5), runs, window_of(name)), generator)
        figures = (figure(studies) for figure in (s_of, s2_of))
        row.append(", ".join(f"{values.std() / values.mean():.2f}" for values in figures))
    return row


def coverage(name: str) -> list[str]:
    """How many intervals of S2 hold its expectation, and how wide they are; those of S beside them."""
    generator = np.random.default_rng(_SEED)
    row, window = [name], window_of(name)
    expected = s2_of(MODELS[name].draw((3 * STUDIES, 6, window), generator)).mean()
    for runs in (4, 6, 10, 20):
        studies = MODELS[name].draw((STUDIES, runs, window), generator)
        ends = np.array([analyse_pair_stability(errors, window=window).ci95 for errors in studies])
        row.append(share((ends[:, 0] <= expected) & (expected <= ends[:, 1])))
    row.append(f"{np.median(ends[:, 1] / ends[:, 0]):.2f}")
    of_s = [
        analyse_stability(errors, window=window, generator=generator, resamples=200).ci95
        for errors in studies[: STUDIES // 5]
    ]
    row.append(f"{np.median([interval[1] / interval[0] for interval in of_s if interval]):.2f}")
    return row


def rejections(draw: Callable[[int], tuple[Floats, Floats]], *, paired: bool = True) -> list[str]:
    """How many tests of two S2 reject at 5 %, with 6, 10, 20 and 40 runs."""
    row = []
    for runs in (6, 10, 20, 40):
        first, second = draw(runs)
        found: list[RatioComparison] = [
            compare_pair_stability(*pair, window=first.shape[2], paired=paired)
            for pair in zip(first, second, strict=True)
        ]
        row.append(share(each.p is not None and each.p <= LEVEL for each in found))
    return row


def size(name: str, models: tuple[Model, Model], *, paired: bool) -> list[str]:
    """The size of the test of two S2."""
    generator = np.random.default_rng(_SEED)

    def draw(runs: int) -> tuple[Floats, Floats]:
        first, second = (model.draw((STUDIES, runs, window_of(name)), generator) for model in models)
        return first, second

    return [name, "paired" if paired else "unpaired", *rejections(draw, paired=paired)]


def power(name: str, ratio: float) -> list[str]:
    """The power of the tests of S2 and of S with twenty runs where the variance of the noise differs."""
    generator = np.random.default_rng(_SEED)
    model, window = MODELS[name], window_of(name)
    louder = replace(model, noise_sd=model.noise_sd * np.sqrt(ratio))
    first, second = (each.draw((STUDIES, 20, window), generator) for each in (louder, model))
    pairs = list(zip(first, second, strict=True))
    by_s2 = [compare_pair_stability(*pair, window=window).p for pair in pairs]
    by_s = [
        compare_stability(*pair, window=window, permutations=_PERMUTATIONS, generator=generator).p
        for pair in pairs[: STUDIES // 4]
    ]
    return [
        name,
        f"{ratio:g}",
        share(p is not None and p <= LEVEL for p in by_s2),
        share(p <= LEVEL for p in by_s),
    ]


def main() -> None:
    """Prints all tables."""
    runs = [f"{number} runs" for number in (6, 10, 20, 40)]
    alike = [(name, (model, model)) for name, model in MODELS.items()]
    print_table(
        "Coefficient of variation of S, S2",
        ["model", "5 runs", "20 runs", "80 runs", "160 runs"],
        map(precision, MODELS),
    )
    print_table(
        "Intervals that hold the expected S2, %",
        ["model", "4 runs", "6 runs", "10 runs", "20 runs", "high / low at 20", "the same of S"],
        map(coverage, MODELS),
    )
    print_table(
        "Tests that tell equal S2 apart at 5 %, %",
        ["model", "seeds", *runs],
        [
            size(name, models, paired=paired)
            for name, models in [*alike, *UNEQUAL.items()]
            for paired in (True, False)
        ],
    )
    print_table(
        "Tests with 20 seeds that find a ratio of the noise's variances, %",
        ["model", "ratio", "by S2", "by S"],
        [
            power(name, ratio)
            for name in ("digits", "CIFAR-10 of table 5", "CIFAR-100 of table 5")
            for ratio in (1.28, 1.5, 2, 4)
        ],
    )
    print_looks()


def print_looks() -> None:
    """The tables on repeated looks."""
    print_table("Several looks at 5 %", sequential_tables.HEADS_OF_LOOKS, sequential_tables.looks())
    print_table(
        "Differences, a look after every seed", sequential_tables.HEADS_OF_ERRORS, sequential_tables.errors()
    )
    print_table(
        "With a margin of one standard deviation, %",
        sequential_tables.HEADS_OF_EQUIVALENCE,
        sequential_tables.equivalence(),
    )
    print_table(
        "S2, a look after every seed", sequential_tables.HEADS_OF_S2, sequential_tables.s2(2 * STUDIES)
    )
    print_table(
        "S2 shown to be equal within a factor",
        sequential_tables.HEADS_OF_FACTORS,
        sequential_tables.s2_factor(STUDIES),
    )


if __name__ == "__main__":
    main()
