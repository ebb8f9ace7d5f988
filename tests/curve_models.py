"""Error curves as training might give them: the models that simulations of the statistics draw from.

A run is a level of its own plus noise that is correlated from epoch to epoch (AR(1)), rounded to whole test
images.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.signal

from hkrun.stats import Floats


@dataclass(frozen=True)
class Model:
    """How error curves come about, in percentage points.

    Attributes:
        level_sd: Standard deviation of the runs' levels.
        noise_sd: Standard deviation of the noise within a run.
        correlation: Of the noise of neighbouring epochs.
        uneven: Standard deviation of the logarithm of the runs' own noise_sd.
        quantum: Step of the error.
    """

    level_sd: float
    noise_sd: float
    correlation: float
    uneven: float = 0.0
    quantum: float = 0.01

    def draw(self, shape: tuple[int, int, int], generator: np.random.Generator) -> Floats:
        """Errors [studies, runs, epochs]."""
        studies, runs, _ = shape
        shocks = generator.standard_normal(shape)
        shocks[..., 1:] *= np.sqrt(1 - self.correlation**2)
        noise = scipy.signal.lfilter([1.0], [1.0, -self.correlation], shocks, axis=-1)
        own_sd = self.noise_sd * np.exp(self.uneven * generator.standard_normal((studies, runs, 1)))
        errors = 30 + self.level_sd * generator.standard_normal((studies, runs, 1)) + own_sd * noise
        return np.round(errors / self.quantum) * self.quantum


MODELS = {
    "digits": Model(0.6, 0.25, 0.6, quantum=100 / 1107),
    "CIFAR-10 of table 5": Model(0.25, 0.035, 0.3),
    "CIFAR-100 of table 5": Model(0.30, 0.06, 0.5),
    "levels and noise alike": Model(0.12, 0.06, 0.3),
    "noise alone": Model(0.0, 0.09, 0.3),
    "slow noise": Model(0.15, 0.08, 0.9),
    "1,200 test images": Model(0.30, 0.10, 0.5, quantum=1 / 12),
    "uneven noise": Model(0.30, 0.055, 0.5, uneven=0.3),
}

# Two models of one S2, the second with runs of unequal noise: their levels are so far apart that no two runs
# cross, so S2 is twice the mean of the runs' variances.
UNEQUAL = {
    name: (Model(30.0, 0.055, 0.5), Model(30.0, 0.055 * np.exp(-(sd**2)), 0.5, uneven=sd))
    for name, sd in (("somewhat unequal", 0.3), ("very unequal", 0.5))
}


# Paired differences of mean 0 that no t test of few pairs is for: [shape], by a generator.
DIFFERENCES: dict[str, Callable[[np.random.Generator, tuple[int, int]], Floats]] = {
    "exponential": lambda generator, shape: generator.exponential(size=shape) - 1,
    "exponential and normal": lambda generator, shape: (
        generator.exponential(size=shape) - 1 + 0.3 * generator.standard_normal(shape)
    ),
    "lognormal": lambda generator, shape: generator.lognormal(size=shape) - np.exp(0.5),
    "one image": lambda generator, shape: generator.choice([-1.0, 0.0, 1.0], shape, p=[0.45, 0.1, 0.45]),
    "one cell collapses": lambda generator, shape: (
        0.3 * generator.standard_normal(shape) + 10 * (generator.random(shape) < 0.05) - 0.5
    ),
}


def collapse(errors: Floats, generator: np.random.Generator, *, runs: int) -> Floats:
    """The errors [runs, epochs] with so many runs of them lost to chance level somewhere in the window."""
    collapsed = errors.copy()
    for run in generator.choice(len(errors), runs, replace=False):
        collapsed[run, generator.integers(1, errors.shape[1] - 1) :] = 90.0
    return collapsed
