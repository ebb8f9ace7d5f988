"""Files in memory, for a store that is read from other files."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping

from hkrun.errors import StoreError
from hkrun.store.folder_states import FolderState


class MemoryFiles:
    """Files by path in memory, see `Files`; once closed they can only be read."""

    parallel_reads = 1

    def __init__(self) -> None:
        self._contents: dict[str, bytes] = {}
        self._closed = ""

    def close(self, reason: str) -> None:
        """Refuses every change from now on.

        Args:
            reason: What a message says of it.
        """
        self._closed = reason

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(self._closed)

    def put(self, folder: str, files: Mapping[str, bytes]) -> None:
        """See `Files`."""
        self._check_open()
        start = f"{folder}/" if folder else ""
        self._contents |= {f"{start}{name}": content for name, content in files.items()}

    def get(self, path: str) -> bytes | None:
        """See `Files`."""
        return self._contents.get(path)

    def sizes(self, folder: str) -> dict[str, int]:
        """See `Files`."""
        start = f"{folder}/"
        return {
            path.removeprefix(start): len(content)
            for path, content in self._contents.items()
            if path.startswith(start)
        }

    def written(self, folder: str) -> dict[str, float]:
        """See `Files`. They are all of one moment."""
        return dict.fromkeys(self.sizes(folder), 0.0)

    def states(self, folder: str) -> dict[str, FolderState]:
        """See `Files`. Nothing is faster than memory, so there are no fingerprints."""
        found: dict[str, FolderState] = {}
        for path, size in self.sizes(folder).items():
            name, _, rest = path.partition("/")
            if rest:
                found.setdefault(name, FolderState({}, None)).sizes[rest] = size
        return found

    def folders(self, folder: str) -> list[str]:
        """See `Files`."""
        return sorted({name.partition("/")[0] for name in self.sizes(folder) if "/" in name})

    def remove(self, folder: str, names: Iterable[str]) -> None:
        """See `Files`."""
        self._check_open()
        for name in names:
            self._contents.pop(f"{folder}/{name}", None)

    def remove_folder(self, folder: str) -> None:
        """See `Files`."""
        self.remove(folder, list(self.sizes(folder)))

    @contextlib.contextmanager
    def exclusive(self, folder: str) -> Iterator[None]:  # noqa: ARG002 - one process, no other writer
        """See `Files`."""
        self._check_open()
        yield
