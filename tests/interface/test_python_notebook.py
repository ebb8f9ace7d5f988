"""docs/python.md as a notebook that nbconvert runs in a kernel: what its cells show."""

import re

import pytest
from test_python_page import read_blocks

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")
preprocessors = pytest.importorskip("nbconvert.preprocessors")
exporters = pytest.importorskip("nbconvert.exporters")

# The page runs without a display; a notebook has one by itself.
SHOWN = "hkrun.run(space, seeds=5, store='hkrun-store')"


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*IPython.*", "ignore:.*asyncio.*")
def test_a_notebook_shows_plans_the_progress_studies_and_figures(folder):
    cells = [nbformat.v4.new_code_cell(block) for block in [*read_blocks("docs/python.md"), SHOWN]]
    notebook = nbformat.v4.new_notebook(cells=cells)
    preprocessors.ExecutePreprocessor(timeout=240, kernel_name="python3").preprocess(
        notebook, {"metadata": {"path": str(folder)}}
    )
    html = [
        output.data["text/html"]
        for cell in notebook.cells
        for output in cell.outputs
        if "data" in output and "text/html" in output.data
    ]
    assert [
        output for cell in notebook.cells for output in cell.outputs if output.get("name") == "stderr"
    ] == []
    assert len(html) == 8, "each value is one output, and so is the progress"
    plan, progress, study = html[0], html[-2], html[-1]
    assert "Convergence stability, digits" in plan
    assert "20 of 20 runs to train" in plan
    assert "15/15 runs done" in re.sub(r"<[^>]+>", "", progress), "the last of what was shown stays"
    assert study.count("data:image/svg+xml;base64,") == 2
    assert "15/15 runs done" in study
    assert re.search(r"after \d+ s", progress)
    page, _ = exporters.HTMLExporter().from_notebook_node(notebook)
    (folder / "python.html").write_text(page, encoding="utf-8")
    assert page.count("data:image/svg+xml;base64,") >= 2
    assert "Traceback" not in page
