"""Statistics over runs. Pure functions of numbers: nothing here knows of cells, files or stores.

errors.py         means with intervals; differences, paired by seed or of unlike runs
effects.py        the size of a paired difference; equivalence within a margin
stability.py      S of eq. (10), its interval, and when two S may be ranked
pair_stability.py S2, eq. (10) for two runs, averaged over all pairs of runs
deviation.py      the standard deviation over runs
jackknife.py      intervals and ratios of such figures, from what they are without each run
power.py          power analysis: how many runs would decide what these left open
looks.py          how often chance alone shows a difference at any of several looks
sequential.py     tests and intervals that hold at every look at runs that still come in
memory.py         what statistics gave, for when the same is asked again
permutations.py   permutation tests and Holm's correction
distributions.py  Student's t
noncentral.py     the noncentral t, for power
rates.py          how often something happens to runs of two configurations
spread.py         mean and range of curves, run by run
components.py     how much of a spread is that of teachers, of students, of epochs

Everything random takes its generator. Runs are the independent units: they are resampled and permuted whole,
never their epochs, which are correlated. Modules import `scipy`
alone, which loads its parts when they are used: `scipy.stats` takes half a second and 40 MB, and most reports
do without.
"""

from hkrun.stats.components import Component, VarianceComponents, decompose
from hkrun.stats.deviation import DEVIATION_OF_FEW, Deviation, analyse_deviation, compare_deviation
from hkrun.stats.effects import EffectSize, effect_size, equivalence
from hkrun.stats.errors import (
    LEVEL,
    ErrorSummary,
    largest_p,
    paired_difference,
    spread_behind,
    summarise_errors,
    unpaired_difference,
)
from hkrun.stats.jackknife import FEW_RUNS, LEAST_RUNS, RatioComparison, RatioEquivalence
from hkrun.stats.looks import error_of_stages, nominal_level, p_over_looks
from hkrun.stats.memory import Memory, remembering
from hkrun.stats.pair_stability import (
    S2_OF_FEW,
    PairStability,
    analyse_pair_stability,
    compare_pair_stability,
    equate_pair_stability,
)
from hkrun.stats.permutations import PERMUTATIONS, Floats, holm, smallest_runs
from hkrun.stats.power import (
    MOST_PAIRS,
    POWER,
    detectable_effect,
    detectable_margin,
    equivalence_power,
    paired_power,
    pairs_for_difference,
    pairs_for_equivalence,
)
from hkrun.stats.rates import any_look_rates_p, compare_rates
from hkrun.stats.sequential import (
    FIRST_LOOK,
    confidence_sequence,
    largest_p_by_look,
    level_over_looks,
    plan_looks,
    sequential_difference,
    sequential_equivalence,
    sequential_p,
)
from hkrun.stats.spread import Spread, SpreadSum, spread_of
from hkrun.stats.stability import (
    Stability,
    StabilityComparison,
    analyse_stability,
    compare_stability,
    ranking_obstacle,
    stability,
)
