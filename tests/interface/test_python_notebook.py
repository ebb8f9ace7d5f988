"""docs/python.md as a notebook that nbconvert runs in a kernel: what its cells show."""

import re

import pytest
from test_python_page import read_blocks
from test_python_runs import SPACE, find_processes_of_ray

# The page runs without a display; a notebook has one by itself.
SHOWN = "hkrun.run(space, seeds=5, store='hkrun-store')"


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*IPython.*", "ignore:.*asyncio.*")
def test_a_notebook_shows_plans_the_progress_studies_and_figures(folder):
    nbformat = pytest.importorskip("nbformat")
    preprocessors = pytest.importorskip("nbconvert.preprocessors")
    exporters = pytest.importorskip("nbconvert.exporters")
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
    assert re.search(r"after (\d+ s|\d+:\d\d min)", progress)
    page, _ = exporters.HTMLExporter().from_notebook_node(notebook)
    (folder / "python.html").write_text(page, encoding="utf-8")
    assert page.count("data:image/svg+xml;base64,") >= 2
    assert "Traceback" not in page


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*asyncio.*")
def test_the_interrupt_of_a_kernel_stops_the_study_and_the_kernel_goes_on(folder):
    managers = pytest.importorskip("jupyter_client.manager")
    manager, client = managers.start_new_kernel(kernel_name="python3", cwd=str(folder))
    try:
        code = f"""
import hkrun
def tell(event):
    if event.kind == "progress":
        print("training", flush=True)
hkrun.run({SPACE!r}, store="s", epochs=400, progress=tell)
"""
        asked = client.execute(code)
        while client.get_iopub_msg(timeout=120)["content"].get("text") != "training\n":
            pass
        manager.interrupt_kernel()
        while (reply := client.get_shell_msg(timeout=60))["parent_header"]["msg_id"] != asked:
            pass
        assert reply["content"]["ename"] == "KeyboardInterrupt"
        assert reply["content"]["evalue"].startswith("stopped by SIGINT; what is finished is kept")
        done = client.execute_interactive(
            "assert hkrun.open_store('s').study('trial-epochs-400').progress == '0/4'", timeout=60
        )
        assert done["content"]["status"] == "ok"
        assert find_processes_of_ray() == set()
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
