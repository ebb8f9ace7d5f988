"""Cells: the keys of a configuration, their checks, the canonical form and `cell_id`.

A cell is assembled from layers (recipe of its data set, `[base]` of the search space, the cell, overrides);
see `hkrun.spaces` for the files.
"""

from hkrun.config.cell import Cell, get_value
from hkrun.config.checks import (
    Setting,
    build_cell,
    check_declared,
    check_setting,
    check_weight_file,
    nearest,
    restore_cell,
)
from hkrun.config.identity import (
    active_keys,
    canonical,
    canonical_json,
    cell_id,
    teacher_canonical,
    teacher_id,
    teachers_id,
)
from hkrun.config.keys import (
    Keys,
    cell_from_values,
    cell_keys,
    cell_values,
    describe_range,
    describe_type,
    find_keys,
    keys,
    keys_of,
)
from hkrun.config.schedule import learning_rate
from hkrun.config.sections import (
    AugmentConfig,
    KeyInfo,
    LossConfig,
    QuantizationConfig,
    Value,
)
