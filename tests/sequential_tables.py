"""The tables of docs/statistics.md on repeated looks, as rows."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from curve_models import MODELS, UNEQUAL
from sequential_models import (
    decide,
    difference_nominal_p,
    first_small_p,
    s2_factor_nominal_p,
    s2_nominal_p,
    show_equal,
)

from hkrun.stats import LEVEL, plan_looks
from hkrun.stats.looks import any_look_p, nominal_level
from hkrun.stats.sequential import forecast

PLANS = (20, 28)
HEADS_OF_ERRORS = ["d_z", "20 at once, %", *(f"up to {most}: %, seeds" for most in PLANS)]
HEADS_OF_EQUIVALENCE = ["d_z", *(f"up to {most}: equal, different, seeds" for most in PLANS)]
HEADS_OF_S2 = ["model", "ratio", "20 at once, %", *(f"up to {most}: %, seeds" for most in PLANS)]
HEADS_OF_FACTORS = ["model", "ratio", "factor", "20 at once, %", "up to 20: %, seeds"]
HEADS_OF_LOOKS = ["looks", "uncorrected, %", "asked of p", "to who stops at the first, %"]
_STUDIES = 40_000


def errors() -> Iterator[list[str]]:
    """How often a difference is shown, and with how many seeds, by its size."""
    for d_z in (0, 0.66, 0.8, 1, 1.25, 1.5, 2):
        row = [f"{d_z:g}"]
        for most in PLANS:
            p = difference_nominal_p(d_z, _STUDIES, most=most, seed=most)
            if most == PLANS[0]:
                row.append(f"{100 * (p[:, -1] <= LEVEL).mean():.1f}")
            decided, seeds = decide(p, most=most)
            row.append(f"{100 * decided.mean():.1f}, {seeds.mean():.1f}")
        yield row


def equivalence() -> Iterator[list[str]]:
    """The same with a margin of one standard deviation of the differences."""
    for d_z in (0, 0.5, 1):
        row = [f"{d_z:g}"]
        for most in PLANS:
            told = forecast(d_z, plan_looks(most), generator=np.random.default_rng(most), margin_sd=1.0)
            row.append(f"{100 * told.equivalent:.1f}, {100 * told.different:.1f}, {told.pairs:.1f}")
        yield row


def s2(studies: int) -> Iterator[list[str]]:
    """How often two S2 are told apart, by the ratio of the noise's variances."""
    alike = {name: (model, model) for name, model in MODELS.items()}
    for name, models in (alike | UNEQUAL).items():
        yield _s2_row(name, models, 1.0, studies)
    for name in ("digits", "CIFAR-10 of table 5"):
        for ratio in (1.5, 2, 4):
            louder = replace(MODELS[name], noise_sd=MODELS[name].noise_sd * np.sqrt(ratio))
            yield _s2_row(name, (louder, MODELS[name]), ratio, studies)


def _s2_row(name: str, models: tuple, ratio: float, studies: int) -> list[str]:
    row = [name, f"{ratio:g}"]
    for most in PLANS:
        p = s2_nominal_p(models, studies, 20 if name == "digits" else 50, most=most, seed=most)
        if most == PLANS[0]:
            row.append(f"{100 * (p[:, -1] <= LEVEL).mean():.1f}")
        decided, seeds = decide(p, most=most)
        row.append(f"{100 * decided.mean():.1f}, {seeds.mean():.1f}")
    return row


def s2_factor(studies: int) -> Iterator[list[str]]:
    """How often S2 is shown to be equal within a factor, by the true ratio: at the factor it is the level."""
    alike = {name: (MODELS[name], MODELS[name]) for name in ("digits", "CIFAR-10 of table 5", "uneven noise")}
    for name, models in (alike | UNEQUAL).items():
        for ratio, factor in ((1, 2), (1, 2.5), (2, 2), (1 / 2, 2)):
            p = s2_factor_nominal_p(
                models, studies, 20 if name == "digits" else 50, ratio=ratio, factor=factor, most=PLANS[0]
            )
            shown, seeds = show_equal(p, most=PLANS[0])
            fixed = (p[:, -1] <= LEVEL).all(axis=1)
            yield [
                *(name, f"{ratio:g}", f"{factor:g}"),
                *(f"{100 * fixed.mean():.1f}", f"{100 * shown.mean():.1f}, {seeds.mean():.1f}"),
            ]


def looks() -> Iterator[list[str]]:
    """How often chance shows something at any of several looks."""
    for counts in ((20, 30), (20, 30, 40), (10, 20, 30), tuple(range(20, 101, 10))):
        named = ", ".join(map(str, counts)) if len(counts) < 5 else f"{counts[0]} to {counts[-1]} in tens"
        yield [
            named,
            f"{100 * any_look_p(LEVEL, counts):.1f}",
            f"{nominal_level(counts):.4f}",
            f"{100 * first_small_p(counts, 100_000, seed=1):.1f}",
        ]
