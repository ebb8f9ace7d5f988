"""Which accounts listen at an address of this machine: any can, where no other process does. Linux only."""

import ipaddress
import os
import socket
import sys
from pathlib import Path

TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTENS = "0A"
_WORD = 8  # hexadecimal digits of 4 bytes, which are in the machine's order

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def find_strangers(host: str, port: int) -> set[int]:
    """The accounts that listen at an address of this machine and are neither this process's nor root.

    Args:
        host: `localhost` or an IP address of loopback.
        port: The TCP port.

    Returns:
        Their numbers; empty also where the system does not tell.
    """
    addresses = _resolve(host, port)
    found = set()
    for table in TABLES:
        try:
            lines = table.read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            _, local, _, state, _, _, _, uid, *_ = line.split()
            address, _, its_port = local.partition(":")
            if state == _LISTENS and int(its_port, 16) == port:
                listening = _read_address(address)
                if listening.is_unspecified or listening in addresses:
                    found.add(int(uid))
    return found - {0, os.getuid(), os.geteuid()}


def _resolve(host: str, port: int) -> set[Address]:
    """The addresses that a connection may go to."""
    try:
        told = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return set()  # the connection will fail likewise
    return {ipaddress.ip_address(place[0]) for *_, place in told}


def _read_address(digits: str) -> Address:
    """An address of the tables, such as `0100007F` for 127.0.0.1; IPv4 in IPv6 becomes IPv4."""
    words = [digits[start : start + _WORD] for start in range(0, len(digits), _WORD)]
    packed = b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words)
    address = ipaddress.ip_address(packed)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
