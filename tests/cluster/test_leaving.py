"""How a process ends that has joined clusters which are gone by then."""

import subprocess
import sys

import pytest
from started_cluster import StartedCluster, clean_environment

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

# C's own sleep is the last thing that the process does, so that threads which should be gone get their turn.
JOIN_AND_LEAVE = """
import ctypes, sys, time
from pathlib import Path
from hkrun.cluster.runtime import ray_running
c = ctypes.CDLL(None)
at_exit = c.__cxa_atexit
at_exit.argtypes = [ctypes.c_void_p] * 3
assert at_exit(ctypes.cast(c.sleep, ctypes.c_void_p), 25, None) == 0
for _ in range(4):
    with ray_running((), log_folder=Path(sys.argv[1])):
        time.sleep(4)
print("left", flush=True)
sys.stdin.read()
"""


@pytest.mark.timeout(300)
@pytest.mark.skipif(sys.platform != "linux", reason="asks the C library of Linux")
def test_a_process_that_has_left_a_cluster_ends_cleanly_when_that_is_gone(tmp_path):
    cluster = StartedCluster(token="secret-of-this-test")
    try:
        environment = clean_environment(
            RAY_ADDRESS=cluster.gcs, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=cluster.token or ""
        )
        process = subprocess.Popen(
            [sys.executable, "-c", JOIN_AND_LEAVE, str(tmp_path)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "left\n"
    finally:
        cluster.stop()
    process.communicate()
    assert process.returncode == 0
