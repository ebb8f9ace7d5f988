"""The program before a RayJob's command, which says whether another cluster would be of use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sweep_example import put_run
from tracking_stack import BIN, DEPLOY

from hkrun.spaces import load_sweep
from hkrun.store import open_store

PROGRAM = DEPLOY / "hkrun" / "accept-diverged"
SPACE = """
title = "Of one cell"
question = "Is it over?"
dataset = "digits"
seeds = 2
[base]
student.epochs = 8
[analysis]
window = 2
[[cells]]
name = "L_b"
loss.lambda_2 = 0.0
loss.lambda_3 = 0.0
"""


def accept(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    hidden = ("RAY_", "MLFLOW_", "HKRUN_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    return subprocess.run(
        [sys.executable, str(PROGRAM), *command],
        cwd=folder,
        env=clean,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


def stand_in(folder: Path, *, ends: str, plans: str) -> str:
    """A command that ends in one way, and when it is asked for its plan in another."""
    script = folder / "command"
    script.write_text(f'#!/bin/sh\ncase "$*" in *--dry-run*) {plans} ;; *) echo trained; {ends} ;; esac\n')
    script.chmod(0o755)
    return str(script)


@pytest.mark.parametrize("status", [0, 1, 2, 3, 4, 6, 75])
def test_every_other_end_is_passed_on_and_no_plan_is_asked_for(tmp_path: Path, status: int) -> None:
    command = stand_in(tmp_path, ends=f"exit {status}", plans="touch asked")
    done = accept(tmp_path, command, "sweep")
    assert (done.returncode, done.stdout, done.stderr) == (status, "trained\n", "")
    assert not (tmp_path / "asked").exists()


def test_a_command_that_is_killed_ends_as_in_a_shell(tmp_path: Path) -> None:
    assert accept(tmp_path, stand_in(tmp_path, ends="kill -KILL $$", plans="exit 1")).returncode == 128 + 9


def test_a_plan_that_cannot_be_made_is_no_reason_to_call_it_over(tmp_path: Path) -> None:
    done = accept(tmp_path, stand_in(tmp_path, ends="exit 5", plans="exit 6"), "sweep")
    assert done.returncode == 5
    assert "an unknown number of runs are left to train" in done.stderr


@pytest.fixture
def ended(tmp_path: Path) -> Path:
    """A folder with a sweep, of which one run finished."""
    (tmp_path / "space.toml").write_text(SPACE)
    (cell,) = load_sweep(str(tmp_path / "space.toml")).cells
    put_run(open_store(tmp_path / "hkrun-store"), cell, 0)
    return tmp_path


@pytest.mark.parametrize(
    ("changes", "status", "told"),
    [
        ({"status": "diverged", "diverged_epoch": 9}, 0, "nothing is left to train"),
        ({"status": "failed", "curves": None}, 5, "1 runs are left to train"),
        pytest.param(None, 5, "1 runs are left to train", marks=pytest.mark.slow),
    ],
    ids=["diverged", "failed", "no record"],
)
def test_the_sweeps_own_plan_says_whether_it_is_over(
    ended: Path, changes: dict[str, object] | None, status: int, told: str
) -> None:
    if changes is not None:
        (cell,) = load_sweep(str(ended / "space.toml")).cells
        put_run(open_store(ended / "hkrun-store"), cell, 1, **changes)
    command = stand_in(ended, ends="exit 5", plans=f'exec "{BIN}/hkrun" "$@"')
    done = accept(ended, command, "sweep", "space.toml", "--yes")
    assert (done.returncode, told in done.stderr) == (status, True), done.stderr


@pytest.mark.slow
def test_a_sweep_that_finds_diverged_runs_only_ends_its_job_well(ended: Path) -> None:
    (cell,) = load_sweep(str(ended / "space.toml")).cells
    put_run(open_store(ended / "hkrun-store"), cell, 1, status="diverged", diverged_epoch=9)
    command = (str(BIN / "hkrun"), "sweep", "space.toml", "--yes")
    assert subprocess.run(command, cwd=ended, capture_output=True, check=False).returncode == 5
    done = accept(ended, *command)
    assert done.returncode == 0, done.stderr
    assert "diverged" in done.stdout  # its own words come through
