"""Variables, and names of loggers, of Ray: what hkrun sets in the environment, each with its reason."""

from pathlib import Path

# Read in the driver, in Ray's own processes and in those of tasks. A value that the user has set stays.
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else a FutureWarning in every process without a GPU
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths of the user mean what they meant on the command line
    "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",  # in a job, these are added to the variables that it was sent with
    "RAY_AIR_NEW_OUTPUT": "0",  # the older reporter is silent at verbosity 0, the newer is not
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # prints of workers go where their stdout goes
    "RAY_TRAIN_ENABLE_WORKER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30",  # for room, not for processes; then the schedule decides
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # a worker group's end is seen after half a second, not two
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # CSV, JSON and TensorBoard files that hkrun does not read
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is the driver's
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # what a trial reports last is its outcome alone
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # snapshots for a Tuner.restore that is never called
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",  # the schedule limits how many there are
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "86400",  # the fit was checked before (the typo is Ray's)
}

# For a cluster of this machine whose tasks are single processes. Ray starts a process per CPU, which imports
# what tasks take while the driver still waits for Ray. It must not end one that is idle for a moment: its CPU
# may be reserved, and its task on the way. Nor may the process give way to all else that imports beside it,
# as tasks of Ray do by 15. Metrics would go to an agent that is not there (`skip_dashboard`). See also
# `start_workers_in_turn`.
PRELOAD_SETTINGS = {
    "RAY_preload_python_modules": "hkrun.cluster.driver.preload",
    "RAY_kill_idle_workers_interval_ms": "0",
    "RAY_worker_niceness": "0",
    "RAY_enable_metrics_collection": "0",
}
PRELOAD_FROM_VARIABLE = "HKRUN_PRELOAD_FROM"  # tells `preload` where the driver's hkrun lies

# For a cluster of this machine, whatever else is set. Ray takes the loopback address for the machine's, as it
# does by itself on macOS and Windows, so that no other machine reaches it. Else it listens on all addresses.
# Below `uv run` it would give all tasks an environment, which theirs is already, and which an agent would
# have to make (`skip_dashboard`).
OWN_SETTINGS = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
if Path("/sys/class/net/lo").exists():
    OWN_SETTINGS["GLOO_SOCKET_IFNAME"] = "lo"  # workers of a group

# For a job: the seconds between SIGTERM and SIGKILL, else three; and the driver may add variables of its own.
STOP_WAIT_VARIABLE = "RAY_JOB_STOP_WAIT_TIME_S"
JOB_SETTINGS = {"RAY_OVERRIDE_JOB_RUNTIME_ENV": "1"}

# Loggers of the job client that tell of every upload.
UPLOAD_LOGGERS = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
