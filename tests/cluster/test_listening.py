"""Where the processes that hkrun starts on this machine can be reached: on its loopback alone."""

import ipaddress
import json
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import find_processes
from started_cluster import clean_environment

LISTEN = "0A"  # a state of TCP, as /proc/net/tcp writes it

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def listening(mark: str, folder: Path) -> dict[tuple[str, int], str]:
    """Address and port of each listening socket of the processes with a mark, and whose it is."""
    found = {}
    for process in find_processes(mark, folder):
        try:
            sockets = {path.readlink().name for path in (process / "fd").iterdir() if path.is_symlink()}
            for name in ("tcp", "tcp6"):
                for line in (process / "net" / name).read_text().splitlines()[1:]:
                    local, state, inode = line.split()[1], line.split()[3], line.split()[9]
                    if state == LISTEN and f"socket:[{inode}]" in sockets:
                        command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                        found[_read_place(local)] = command[:200]
        except OSError:
            continue  # it has ended, or closed a file
    return found


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for temporary files, with a name short enough for Ray's sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def _read_place(local: str) -> tuple[str, int]:
    """Address and port of `0100007F:1F90`, as the kernel writes them: words of four bytes, each reversed."""
    digits, _, port = local.partition(":")
    words = [bytes.fromhex(digits[start : start + 8])[::-1] for start in range(0, len(digits), 8)]
    return str(ipaddress.ip_address(b"".join(words))), int(port, 16)


def strangers(found: dict[tuple[str, int], str]) -> dict[tuple[str, int], str]:
    """Those that other machines may reach."""
    return {place: whose for place, whose in found.items() if not _is_loopback(place[0])}


def _is_loopback(address: str) -> bool:
    found = ipaddress.ip_address(address)
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback


def test_the_search_sees_a_socket_that_is_open_to_others(temporary):
    mark = uuid.uuid4().hex
    listen = (
        "import socket, time; s = socket.create_server(('0.0.0.0', 0)); print(1, flush=True); time.sleep(60)"
    )
    environment = clean_environment(HKRUN_TEST_MARK=mark)
    with subprocess.Popen([sys.executable, "-c", listen], env=environment, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        assert len(strangers(listening(mark, temporary))) == 1
        process.kill()


@pytest.mark.cluster
@pytest.mark.parametrize("workers", ["1", "2"], ids=["alone", "in groups, with the dashboard"])
def test_a_sweep_listens_on_loopback_alone(tmp_path, temporary, workers):
    mark = uuid.uuid4().hex
    command = ["run", "method=supervised", "--seeds", "1", "--epochs", "100000", "--workers", workers]
    process = subprocess.Popen(
        [sys.executable, "-m", "hkrun", *command, "--yes"],
        cwd=tmp_path,
        env=clean_environment(HKRUN_TEST_MARK=mark, HOME=str(tmp_path), TMPDIR=str(temporary)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deadline = time.monotonic() + 200
        while not list(tmp_path.glob("hkrun-store/cells/*/seeds/*/checkpoints/manifest.json")):
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.5)
        found = listening(mark, temporary)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert len(found) >= 4  # Ray's head, raylet and agents were there
    # Where workers of a group meet, torch listens on all addresses and cannot be told otherwise.
    meeting = {place: whose for place, whose in strangers(found).items() if "TrainWorker" in whose}
    assert len(meeting) <= int(workers) - 1
    assert strangers(found) == meeting


def test_the_ui_listens_on_loopback_alone(tmp_path, temporary):
    mark = uuid.uuid4().hex
    environment = clean_environment(HKRUN_TEST_MARK=mark, HOME=str(tmp_path))
    from hkrun.store import open_store

    open_store(tmp_path / "hkrun-store")
    process = subprocess.Popen(
        [sys.executable, "-m", "hkrun", "ui", "--no-browser", "--json"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        document = ""
        while not document.endswith("\n}\n"):
            line = process.stdout.readline()
            assert line, process.stderr.read()
            document += line
        found = listening(mark, temporary)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    port = int(json.loads(document)["address"].rpartition(":")[2])
    assert ("127.0.0.1", port) in found
    assert strangers(found) == {}
