"""`python -m hkrun` is `hkrun`."""

import os
import sys

# `-m` alone puts the working directory before the libraries: a random.py there would be taken for Python's.
if not sys.flags.safe_path:
    _first = sys.path.pop(0)
    if os.path.dirname(os.path.dirname(__file__)) == _first:  # noqa: PTH120 - a clone that is not installed
        sys.path.append(_first)

from hkrun.cli import main

main()
