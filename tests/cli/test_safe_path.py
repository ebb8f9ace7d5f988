"""`python -m hkrun` where the working directory has files with the names of libraries."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hkrun

NAMES = (
    "numbers",
    "random",
    "typing",
    "click",
    "ray",
    "torch",
    "mlflow",
    "pyarrow",
    "scipy",
    "json",
    "logging",
)
NETWORK = """
import numbers
from hkrun.models import build_network

def make(*, num_classes, in_channels):
    assert issubclass(int, numbers.Number)
    return build_network("preact-8-w4", num_classes=num_classes, in_channels=in_channels)

make.widths, make.stem_width = (4, 8, 16), 4
"""


@pytest.fixture
def hiding(folder):
    """A working directory that would hide libraries."""
    for name in NAMES:
        (folder / f"{name}.py").write_text(f"raise RuntimeError('{name}.py of the working directory')")
    return folder


def call(*arguments, **options):
    command = [sys.executable, *options.pop("flags", ()), "-m", "hkrun", *arguments]
    return subprocess.run(command, capture_output=True, text=True, **options)


@pytest.mark.parametrize("flags", [(), ("-P",)])
def test_files_of_the_users_hide_no_library(hiding, flags):
    done = call("keys", "loss.mu", "--json", flags=flags)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)
    assert call("sweep", "stability", "--dry-run", flags=flags).returncode == 0


def test_what_pythonpath_says_counts(folder):
    (folder / "click.py").write_text("raise RuntimeError('as PYTHONPATH says')")
    done = call("keys", env=os.environ | {"PYTHONPATH": str(folder)})
    assert "as PYTHONPATH says" in done.stderr


def test_a_clone_that_is_not_installed_runs_from_its_folder(folder):
    package = Path(hkrun.__file__).parent
    shutil.copytree(package, folder / "hkrun", ignore=shutil.ignore_patterns("__pycache__"))
    start = folder / "hkrun" / "__init__.py"
    start.write_text(start.read_text().replace(hkrun.__version__, "7.0.0"))
    (folder / "numbers.py").write_text("raise RuntimeError")
    assert call("--version").stdout.startswith("hkrun 7.0.0\n")
    assert call("keys", "loss.mu").returncode == 0


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize("program", [["-m", "hkrun"], [str(Path(sys.executable).with_name("hkrun"))]])
def test_workers_take_no_file_of_the_users_for_a_library_and_find_own_parts(hiding, program):
    (hiding / "mynets.py").write_text(NETWORK)
    command = [sys.executable, *program, "run", "method=supervised", "student.network=mynets:make"]
    command += ["--seeds", "1", "--epochs", "1", "--workers", "1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    (cell,) = json.loads(done.stdout)["cells"]
    assert cell["seeds"] == [0]
