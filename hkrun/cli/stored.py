"""The studies of a store, by name; see `hkrun.plans.finding`, which is imported when a verb asks."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hkrun.plans import StoredPlan
    from hkrun.store import Store


def find_plans(store: "Store", name: str | None, dataset: str | None) -> "list[StoredPlan]":
    """The studies of a name and on a data set, or of any."""
    from hkrun import plans

    return plans.find_plans(store, name, dataset)


def find_plan(store: "Store", name: str, dataset: str | None) -> "StoredPlan":
    """The one study of a name."""
    from hkrun import plans

    return plans.find_plan(store, name, dataset)
