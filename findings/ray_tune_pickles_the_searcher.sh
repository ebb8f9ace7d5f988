#!/usr/bin/env bash
# Guess: a `Searcher` lives in the process that calls `Tuner.fit()`: Tune asks it for configurations there, and what it
#        holds need not be picklable, such as a pool of threads.
# Truth: `fit()` pickles it before the first trial, though no other process ever gets it: a lock or a pool in it raises.
#        A `__getstate__` that gives nothing is enough.
# Hurts: searchers that look things up beside Tune's loop: they work when tested by their methods alone, and fail with
#        the first real sweep.
. "$(dirname "$0")/isolated.bash"
packages "ray[tune]==2.60.0"

RAY_DEDUP_LOGS=0 python -W ignore - <<'PYTHON' 2>"$folder/log"
import concurrent.futures
import os

import ray
from ray import tune
from ray.tune.search import Searcher


class Fixed(Searcher):
    def __init__(self):
        super().__init__(metric="error", mode="min")
        self.pool = concurrent.futures.ThreadPoolExecutor(1)
        self.asked = []

    def suggest(self, trial_id):
        self.asked.append(trial_id)
        return {"x": 1.0}

    def on_trial_complete(self, trial_id, result=None, error=False):
        pass


class Silent(Fixed):
    def __getstate__(self):
        return {}


def train(config):
    tune.report({"error": config["x"]})


def fit(searcher):
    settings = tune.TuneConfig(search_alg=searcher, num_samples=1)
    quiet = tune.RunConfig(storage_path=os.getcwd(), verbose=0)
    return tune.Tuner(train, tune_config=settings, run_config=quiet).fit()


print("ray", ray.__version__)
ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR")
holding, silent = Fixed(), Silent()
try:
    fit(holding)
    raise SystemExit("changed: the searcher is not pickled")
except TypeError as error:
    print("  with a pool of threads:", error)
print("  asked before:", len(holding.asked), "times")
results = fit(silent)
print("  with an empty state:   ", results[0].metrics["error"], "after", len(silent.asked), "questions")
assert not holding.asked and silent.asked and results[0].error is None
print("As described: Tune pickles what it never sends.")
PYTHON
