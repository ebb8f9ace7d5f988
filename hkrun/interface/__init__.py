"""hkrun for Python: the functions and classes that `import hkrun` offers.

calling.py    plan and run
planned.py    a plan, as it is looked at
studies.py    a store and its studies, to read
columns.py    runs, curves, results and comparisons as Arrow tables
progress.py   how far a study is: events for a function, or the display of the command line
notebook.py   the display of a notebook
html.py       tables and figures as HTML

Each name is loaded from its module when it is first used: reading a store needs nothing that trains. All that
trains goes the way of the command line: `hkrun.sweep` plans and runs, and its display shows it.
"""
