"""Finds private names of Ray, and says once of each that is not there what follows."""

import importlib
import inspect
import logging
from collections.abc import Collection
from typing import Any

logger = logging.getLogger(__name__)

TESTED = "2.60"
_told: set[str] = set()


def find(module: str, *names: str, consequence: str, parameters: Collection[str] = ()) -> Any:
    """A module of Ray's that has these names; where it lacks one, logs what follows, and returns None.

    `parameters` are what its members must take, if they are called.
    """
    try:
        found = importlib.import_module(module)
        members = [getattr(found, name) for name in names]
        if all(
            set(parameters) <= set(inspect.signature(member).parameters) for member in members if parameters
        ):
            return found
    except (ImportError, AttributeError, TypeError, ValueError):
        pass
    takes = f"({', '.join(parameters)})" if parameters else ""
    do_without(f"{module}.{' and '.join(names)}{takes}", consequence)
    return None


def do_without(name: str, consequence: str) -> None:
    """Logs, once per name, that Ray lacks one and what follows."""
    if name not in _told:
        _told.add(name)
        import ray

        logger.warning("Ray %s has no %s, as Ray %s has: %s", ray.__version__, name, TESTED, consequence)
