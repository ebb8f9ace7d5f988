#!/usr/bin/env bash
# Guess: a study that is loaded from its storage with the same seeded sampler goes on where it was.
# Truth: the sampler's generator begins anew and knows nothing of the trials: after a restart the random start-up
#        phase proposes the same points again, to the last digit, and trains them a second time.
# Hurts: searches that are restarted, as on preemptible nodes: half of the budget goes into repetitions.
. "$(dirname "$0")/isolated.bash"
packages optuna==5.0.0

python -W ignore - <<'PYTHON'
import optuna

optuna.logging.set_verbosity(optuna.logging.ERROR)


def search(*, name, seed):
    sampler = optuna.samplers.TPESampler(seed=seed)
    study = optuna.create_study(
        storage="sqlite:///study.db", study_name=name, load_if_exists=True, sampler=sampler
    )
    study.optimize(lambda trial: (trial.suggest_float("x", 0, 1) - 0.3) ** 2, n_trials=4)
    return [trial.params["x"] for trial in study.trials]


search(name="restarted", seed=0)
restarted = search(name="restarted", seed=0)
print(f"optuna {optuna.__version__}, four trials, restart, four more: {[round(x, 4) for x in restarted]}")
assert restarted[:4] == restarted[4:]
search(name="reseeded", seed=0)
reseeded = search(name="reseeded", seed=1)
print(f"another seed after the restart: {[round(x, 4) for x in reseeded]}")
assert len(set(reseeded)) == 8
PYTHON
