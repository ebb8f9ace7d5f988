#!/usr/bin/env bash
# Guess: a run's metric is the value that was logged last; logged again at a step, the later value counts.
# Truth: of values with the same step and timestamp, in milliseconds, the largest counts, in whatever order they
#        came. With a later timestamp the later one does.
# Hurts: who corrects a value at once, or logs a curve with timestamps of its own: an error rate stays too high.
. "$(dirname "$0")/isolated.bash"
packages mlflow-skinny==3.17.2 sqlalchemy==2.1.9 alembic==1.20.1

export MLFLOW_TRACKING_URI=sqlite:///mlflow.db
python -W ignore - <<'PYTHON' 2>errors.txt || { cat errors.txt; exit 1; }
import mlflow
from mlflow.entities import Metric

client = mlflow.MlflowClient()
experiment = client.create_experiment("curves")


def last(*points):
    run = client.create_run(experiment).info.run_id
    for value, timestamp in points:
        client.log_batch(run, metrics=[Metric("error", value, timestamp, 7)])
    return client.get_run(run).data.metrics["error"]


print(f"mlflow {mlflow.__version__}, error at step 7:")
same = last((9.0, 1000), (3.0, 1000))
print(f"  9.0, then 3.0 in the same millisecond: {same}")
later = last((9.0, 1000), (3.0, 1001))
print(f"  9.0, then 3.0 a millisecond later: {later}")
assert (same, later) == (9.0, 3.0)
PYTHON
