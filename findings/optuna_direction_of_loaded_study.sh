#!/usr/bin/env bash
# Guess: create_study(..., load_if_exists=True, direction="maximize") maximises, or refuses a study that minimises.
# Truth: the direction of the stored study stays, and the one that is asked for is ignored without a word.
# Hurts: who changes the metric of a search from error to accuracy under the same name: it goes for the worst.
. "$(dirname "$0")/isolated.bash"
packages optuna==5.0.0

python -W error - <<'PYTHON'
import optuna

optuna.logging.set_verbosity(optuna.logging.ERROR)


def create(**options):
    return optuna.create_study(storage="sqlite:///study.db", study_name="study", **options)


create(direction="minimize")
study = create(direction="maximize", load_if_exists=True)
for value in (1.0, 2.0, 3.0):
    study.add_trial(optuna.trial.create_trial(value=value))
print(f"optuna {optuna.__version__}: asked to maximise, the study has the direction {study.direction.name}")
print(f"its best of 1, 2 and 3: {study.best_value}")
assert study.direction == optuna.study.StudyDirection.MINIMIZE
assert study.best_value == 1.0
PYTHON
