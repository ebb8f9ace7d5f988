#!/usr/bin/env bash
# Guess: A tracking URI for a database in a folder with a `?` in its name is right once the library that reads such
#        URIs, SQLAlchemy, has quoted it.
# Truth: The database is opened where it should be. But MLflow first makes the folder that it reads from the URI by
#        itself, without unquoting: a second folder with percent signs in its name appears beside the first.
#        With `sqlite+pysqlite:///` it does not.
# Hurts: Who names folders after parameters or times; stray folders, also where only that one folder may be written.
. "$(dirname "$0")/isolated.bash"
packages mlflow==3.17.2

python - <<'PYTHON'
import logging
import os
import sys
from pathlib import Path

os.environ["MLFLOW_TRACKING_URI"] = "sqlite:///default.db"

import mlflow
from mlflow import MlflowClient
from sqlalchemy.engine import URL

logging.disable()
print("mlflow", mlflow.__version__)
made = {}
for number, driver in enumerate(("sqlite", "sqlite+pysqlite")):
    place = Path(f"place{number}").absolute()
    (place / "a?b").mkdir(parents=True)
    uri = URL.create(driver, database=str(place / "a?b" / "mlflow.db")).render_as_string()
    MlflowClient(tracking_uri=uri).search_experiments()
    made[driver] = sorted(str(path.relative_to(place)) for path in place.rglob("*"))
    print(f"{driver}: {made[driver]}")
assert made["sqlite"] == ["a%3Fb", "a?b", "a?b/mlflow.db"]
assert made["sqlite+pysqlite"] == ["a?b", "a?b/mlflow.db"]
print("As described: a second folder, but not with the driver named.")
PYTHON
