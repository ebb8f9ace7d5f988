"""Files on S3. Pyarrow.fs lists; obstore reads in one request and writes on a condition, as pyarrow cannot.

What makes several writes one commit, and keeps two writers apart, is the condition on the write of the
manifest: that it is as it was read (`If-Match`), or not there (`If-None-Match`). A server that does not know
conditions cannot be used. One that passes over them is found out when a driver takes hold of a sweep.
"""

import contextlib
import dataclasses
import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import obstore
import pyarrow as pa
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import S3Store

from hkrun.addresses import ANSWER_S, CONNECT_S, S3Address, connect
from hkrun.errors import StoreError
from hkrun.store.files import ABSENT, Changed, RemoteFiles, Seen

if TYPE_CHECKING:
    from obstore.store import S3Config

RETRY_S = 30.0  # how long a passing trouble of the server is waited out
LARGE_BYTES = 2**23
SLOWEST_BYTES_PER_S = 2**19  # an upload that is slower counts as stuck
_FULL = ("QuotaExceeded", "StorageFull", "InsufficientStorage", "507 Insufficient")
# What servers answer to a condition that they do not know; 400 has other reasons too (an expired token).
_UNKNOWN = re.compile(
    r"status code: (501|400(?=.*(?:NotImplemented|InvalidArgument|InvalidRequest)))", re.DOTALL
)
_DENIED = ("ACCESS_DENIED", "INVALID_ACCESS_KEY", "SIGNATURE_DOES_NOT_MATCH", "INVALID_SIGNATURE")
_AWAY = ("error sending request", "HTTP error", "NETWORK_CONNECTION", "curlCode")


class S3Files(RemoteFiles):
    """Files below a prefix of a bucket."""

    def __init__(self, address: S3Address, *, place: str) -> None:
        with _explained("open", place):
            filesystem = connect(address)
        super().__init__(filesystem, f"{address.bucket}/{address.prefix}", place=place)
        self._address = dataclasses.replace(address, region=filesystem.region)
        self._quoted = True  # whether the server wants an ETag in a condition as it gave it, in quotes
        self._answered: set[str] = set()  # the conditions that the server has answered to

    def put(self, folder: str, files: Mapping[str, bytes]) -> None:
        """See `Files`."""
        for name, content in files.items():
            with _explained("write", f"{self._place}/{folder}".rstrip("/")):
                self._put(f"{folder}/{name}" if folder else name, content, "overwrite")

    def get(self, path: str) -> bytes | None:
        """See `Files`."""
        return self.look(path).content

    def look(self, path: str) -> Seen:
        """See `ConditionalFiles`."""
        with _explained("read", f"{self._place}/{path}"):
            try:
                found = obstore.get(self._client(0), path)
                return Seen(bytes(found.bytes()), found.meta["e_tag"])
            except FileNotFoundError:
                return ABSENT

    def create(self, path: str, content: bytes) -> bool:
        """See `ConditionalFiles`.

        A file with this very content may be another writer's, so it does not count as this one's.
        """
        with _explained("write", f"{self._place}/{path}"):
            try:
                self._put_if(path, content, "create")
            except (AlreadyExistsError, PreconditionError):
                return False
        return True

    def replace(self, path: str, content: bytes, *, seen: Seen) -> Seen:
        """See `ConditionalFiles`."""
        with _explained("write", f"{self._place}/{path}"):
            try:
                return self._replace(path, content, seen)
            except (AlreadyExistsError, PreconditionError, FileNotFoundError) as refusal:
                now = self.look(path)
                if now.content == content:  # an answer was lost, and the second try met the first
                    return now
                if now == ABSENT and isinstance(refusal, FileNotFoundError) and seen == ABSENT:
                    raise  # it is the bucket that is not there
                if now.version != seen.version or not self._quoted:
                    raise Changed(path) from None
                # Refused although nothing has changed: some servers compare the quotes too (Ceph 16).
                self._quoted = False
                return self.replace(path, content, seen=seen)

    def _replace(self, path: str, content: bytes, seen: Seen) -> Seen:
        if seen.version is None:
            return Seen(content, self._put_if(path, content, "create"))
        version = seen.version if self._quoted else seen.version.strip('"')
        return Seen(content, self._put_if(path, content, {"e_tag": version}))

    def heeds_conditions(self, path: str) -> bool:
        """See `ConditionalFiles`."""
        trials: tuple[Any, ...] = ("create", {"e_tag": '"00000000000000000000000000000000"'})
        with _explained("write", f"{self._place}/{path}"):
            for mode in trials:
                content = self.get(path)
                try:
                    self._put_if(path, content or b"", mode)
                except (AlreadyExistsError, PreconditionError):
                    continue
                return False
        return True

    def remove(self, folder: str, names: Iterable[str]) -> None:
        """See `Files`."""
        self._delete(folder, [f"{folder}/{name}" if folder else name for name in names])

    def remove_folder(self, folder: str) -> None:
        """See `Files`."""
        self._delete(folder, [f"{folder}/{name}" for name in self.sizes(folder)])

    def _delete(self, folder: str, paths: list[str]) -> None:
        with _explained("remove", f"{self._place}/{folder}"):
            if paths:
                with contextlib.suppress(FileNotFoundError):
                    obstore.delete(self._client(0), paths)

    def _put_if(self, path: str, content: bytes, condition: Any) -> str | None:
        """Writes on a condition; the first time without patience, as 501 counts as passing trouble."""
        header = "If-None-Match" if condition == "create" else "If-Match"
        for patient in (True,) if header in self._answered else (False, True):
            try:
                version = self._put(path, content, condition, patient=patient)
            except (AlreadyExistsError, PreconditionError):
                self._answered.add(header)
                raise
            except BaseError as error:
                if (answer := _UNKNOWN.search(str(error))) is not None:
                    raise StoreError(
                        f"cannot write {self._place}/{path}: the server does not know conditional writes "
                        f"({answer[1]} to {header}), which keep two drivers apart; use another server, or a "
                        "directory"
                    ) from None
                if patient:
                    raise
            else:
                break
        self._answered.add(header)
        return version

    def _put(self, path: str, content: bytes, mode: Any, *, patient: bool = True) -> str | None:
        client = self._client(len(content), patient=patient)
        return obstore.put(client, path, content, mode=mode, use_multipart=False)["e_tag"]

    def _explained(self, action: str, place: str) -> contextlib.AbstractContextManager[None]:
        return _explained(action, place)

    def _client(self, size: int, *, patient: bool = True) -> S3Store:
        """A client that waits long enough for so many bytes to go through."""
        rounded = 0 if size <= LARGE_BYTES else 1 << (size - 1).bit_length()
        return _client(self._address, rounded, patient=patient)


