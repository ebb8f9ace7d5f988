"""What tests import that write modules of the user's."""

import os
import sys
from pathlib import Path


def modules_below(folder: Path) -> list[str]:
    """The names of imported modules whose files lie in a folder."""
    # As text: thousands of modules would take a second to resolve.
    below = tuple(f"{place}{os.sep}" for place in (folder, folder.resolve()))
    files = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
    return [name for name, file in files.items() if file and str(file).startswith(below)]
