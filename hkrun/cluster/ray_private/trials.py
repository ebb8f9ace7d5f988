"""How Tune's trials use processes, and what their failures say."""

from hkrun.cluster.ray_private.finding import find


def skip_callback_counts() -> None:
    """Keeps Tune from counting callbacks for its makers, for which it imports MLflow; saves two seconds."""
    found = find(
        "ray.air._internal.usage", "tag_callbacks", consequence="the first task starts two seconds later"
    )
    if found:
        found.tag_callbacks = lambda *_, **__: False


def keep_processes_for_trials() -> None:
    """Lets trials run in the processes that are there.

    Tune gives each actor an environment, for which Ray starts another process; a cluster of this machine has
    all of it in its own. Saves the import of PyTorch for the first task of each process.
    """
    found = find(
        "ray.tune.execution.class_cache",
        "DEFAULT_ENV_VARS",
        "ENV_VARS_TO_PROPAGATE",
        consequence="each process imports PyTorch with its first task",
    )
    if found:
        found.DEFAULT_ENV_VARS, found.ENV_VARS_TO_PROPAGATE = {}, set()


def is_busy_actor(error: str) -> bool:
    """Whether a trial failed because Tune had given it the actor of a stopped trial that still runs.

    Where Tune says so in other words, the trial counts as a death: its task is tried again after two seconds.
    """
    return "Trainable runner reuse requires reset_config()" in error


def found_no_room(failure: BaseException) -> bool:
    """Whether Ray Train's controller waited in vain for room for a worker group.

    Without this name that counts as a death, and the task loses a try.
    """
    name = "WorkerGroupStartupTimeoutError"
    consequence = "a task that finds no room loses a try"
    found = find("ray.train.v2._internal.exceptions", name, consequence=consequence)
    return found is not None and isinstance(failure, getattr(found, name))
