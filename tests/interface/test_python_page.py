"""The code of docs/python.md, executed from top to bottom, and that of README, as a reader would."""

import ast
import re
from pathlib import Path

import in_process

import hkrun.cluster

REPOSITORY = Path(__file__).parents[2]


def read_blocks(name: str, section: str = "") -> list[str]:
    """The blocks of Python in a page, or in one of its sections."""
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    if section:
        text = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def execute(code: str, names: dict[str, object]) -> object:
    """Executes a block as a cell of a notebook: returns the value of a last line that is an expression."""
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "block", "exec"), names)
    return eval(compile(ast.Expression(last.value), "block", "eval"), names) if last is not None else None


def test_the_page_can_be_executed_from_top_to_bottom(folder, quick_mirror, few_digits, capsys, monkeypatch):
    """With tasks in this process: test_python_runs.py has them on Ray, a notebook executes the page there."""
    monkeypatch.setattr(hkrun.cluster, "run_tasks", in_process.run_tasks)
    quick_mirror("hkrun-store")
    names: dict[str, object] = {}
    values = [execute(block, names) for block in read_blocks("docs/python.md")]
    plans = [value for value in values if type(value).__name__ == "Plan"]
    assert [(plan.runs, plan.done) for plan in plans] == [(20, 0), (9, 0)]
    assert all("<table" in plan._repr_html_() for plan in plans)
    first, grown = [value for value in values if type(value).__name__ == "Study"]
    name = "how-much-does-the-weight-of-kd-matter"
    assert repr(first) == f"<hkrun.Study {name} on digits: 9/9 runs>"
    assert repr(grown) == f"<hkrun.Study {name} on digits: 12/12 runs>"
    assert grown._repr_html_().count("<img") == 2
    printed = capsys.readouterr().out
    assert "12 of 12 runs: " in printed
    assert "did you mean 'hkrun-store'?" in printed
    assert printed.count("did you mean") == 4
    assert len(names["runs"]) == 12
    assert list(names["results"].alpha.dropna()) == [0.5, 0.9]
    assert not Path("hkrun-stroe").exists()


def test_the_example_of_the_readme_is_code_that_the_page_explains():
    (block,) = read_blocks("README.md", "From Python")
    called = set(re.findall(r"hkrun\.(\w+)", block))
    page = "".join(read_blocks("docs/python.md"))
    assert called == {"plan", "run", "open_store"}
    assert all(f"hkrun.{name}(" in page for name in called)
    ast.parse(block)
