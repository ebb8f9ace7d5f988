"""hkrun: many-seed studies of adversarial knowledge distillation.

    import hkrun

    hkrun.plan("stability", seeds=5)                  # what would run, and for how long
    study = hkrun.run("stability", seeds=5)           # trains what the store lacks
    study.results().to_pandas()                       # errors and S, one row per cell
    hkrun.open_store("hkrun-store").study("stability").curves().to_pandas()

docs/python.md explains all of it.
"""

from __future__ import annotations

from hkrun.errors import (
    ClusterLostError,
    DataError,
    HeldError,
    HkrunError,
    InputError,
    Interrupted,
    NotFoundError,
    ResourceError,
    StoreError,
    TrainingError,
)

# Not from typing: `python -m hkrun` comes here while a file of the user's could hide it.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from hkrun.interface.calling import plan, run
    from hkrun.interface.planned import Plan
    from hkrun.interface.progress import ProgressEvent
    from hkrun.interface.studies import Results, Store, Study, open_store

__version__ = "0.1.0"
__all__ = [
    "ClusterLostError",
    "DataError",
    "HeldError",
    "HkrunError",
    "InputError",
    "Interrupted",
    "NotFoundError",
    "Plan",
    "ProgressEvent",
    "ResourceError",
    "Results",
    "Store",
    "StoreError",
    "Study",
    "TrainingError",
    "__version__",
    "open_store",
    "plan",
    "run",
]


def __getattr__(name: str) -> object:
    """Loads a part of the interface when it is first used: the command line must start fast."""
    if name in ("open_store", "Results", "Store", "Study"):
        from hkrun.interface import studies

        return getattr(studies, name)
    if name in ("plan", "run"):
        from hkrun.interface import calling

        return getattr(calling, name)
    if name == "Plan":
        from hkrun.interface import planned

        return planned.Plan
    if name == "ProgressEvent":
        from hkrun.interface import progress

        return progress.ProgressEvent
    raise AttributeError(f"module 'hkrun' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
