#!/usr/bin/env bash
# Guess: `Console(file=text)` prints into that file, wherever the process runs.
# Truth: in the kernel of a notebook nothing reaches the file: each print becomes an output of the cell.
#        `force_jupyter=False` makes it the console that was asked for.
# Hurts: who renders a table for a log, a file or a `__repr__`: it is empty there, and stands in the notebook.
. "$(dirname "$0")/isolated.bash"
packages rich==15.0.0 ipykernel==7.4.0 nbclient==0.11.0

cat > cell.py <<'PYTHON'
import io, rich.console
def render(**options):
    text = io.StringIO()
    rich.console.Console(file=text, **options).print("a line")
    return text.getvalue()
found = render(), render(force_jupyter=False)
PYTHON
python - <<'PYTHON' 2>errors.txt || { cat errors.txt; exit 1; }
from importlib.metadata import version
from pathlib import Path

import nbformat
from nbclient import NotebookClient

code = Path("cell.py").read_text()
names = {}
exec(code, names)
cells = [nbformat.v4.new_code_cell(source) for source in (code, "found")]
notebook = NotebookClient(nbformat.v4.new_notebook(cells=cells), kernel_name="python3").execute()
shown, value = (cell.outputs for cell in notebook.cells)
print(f"rich {version('rich')}, what Console(file=text) prints into its file, by itself and with force_jupyter=False:")
print(f"  a script   {names['found']}")
print(f"  a notebook {value[0].data['text/plain']}, and {len(shown)} output of the cell: {shown[0].data['text/plain']!r}")
assert names["found"] == ("a line\n", "a line\n")
assert value[0].data["text/plain"] == r"('', 'a line\n')"
assert len(shown) == 1
PYTHON
