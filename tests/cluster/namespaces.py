"""Hosts on this machine: network namespaces with an address and a name of their own, joined by a bridge."""

import contextlib
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

NETWORK = "10.213.77"
# A host's name, what it does not see of the files, then its command.
_ENTER = """
hostname "$1"
mount --bind "$2" /etc/hosts
if [ -n "$3" ]; then mount -t tmpfs none "$3"; fi
shift 3
exec "$@"
"""


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@contextlib.contextmanager
def hosts(
    *names: str, hidden: Mapping[str, Path], folder: Path
) -> Iterator[dict[str, tuple[str, list[str]]]]:
    """Makes hosts that reach each other and nothing else, and takes them away after the block.

    Args:
        names: What they are called.
        hidden: A folder that a host of that name sees empty, as if it were not shared.
        folder: Where their `hosts` file is put.

    Yields:
        For each name its address and the command in front of whatever runs there.
    """
    mark = secrets.token_hex(2)
    bridge = f"hkb{mark}"
    spaces = {name: f"hk{mark}-{name}" for name in names}
    addresses = {name: f"{NETWORK}.{number}" for number, name in enumerate(names, start=1)}
    file = folder / "hosts"
    file.write_text("127.0.0.1 localhost\n" + "".join(f"{addresses[name]} {name}\n" for name in names))
    try:
        try:
            _ip("link", "add", bridge, "type", "bridge")
            for number, name in enumerate(names, start=1):
                _make_host(spaces[name], bridge, f"hkv{mark}{number}", addresses[name])
            _ip("link", "set", bridge, "up")
        except (OSError, subprocess.CalledProcessError) as error:
            told = getattr(error, "stderr", "") or error
            pytest.skip(f"network namespaces are not permitted here: {str(told).strip()}")
        yield {
            name: (addresses[name], _prefix(spaces[name], name, str(file), str(hidden.get(name, ""))))
            for name in names
        }
    finally:
        for space in spaces.values():
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", bridge], capture_output=True, check=False)


def _prefix(space: str, *arguments: str) -> list[str]:
    """The command in front of what runs on a host."""
    return [
        "ip",
        "netns",
        "exec",
        space,
        "unshare",
        "--uts",
        "--mount",
        "sh",
        "-ec",
        _ENTER,
        "sh",
        *arguments,
    ]


def _make_host(space: str, bridge: str, cable: str, address: str) -> None:
    _ip("netns", "add", space)
    _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space)
    _ip("link", "set", cable, "master", bridge, "up")
    for command in (
        ("addr", "add", f"{address}/24", "dev", "eth0"),
        ("link", "set", "eth0", "up"),
        ("link", "set", "lo", "up"),
    ):
        _ip("-n", space, *command)
