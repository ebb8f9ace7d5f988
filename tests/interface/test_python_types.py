"""What a type checker that is strict, and knows nothing of hkrun's settings, sees of `import hkrun`."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
CODE = """
import hkrun

reveal_type(hkrun.plan("stability"))
study = hkrun.run({"title": "x"}, seeds=range(3), overrides={"loss.mu": 0.5}, progress=print)
reveal_type(study)
reveal_type(study.summary)
reveal_type(hkrun.open_store("x").studies())


def tell(event: hkrun.ProgressEvent) -> None:
    reveal_type(event.remaining_s)


try:
    hkrun.run("stability", progress=tell, seeds="3")
except hkrun.NotFoundError as error:
    reveal_type(error.problems)
"""
SEEN = [
    "hkrun.interface.planned.Plan",
    "hkrun.interface.studies.Study",
    "hkrun.report.summary.Summary",
    "list[hkrun.interface.studies.Study]",
    "float | None",
    "list[str]",
]


@pytest.mark.slow
def test_types_of_the_interface_are_seen_from_outside(tmp_path):
    (tmp_path / "users.py").write_text(CODE)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--follow-imports=silent", "users.py"],
        cwd=tmp_path,
        env={"MYPYPATH": str(REPOSITORY), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert re.findall(r'Revealed type is "(.*)"', done.stdout) == SEEN
    (problem,) = re.findall(r"^users\.py:\d+: error: (.*)$", done.stdout, re.MULTILINE)
    assert problem.startswith('Argument "seeds" to "run" has incompatible type "str"')
