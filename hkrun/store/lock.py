"""One driver per folder: the driver writes its name beside it, and renews it to show that it still works.

    On a disk   the operating system's lock decides (`flock`); it ends with the process. In a directory that
                several machines share the lock may not reach the others, so the renewals count there too.
    On S3       there are no locks: a driver writes its name on the condition that no other has.

Clocks are never compared. A holder that this machine cannot look up counts as gone when its name was not
renewed for `PATIENCE_S` by the clock of the one who waits. A holder that stood still for so long notices
when it next renews its name or commits, and stops.
"""

import contextlib
import fcntl
import json
import logging
import os
import secrets
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from hkrun.errors import HeldError, Interrupted, StoreError
from hkrun.redaction import redact
from hkrun.store.files import ABSENT, NO_LOCKS, Changed, ConditionalFiles, Seen, explained

LOCK_FILE = "driver.lock"
HEARTBEAT_S = 10.0
PATIENCE_S = 45.0  # several heartbeats: a busy machine or network may swallow some
LOOK_S = 1.0
# What a driver does is written with its heartbeats, and on a disk, where that costs little, sooner.
TELL_EVERY_S = 2.0

log = logging.getLogger("hkrun")


class Slot(Protocol):
    """A place that holds the name of a holder."""

    @property
    def place(self) -> str:
        """What is held, as messages name it."""

    @property
    def tell_every_s(self) -> float:
        """How often it may be written at most, beside heartbeats."""

    def look(self) -> Seen:
        """Reads it."""

    def write(self, content: bytes, *, seen: Seen) -> Seen:
        """Writes a name over the one that was seen.

        Raises:
            Changed: Another one stands there by now.
        """


class Hold:
    """A folder that is held, until its block ends or another driver takes it over."""

    def __init__(self, slot: Slot, seen: Seen) -> None:
        self._slot = slot
        self._name = own_name()
        self._heartbeats = 0
        self._turn = threading.Lock()
        self._ended = threading.Event()
        self._lost: str | None = None
        self._holding_thread = threading.current_thread()
        self._seen = seen
        self._heartbeat_at = 0.0
        self._doing: Mapping[str, object] = {}
        self._has_news = False
        self._renew()
        self._renewing = threading.Thread(target=self._keep_renewing, name="hkrun-hold", daemon=True)
        self._renewing.start()

    def check(self) -> None:
        """Makes sure that no other driver has taken over.

        Raises:
            StoreError: Another has, or it cannot be told.
        """
        with self._turn:
            if self._lost is None and _clock() - self._heartbeat_at > HEARTBEAT_S:
                self._renew_or_lose()
            if self._lost is not None:
                raise StoreError(self._lost)

    def tell(self, doing: Mapping[str, object]) -> None:
        """What the holder does, for others to read; it is written by and by."""
        self._doing, self._has_news = doing, True

    def lost(self) -> str | None:
        """Which driver took over, in a sentence; None while none has."""
        return self._lost

    def stop(self) -> None:
        """Stops renewing the name, which may then be removed with its folder; others still heed it."""
        self._ended.set()
        self._renewing.join()

    def release(self) -> None:
        """Releases the folder at once, so that the next driver need not wait."""
        self.stop()
        with self._turn, contextlib.suppress(StoreError, Changed):
            if self._lost is None:
                self._slot.write(json.dumps({"released": secrets.token_hex(8)}).encode(), seen=self._seen)

    def _renew(self) -> None:
        started, self._has_news = _clock(), False
        name = (
            self._name | {"beat": f"{self._heartbeats:09}"} | ({"doing": self._doing} if self._doing else {})
        )
        self._seen = self._slot.write(json.dumps(name).encode(), seen=self._seen)
        self._heartbeats += 1
        self._heartbeat_at = started

    def _renew_or_lose(self) -> None:
        try:
            self._renew()
        except Changed:
            now = self._slot.look()
            if read_name(now).get("token") == self._name["token"]:
                self._seen = now  # an answer to an earlier heartbeat was lost
                return
            self._lost = (
                f"{self._slot.place} was taken over by {describe(read_name(now))} while this process stood "
                "still or could not reach it; what it finished is kept, and the other one goes on"
            )

    def _keep_renewing(self) -> None:
        while not self._ended.wait(min(HEARTBEAT_S, self._slot.tell_every_s)):
            with self._turn:
                if self._ended.is_set():
                    return
                if not self._has_news and _clock() - self._heartbeat_at < HEARTBEAT_S:
                    continue
                try:
                    self._renew_or_lose()
                except StoreError as error:
                    log.warning("the hold is not renewed: %s", error.message)
                    continue
                if self._lost is not None:
                    self._interrupt()
                    return

    def _interrupt(self) -> None:
        """Stops the process as Ctrl-C would, where the hold is the main thread's."""
        main = threading.main_thread()
        if self._holding_thread is main and main.ident is not None:
            signal.pthread_kill(main.ident, signal.SIGINT)


