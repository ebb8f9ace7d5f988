"""Access to a cluster's job server: its address, and the token, which is shown to no stranger.

The first request carries no token. A cluster that answers it lets everybody run anything, so it is refused,
and never sees the token.
"""

import ipaddress
import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from hkrun.cluster.token import find_token
from hkrun.errors import InputError, ResourceError

TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTENS = "0A"
_WORD = 8  # hexadecimal digits of 4 bytes, which are in the machine's order

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
TIMEOUT_S = 20.0
DEFAULT_PORT = 8265
_UNAUTHENTICATED, _WRONG_TOKEN = 401, 403
_WHERE_TOKENS_ARE = "RAY_AUTH_TOKEN, the file RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token"
logger = logging.getLogger("hkrun")


def find_strangers(host: str, port: int) -> set[int]:
    """The user ids that listen at an address of this machine and are neither this process's nor root's.

    Any account can listen where no other process does. Only Linux tells. None are found where the system does
    not tell.
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


@dataclass(frozen=True, kw_only=True)
class Access:
    """A job server that lets this user in.

    Attributes:
        url: Its address, such as `http://head:8265`.
        headers: What each request must carry; never shown, as it holds the token.
    """

    url: str
    headers: dict[str, str] = field(repr=False)
    ray_version: str


def read_address(address: str) -> str:
    """The URL of a job server: the user gives a URL, or `host` or `host:port` for plain HTTP.

    Raises:
        InputError: It is no such address.
    """
    url = address if "://" in address else f"http://{address}"
    wanted = "expected http://HOST:8265, https://HOST or HOST:8265, the address of the cluster's dashboard"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InputError(f"--address: {error}; {wanted}") from None
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise InputError(f"--address: holds a user, a password or a query; {wanted}")
    if parts.scheme not in ("http", "https") or not parts.hostname or not parts.netloc.isprintable():
        raise InputError(f"--address {address}: {wanted}")
    if any(character.isspace() for character in url):
        raise InputError(f"--address {address!r}: {wanted}")
    default = f":{DEFAULT_PORT}" if port is None and parts.scheme == "http" else ""
    return f"{parts.scheme}://{parts.netloc}{default}{parts.path.rstrip('/')}"


def is_private_way(url: str) -> bool:
    """Whether what is sent cannot be read on the way: it is encrypted, or stays on this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or _is_here(parts.hostname or "")


def _is_here(host: str) -> bool:
    """Whether a host is this machine's loopback."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def past_proxies(url: str) -> Iterator[None]:
    """Keeps requests to this machine from a proxy of the environment, which would read the token."""
    if not _is_here(urlsplit(url).hostname or ""):
        yield
        return
    before = os.environ.get("no_proxy")
    os.environ["no_proxy"] = "*"
    try:
        yield
    finally:
        if before is None:
            del os.environ["no_proxy"]
        else:
            os.environ["no_proxy"] = before


def open_access(address: str, *, insecure: bool) -> Access:
    """Finds out whether the cluster at an address lets this user in, and no others.

    `insecure` accepts a cluster without a token, and one that another account of this machine runs, which
    then sees the token.

    Raises:
        InputError: It is no address. ResourceError: There is no answer, the cluster has no token, is another
        account's, or does not take the
            user's token.
    """
    url = read_address(address)
    status, version = _ask(url, {})
    if status == 200:
        if not insecure:
            raise ResourceError(
                f"{url}: this cluster answers without a token, so everybody who reaches it can run anything "
                "there; start it with RAY_AUTH_MODE=token (docs/cluster.md), or say --insecure"
            )
        return Access(url=url, headers={}, ray_version=version)
    if status != _UNAUTHENTICATED:
        raise ResourceError(f"{url}: answers with HTTP {status}, not as Ray's dashboard does; is it one?")
    token = find_token()
    if token is None:
        raise ResourceError(f"{url}: wants a token, and there is none in {_WHERE_TOKENS_ARE}")
    if not insecure:
        _refuse_strangers(url)
    if not is_private_way(url):
        logger.warning(
            "the token goes to %s unencrypted: a reader on the way could use the cluster; better is "
            "https, or a tunnel: ssh -L 8265:localhost:8265 HOST, then --address http://localhost:8265",
            url,
        )
    headers = {"Authorization": f"Bearer {token}"}
    status, version = _ask(url, headers)
    if status in (_UNAUTHENTICATED, _WRONG_TOKEN):
        raise ResourceError(f"{url}: does not take the token that is in {_WHERE_TOKENS_ARE}; it is another's")
    if status != 200:
        raise ResourceError(f"{url}: answers with HTTP {status}, not as Ray's dashboard does; is it one?")
    return Access(url=url, headers=headers, ray_version=version)


def _refuse_strangers(url: str) -> None:
    """Raises ResourceError where another account of this machine would see the token.

    While a tunnel is down, any account can listen in its place. Over https the certificate tells.
    """
    parts = urlsplit(url)
    if parts.scheme == "https" or not _is_here(parts.hostname or ""):
        return
    strangers = find_strangers(parts.hostname or "", parts.port or DEFAULT_PORT)
    if strangers:
        raise ResourceError(
            f"{url}: another account of this machine listens there (user id "
            f"{', '.join(map(str, sorted(strangers)))}), and would be shown the token; is your tunnel up? if "
            "that account runs the cluster, say --insecure"
        )


def _ask(url: str, headers: dict[str, str]) -> tuple[int, str]:
    """The HTTP status of the question for Ray's version, and the version where it is told."""
    import requests

    try:
        with requests.Session() as session:
            # No proxy and no .netrc of the environment for requests to this machine.
            session.trust_env = not _is_here(urlsplit(url).hostname or "")
            answer = session.get(
                f"{url}/api/version", headers=headers, timeout=TIMEOUT_S, allow_redirects=False
            )
        told = answer.json() if answer.status_code == 200 else {}
        return answer.status_code, str(told.get("ray_version", "")) if isinstance(told, dict) else ""
    except requests.exceptions.SSLError as error:
        raise ResourceError(f"{url}: its certificate is not trusted: {_last_words(error)}") from None
    except requests.exceptions.JSONDecodeError:
        raise ResourceError(f"{url}: does not answer as Ray's dashboard does; is it one?") from None
    except requests.exceptions.RequestException as error:
        raise ResourceError(f"{url}: no answer: {_last_words(error)}") from None


def _last_words(error: Exception) -> str:
    """The cause of an error of requests, without the names of the classes around it."""
    return str(error).rpartition(": ")[2].strip("'\")> ") or type(error).__name__
