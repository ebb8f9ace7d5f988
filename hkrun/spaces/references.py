"""The cell of a search space that the others are compared with, by its name or as reports call it."""

from collections.abc import Sequence

from hkrun.config import Setting, check_setting
from hkrun.spaces.axes import Variant
from hkrun.spaces.cell_names import find_cell, label_points, tell_cells
from hkrun.spaces.toml_tables import Table


def find_reference(called: str, variants: Sequence[Variant], table: Table) -> str | None:
    """The name of the reference; where it is no cell, that goes to the table's problems."""

    def read(setting: Setting) -> object:  # in the type of its key, as cells have it: 1.0 for 1
        return check_setting(setting, table.problems.keys, look_at_own=False)[0]

    labels = label_points(
        (variant.name, variant.group, {setting.key: read(setting) for setting in variant.point})
        for variant in variants
    )
    found = find_cell(called, labels)
    if found is None and not table.document.broken:
        table.refuse("reference", f"{called!r} is no cell; cells: {tell_cells(called, labels)}")
    return found
