"""What Ray reads from the environment, each with its reason."""

from pathlib import Path

# Ray reads these in the driver, in its own processes and in the trials'. A value that the user has set stays.
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
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # CSV, JSON and TensorBoard files that nobody reads
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # what a trial reports last is its outcome alone
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # snapshots for a Tuner.restore that is never called
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",  # the schedule limits how many there are
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "86400",  # the fit was checked before (the typo is Ray's)
}

# Ray reads these in its own processes where no task has several workers. It starts a process per CPU ahead,
# which then imports what tasks take while we still wait for Ray: seconds less for the first task of each. And
# it must not end one that is idle for a moment, when its CPU is reserved and its task has not come yet.
READY_SETTINGS = {
    "RAY_preload_python_modules": "hkrun.cluster.driver.preload",
    "RAY_kill_idle_workers_interval_ms": "0",
}

# For `hkrun.cluster.driver.preload`: where the driver's hkrun lies.
CODE_VARIABLE = "HKRUN_READY_FROM"

# Ray then takes the loopback address for the one of this machine, as it does by itself on macOS and Windows,
# so that no other machine reaches a cluster of our own. Else it listens on all addresses, whatever it is
# told.
LOOPBACK_SETTINGS = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
if Path("/sys/class/net/lo").exists():
    LOOPBACK_SETTINGS["GLOO_SOCKET_IFNAME"] = "lo"  # workers together
