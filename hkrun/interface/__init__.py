"""hkrun for Python: the functions and classes that `import hkrun` offers.

calling.py    plan and run
planned.py    a plan, as it is looked at
studies.py    a store and its studies, to read
columns.py    runs, curves, results and comparisons as Arrow tables
progress.py   how far a study is: events for a function, or the display of the command line
notebook.py   the display of a notebook, and tables as HTML

All that trains goes the way of the command line: `hkrun.sweep` plans and runs, and its display shows it.
"""

from hkrun.interface.calling import plan, run
from hkrun.interface.planned import Plan
from hkrun.interface.progress import ProgressEvent
from hkrun.interface.studies import Results, Store, Study, open_store

__all__ = ["Plan", "ProgressEvent", "Results", "Store", "Study", "open_store", "plan", "run"]
