"""Writes what rliable says of the runs in golden/rliable.json into that file again.

rliable 1.2.0 cannot be imported beside pandas 3 (findings/rliable_beside_pandas_3.sh), so it is in no
environment of this project. Ten minutes:

    uv run --no-project --with rliable==1.2.0 --with 'pandas<3' python tests/rliable_oracle.py
"""

import importlib.metadata
import json
import warnings
from pathlib import Path

import numpy as np
from rliable import library, metrics

PATH = Path(__file__).parent / "golden" / "rliable.json"
RESAMPLES = 50_000  # rliable's own number


def estimate(scores, function):
    """A figure of scores with rliable's 95 % interval."""
    # Its bootstrap takes the global generator, whatever it is given (findings/rliable_random_state.sh).
    np.random.seed(0)
    points, intervals = library.get_interval_estimates({"": scores}, function, reps=RESAMPLES)
    return {"value": float(points[""][0]), "ci95": intervals[""].ravel().tolist()}


def describe(cells, reference):
    """What rliable says of the errors of each cell, by name; the one task of rliable's is the data set."""
    scores = {cell: -np.array(errors)[:, None] for cell, errors in cells.items()}
    return {
        cell: {
            "mean": estimate(values, lambda x: np.array([metrics.aggregate_mean(x)])),
            "iqm": estimate(values, lambda x: np.array([metrics.aggregate_iqm(x)])),
            "improvement": estimate(
                [values, scores[reference]], lambda x, y: np.array([metrics.probability_of_improvement(x, y)])
            ),
        }
        for cell, values in scores.items()
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    oracle = json.loads(PATH.read_text())
    for study in oracle["studies"].values():
        study["rliable"] = describe(study["error_last_pct"], study["reference"])
    names = ("rliable", "arch", "numpy", "scipy", "pandas")
    oracle["versions"] = {name: importlib.metadata.version(name) for name in names}
    PATH.write_text(json.dumps(oracle, indent=1) + "\n")
