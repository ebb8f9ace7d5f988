"""Processes for tasks come to the raylet, and import, one after the other; the first gets the first task."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import hkrun
from hkrun.cluster import ray_private
from hkrun.cluster.ray_private import worker

CODE = Path(hkrun.__file__).parent
# In the place of Ray's programs: says what it was given, and keeps its turn until it hears a line.
PROGRAM = """
import fcntl, json, os, sys
turn = os.environ.get("HKRUN_TURN")
print(json.dumps({"program": sys.argv, "turn": turn is not None}), flush=True)
if turn:
    os.fstat(int(turn))
    sys.stdin.readline()
    os.close(int(turn))
    sys.stdin.readline()
"""


@pytest.fixture
def programs(tmp_path) -> Path:
    for name in ("default_worker.py", "setup_worker.py"):
        (tmp_path / name).write_text(PROGRAM)
    return tmp_path


def start(programs: Path, *arguments: str, file: str = worker.__file__, path: Path = CODE.parent):
    return subprocess.Popen(
        [sys.executable, file, str(programs / "default_worker.py"), *arguments],
        env=os.environ | {"TMPDIR": str(programs), "PYTHONPATH": str(path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_process_becomes_the_workers_program_without_what_is_meant_for_another(programs):
    arguments = ["--node-id=ab", "--language=PYTHON", "--session-name", "s", "--runtime-env-hash=0"]
    with start(programs, *arguments, "--serialized-runtime-env-context={}") as process:
        told, _ = process.communicate(timeout=60)
    own = [str(programs / "default_worker.py"), "--node-id=ab", "--session-name", "s", "--runtime-env-hash=0"]
    assert json.loads(told) == {"program": own, "turn": True}


def test_a_process_that_gets_no_tasks_takes_no_turn_that_nothing_would_end(programs):
    arguments = ["--worker-type=SPILL_WORKER", "--object-spilling-config=e30="]
    with start(programs, *arguments, "--language=PYTHON") as process:
        told, _ = process.communicate(timeout=60)
    assert json.loads(told) == {"program": [str(programs / "default_worker.py"), *arguments], "turn": False}


@pytest.mark.parametrize(
    "arguments",
    [["--language=PYTHON", '--serialized-runtime-env-context={"env_vars": {"A": "1"}}'], ["--language=JAVA"]],
)
def test_the_environment_of_a_task_that_asks_for_one_is_made_by_rays_program(programs, arguments):
    with start(programs, "--node-id=ab", *arguments) as process:
        told, _ = process.communicate(timeout=60)
    own = [str(programs / name) for name in ("setup_worker.py", "default_worker.py")]
    assert json.loads(told) == {"program": [*own, "--node-id=ab", *arguments], "turn": False}


def test_the_second_process_comes_when_the_first_lets_it(programs):
    with start(programs, "--language=PYTHON") as first:
        assert json.loads(first.stdout.readline())["turn"]
        with start(programs, "--language=PYTHON") as second:
            heard = threading.Thread(target=second.stdout.readline)
            heard.start()
            heard.join(timeout=2)
            assert heard.is_alive()
            first.stdin.write("\n")
            first.stdin.flush()
            heard.join(timeout=60)
            assert not heard.is_alive()
            assert first.poll() is None  # its turn has ended, not the process
            second.communicate(timeout=60)
        first.communicate(timeout=60)


def test_a_process_whose_turn_never_ends_is_not_waited_for_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(worker, "PATIENCE_S", 0.2)
    began, turns = time.monotonic(), [worker.take_turn(), worker.take_turn()]
    assert time.monotonic() - began >= 0.2
    with (tmp_path / "turn.lock").open("w") as file:
        os.close(turns.pop())
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(turns.pop())
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_who_finds_another_hkrun_takes_no_turn_that_nothing_would_end(programs, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(CODE / "cluster" / "ray_private", other / "hkrun" / "cluster" / "ray_private")
    (other / "hkrun" / "__init__.py").touch()
    its_own = str(other / "hkrun" / "cluster" / "ray_private" / "worker.py")
    for file, path in ((worker.__file__, other), (its_own, CODE.parent)):
        with start(programs, "--language=PYTHON", file=file, path=path) as process:
            told, _ = process.communicate(timeout=60)
        assert json.loads(told)["turn"] is False


LOOK = """
import fcntl, os, sys
from pathlib import Path
turn = os.open(os.devnull, os.O_RDONLY)
os.environ["HKRUN_TURN"] = str(turn)
locked = []
def is_open():
    try: return bool(os.fstat(turn))
    except OSError: return False
fcntl.flock = lambda file, how: locked.append(file) or print(file.name, how == fcntl.LOCK_EX, is_open())
class Finder:
    def find_spec(self, name, *_):
        if name == "hkrun.cluster.trials.tune":
            print(is_open(), [file.closed for file in locked])
            raise ImportError("seen")
sys.meta_path.insert(0, Finder())
try:
    import hkrun.cluster.driver.preload
except ImportError as error:
    print(str(error).partition(",")[0], is_open(), [file.closed for file in locked])
"""


@pytest.mark.parametrize("code", [CODE, CODE / "another"])
def test_who_comes_waits_for_the_imports_of_those_before_and_then_lets_the_next_come(tmp_path, code):
    environment = os.environ | {"TMPDIR": str(tmp_path), ray_private.PRELOAD_FROM_VARIABLE: str(code)}
    told = subprocess.run(
        [sys.executable, "-c", LOOK], env=environment, check=True, capture_output=True, text=True
    )
    lock = f"{tmp_path / 'preload.lock'} True True"
    if code == CODE:
        assert told.stdout.splitlines() == [lock, "False [False]", "seen False [True]"]
    else:
        assert told.stdout.splitlines() == [lock, f"the driver's hkrun is at {code} False [True]"]
