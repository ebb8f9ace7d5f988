"""How many runs of a cell train together, as one packed network."""

import math
from collections.abc import Mapping

from hkrun.config import Cell, cell_id
from hkrun.networks import IMAGENET_NETWORKS
from hkrun.parts import is_own
from hkrun.spaces import Recipe, Sweep


def why_alone(cell: Cell, *, workers: int) -> str:
    """Why the runs of a cell cannot be packed; empty where they can."""
    if workers > 1:
        return "several workers train one run"
    if is_own(cell.student.network):
        return f"what {cell.student.network} does to its channels is not known"
    if cell.student.network in IMAGENET_NETWORKS:
        return f"{cell.student.network} is torchvision's"
    if cell.dataset == "imagenet":
        return "its images are decoded for each run"
    return ""


def choose_sizes(
    sweep: Sweep,
    *,
    workers: int,
    slots: int,
    device: str,
    wanted: Mapping[str, int] | int | None = None,
    kept: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Decides how many runs of each cell train together.

    Without a wish, a sweep that was started keeps its packs. A new one takes what its recipe has measured for
    its networks on such a device, but no more than gives every slot something to do; nothing measured now
    decides it, so the same command on the same machine always trains the same packs.

    Args:
        sweep: The sweep.
        workers: Processes that train one run together.
        slots: How many packs can run at the same time.
        device: "cpu" or "cuda".
        wanted: A size for all cells that can be packed, or by cell_id.
        kept: By cell_id, of the sweep as it was started before.

    Returns:
        Sizes by cell_id.
    """
    cells = {cell_id(named.cell, world_size=workers): named.cell for named in sweep.cells}
    most = min(len(sweep.seeds), math.ceil(len(cells) * len(sweep.seeds) / slots))
    sizes = {}
    for identity, cell in cells.items():
        if why_alone(cell, workers=workers):
            sizes[identity] = 1
        elif isinstance(wanted, int):
            sizes[identity] = min(wanted, len(sweep.seeds))
        elif wanted is not None and identity in wanted:
            sizes[identity] = wanted[identity]
        elif kept is not None and identity in kept:
            sizes[identity] = kept[identity]
        else:
            sizes[identity] = min(most, _measured_size(cell, sweep.recipe, device))
    return sizes


def _measured_size(cell: Cell, recipe: Recipe, device: str) -> int:
    size = recipe.evidence.get(f"pack_{device}", {}).get("value")
    if not isinstance(size, int) or cell.student.network != recipe.cell.student.network:
        return 1
    return max(1, size)
