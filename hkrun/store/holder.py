"""Who holds a folder, and what it does, for those who only read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hkrun.store.files import Seen
from hkrun.store.lock import is_alive, is_here, read_name


@dataclass(frozen=True)
class Holder:
    """Who holds a folder, as its name there says.

    Attributes:
        pid, host, since: The process, its machine, and when it took hold, as ISO 8601.
        beat: Grows while it works.
        alive: Whether it still runs; None where it is of another machine, of which one look cannot tell.
        doing: What it last told of what it does.
    """

    pid: int
    host: str
    since: str
    beat: str
    alive: bool | None
    doing: Mapping[str, Any]


def read_holder(content: bytes | None) -> Holder | None:
    """The holder in a slot; None where there is none, or it has gone. Nothing is written or locked."""
    name = read_name(Seen(content, None))
    if not {"token", "pid", "host", "since"} <= name.keys():
        return None
    alive = is_alive(name) if is_here(name) else None
    doing = name.get("doing")
    return Holder(
        pid=int(name["pid"]),
        host=str(name["host"]),
        since=str(name["since"]),
        beat=str(name.get("beat", "")),
        alive=alive,
        doing=doing if isinstance(doing, dict) else {},
    )
