"""The exceptions hkrun raises, and the exit code that each one becomes.

    HkrunError            1   a bug unless a subclass says otherwise
    ├── InputError        2   the user's input: files, keys, arguments; NotFoundError: a name of nothing
    ├── DataError         3   data missing or corrupt
    ├── ResourceError     4   the machine or cluster cannot hold what was asked for
    ├── TrainingError     5   nothing can go on, because what it builds on failed or diverged
    ├── StoreError        6   store full, unreachable or damaged; HeldError: held by another driver
    └── Interrupted      75   stopped by the user; ClusterLostError: Ray is gone. What is finished is kept

Every exception takes one message string, so that it survives the pickling between processes.
"""

EXIT_DONE = 0
EXIT_BUG = 1
EXIT_INPUT = 2
EXIT_DATA = 3
EXIT_RESOURCES = 4
EXIT_RUNS_FAILED = 5  # also without an exception: the command finished, but some runs failed or diverged
EXIT_STORE = 6
EXIT_INTERRUPTED = 75


class HkrunError(Exception):
    """The root of the tree.

    Args:
        message: What was wrong, where, and what is allowed. One problem per line.
    """

    exit_code = EXIT_BUG

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    @property
    def problems(self) -> list[str]:
        """The problems one by one, where the message lists several."""
        return self.message.splitlines()


class InputError(HkrunError):
    """What the user wrote cannot be used: an unknown key, a wrong type, an impossible value."""

    exit_code = EXIT_INPUT


class NotFoundError(InputError):
    """What the user named is not there: a search space, a store, a study, a cell, a run."""


class DataError(HkrunError):
    """A data set is missing or damaged."""

    exit_code = EXIT_DATA


class ResourceError(HkrunError):
    """The request does not fit the machine or the cluster."""

    exit_code = EXIT_RESOURCES


class TrainingError(HkrunError):
    """A teacher failed or diverged, so that no run can start."""

    exit_code = EXIT_RUNS_FAILED


class StoreError(HkrunError):
    """The store cannot be read or written, or another driver holds it."""

    exit_code = EXIT_STORE


class HeldError(StoreError):
    """Another driver holds what this one wants to work on; only that, not the store."""


class Interrupted(HkrunError):  # noqa: N818 - what the user did, not an error
    """The user stopped the command. Running it again goes on where it was."""

    exit_code = EXIT_INTERRUPTED


class ClusterLostError(Interrupted):
    """The cluster is gone, or Ray has ended the process that had joined it. Says how."""
