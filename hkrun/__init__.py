"""hkrun: many-seed studies of adversarial knowledge distillation.

A notebook needs two lines:

    import hkrun
    runs = hkrun.open_store("hkrun-store").runs().to_pandas()
"""

from __future__ import annotations

# Not from typing: `python -m hkrun` comes here while a file of the user's could hide it.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from hkrun.store import Store, open_store

__version__ = "0.1.0"
__all__ = ["Store", "__version__", "open_store"]


def __getattr__(name: str) -> object:
    """Loads the store when it is first used: the command line must start fast, and pyarrow is not light."""
    if name in ("Store", "open_store"):
        from hkrun import store

        return getattr(store, name)
    raise AttributeError(f"module 'hkrun' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