@contextlib.contextmanager
def hold_folder(place: Path) -> Iterator[Hold]:
    """Keeps other drivers out of a folder on a disk until the block ends; the folder is made if missing.

    Raises:
        StoreError: Another driver holds it; the message says which. Or another took over meanwhile.
    """
    with explained("hold", place):
        place.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(place / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
    slot = FileSlot(place / LOCK_FILE, place=str(place))
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise held(slot.place, read_name(slot.look())) from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                with explained("hold", place):
                    raise
            # The heartbeat alone decides then.
            reason = f"{place} knows no locks ({error.strerror})"
            log.warning("%s: drivers keep off each other by their heartbeats", reason)
            reached = False
        else:
            reached = True
        with _held(slot, lambda name: reached and name.get("boot") == _boot()) as hold:
            yield hold
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def hold_object(files: ConditionalFiles, folder: str, *, place: str) -> Iterator[Hold]:
    """Keeps other drivers out of a folder on a place without locks; see `hold_folder`."""
    slot = ObjectSlot(files, f"{folder}/{LOCK_FILE}", place=f"{place}/{folder}")
    with _held(slot, lambda name: is_here(name) and not is_alive(name)) as hold:
        if not files.heeds_conditions(f"{folder}/{LOCK_FILE}"):
            log.warning(
                "%s: the server does not heed conditional writes (If-None-Match, If-Match), so nothing keeps "
                "a second driver off: see that only one works on a sweep",
                place,
            )
        yield hold


@contextlib.contextmanager
def _held(slot: Slot, is_gone: Callable[[dict[str, Any]], bool]) -> Iterator[Hold]:
    """Holds what a slot stands for, once its holder is gone; `is_gone` tells of one gone for certain."""
    hold = _take(slot, is_gone)
    try:
        with _heeding_interrupts():
            yield hold
    except (KeyboardInterrupt, Interrupted) as error:
        if (lost := hold.lost()) is not None:
            raise StoreError(lost) from error
        raise
    finally:
        hold.release()


@contextlib.contextmanager
def _heeding_interrupts() -> Iterator[None]:
    """Lets SIGINT interrupt the main thread also where a shell has made the process ignore it, by `&`."""
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    if not ignored or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _take(slot: Slot, is_gone: Callable[[dict[str, Any]], bool]) -> Hold:
    seen = slot.look()
    name = read_name(seen)
    if "token" in name and not is_gone(name):
        if is_alive(name):
            raise held(slot.place, name)
        log.warning(
            "%s: waiting up to %.0f s to see whether %s still works", slot.place, PATIENCE_S, describe(name)
        )
        until = _clock() + PATIENCE_S
        while _clock() < until:
            time.sleep(LOOK_S)
            if (now := slot.look()).version != seen.version:
                seen, name = now, read_name(now)
                if "token" in name:
                    raise held(slot.place, name)
                break
    try:
        return Hold(slot, seen)
    except Changed:
        raise held(slot.place, read_name(slot.look())) from None


@dataclass(frozen=True)
class FileSlot:
    """A file beside what is held; only the holder of its lock writes it, as far as locks reach."""

    path: Path
    place: str
    tell_every_s: float = TELL_EVERY_S

    def look(self) -> Seen:
        """See `Slot`. Opened anew each time, for another machine's writes to show."""
        with explained("read", self.path):
            try:
                content = self.path.read_bytes()
            except FileNotFoundError:
                return ABSENT
        return Seen(content, content.decode(errors="replace"))

    def write(self, content: bytes, *, seen: Seen) -> Seen:
        """See `Slot`. Of two that write in the same moment the earlier one notices at its next heartbeat."""
        now = self.look()
        if now not in (seen, ABSENT):
            raise Changed(self.place)
        with explained("hold", self.path):
            if now == ABSENT and not self.path.parent.is_dir():
                return seen  # the whole folder was removed: a commit will make it again
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o666)
            try:
                os.pwrite(descriptor, content, 0)
                os.ftruncate(descriptor, len(content))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        return Seen(content, content.decode())


@dataclass(frozen=True)
class ObjectSlot:
    """An object, written on the condition that it is as it was seen."""

    files: ConditionalFiles
    path: str
    place: str
    tell_every_s: float = HEARTBEAT_S

    def look(self) -> Seen:
        """See `Slot`."""
        return self.files.look(self.path)

    def write(self, content: bytes, *, seen: Seen) -> Seen:
        """See `Slot`."""
        return self.files.replace(self.path, content, seen=seen)


def own_name() -> dict[str, Any]:
    """What tells this process from others, for people and for other drivers."""
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": shlex.join(redact(word) for word in sys.argv),
        "boot": _boot(),
        "process": _process(os.getpid()),
        "token": secrets.token_hex(8),
    }


def read_name(seen: Seen) -> dict[str, Any]:
    """The name in a slot; empty where there is none or it cannot be read."""
    try:
        name = json.loads(seen.content or b"{}")
    except ValueError:
        return {}
    return name if isinstance(name, dict) else {}


def describe(name: dict[str, Any]) -> str:
    """A holder in words."""
    try:
        return f"process {name['pid']} on {name['host']} since {name['since']} ({name['command']})"
    except KeyError:
        return "another driver"  # it took the lock this very moment and has not written its name yet


def held(place: str, name: dict[str, Any]) -> HeldError:
    """The error of a second driver."""
    return HeldError(f"{place} is held by {describe(name)}; wait for it or stop it, then run again")


def _clock() -> float:
    """Seconds that also pass while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _boot() -> str:
    """A name of this run of this machine's kernel, the same in all its containers."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return socket.gethostname()


def _process(pid: int) -> str:
    """What tells a process from others that had or will have its number; empty where there is none."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - it is no path
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
    return f"{namespace} {started}"


def is_here(name: dict[str, Any]) -> bool:
    """Whether a holder is, or was, a process that this one would see."""
    own, _, _ = _process(os.getpid()).partition(" ")
    theirs, _, _ = str(name.get("process")).partition(" ")
    return bool(own) and name.get("boot") == _boot() and own == theirs


def is_alive(name: dict[str, Any]) -> bool:
    """Whether it still runs, as far as this process would see."""
    return is_here(name) and _process(int(name.get("pid", 0))) == name.get("process")