@functools.lru_cache(maxsize=16)
def _client(address: S3Address, size: int, *, patient: bool) -> S3Store:
    options: dict[str, Any] = {
        "endpoint": address.endpoint,
        "region": address.region,
        "access_key_id": address.key,
        "secret_access_key": address.secret,
        "session_token": address.token,
    }
    return S3Store(
        address.bucket,
        prefix=address.prefix or None,
        config=cast("S3Config", {name: value for name, value in options.items() if value}),
        client_options={
            "allow_http": address.endpoint.startswith("http://"),
            "connect_timeout": timedelta(seconds=CONNECT_S),
            "timeout": timedelta(seconds=ANSWER_S + size / SLOWEST_BYTES_PER_S),
        },
        retry_config={
            "max_retries": 1000 if patient else 0,  # where it is patient, the time decides
            "retry_timeout": timedelta(seconds=RETRY_S),
            "backoff": {
                "init_backoff": timedelta(seconds=0.1),
                "max_backoff": timedelta(seconds=5),
                "base": 2,
            },
        },
    )


@contextlib.contextmanager
def _explained(action: str, place: str) -> Iterator[None]:
    """Turns what the clients raise into one StoreError of one line; nothing secret is in it."""
    try:
        yield
    except (BaseError, OSError, pa.ArrowException, ValueError) as error:
        raise StoreError(f"cannot {action} {place}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    text = str(error)
    if any(sign in text for sign in _FULL):
        return "the store is full; free some space and run again, what is finished is kept"
    denied = isinstance(error, PermissionDeniedError | UnauthenticatedError)
    if denied or any(sign in text for sign in _DENIED):
        return "access denied; see that the access key and its secret are right and may write there"
    if isinstance(error, FileNotFoundError):
        return "there is no such bucket; make it first"
    if any(sign in text for sign in _AWAY):
        return "the server cannot be reached; run again when it can, what is finished is kept"
    return " ".join(text.partition("\n")[0].split())
