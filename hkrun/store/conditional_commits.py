"""One commit where there are no locks but writes on a condition, as on S3: the manifest's write decides.

A writer uploads its files under names of its own, then writes the manifest on the condition that it is as it
was read. Of two writers one comes first; the other starts over from what the first one left, and removes what
the old manifest named.
"""

import secrets
from collections.abc import Callable, Collection, Mapping
from pathlib import PurePosixPath

from hkrun.store.files import Changed, ConditionalFiles, Seen
from hkrun.store.manifests import MANIFEST, Manifest, from_json, kept_of, stored_names, to_json

LEFTOVER_S = 3600.0  # an upload takes less: a file that no manifest names by then was left behind


class ConditionalCommit:
    """One commit to one folder."""

    def __init__(
        self,
        files: ConditionalFiles,
        folder: str,
        content: Mapping[str, bytes],
        sums: Manifest,
        *,
        keep: Collection[str] | None,
    ) -> None:
        self._files = files
        self._folder = folder
        self._content = content
        self._sums = sums
        self._keep = keep
        self._own: Manifest = {}  # what was uploaded, under which names

    def make(self, *, unless: Callable[[], bool]) -> bool:
        """Commits under names that are free; a name that is taken stays as it is.

        Returns:
            Whether the files are now there; not if `unless` said so, asked before each try.
        """
        beaten = False
        while True:
            seen = self._look()
            before = _understood(seen)
            # Our manifest may have been written without an answer, and its successor may keep our files.
            unused = stored_names(self._own) - stored_names(before)
            if unless():
                self._remove(unused)
                return False
            kept = kept_of(before, self._keep, self._sums)
            if beaten and {name: known[:2] for name, known in before.items()} == {
                name: known[:2] for name, known in (kept | self._sums).items()
            }:
                self._remove(unused)  # the other writer committed just the same
                return True
            self._upload(stored_names(before))
            try:
                self._write(kept | self._own, seen)
            except Changed:
                beaten = True
                continue
            self._remove(stored_names(before) - stored_names(kept | self._own))
            return True

    def make_in_place(self, *, unless: Callable[[], bool]) -> bool:
        """Commits under the files' own names; what changes is not there meanwhile.

        Two at the same time may leave a folder that counts as damaged, until the later one has noticed and
        written again.
        """
        while True:
            seen = self._look()
            if unless():
                return False
            before = _understood(seen)
            kept = kept_of(before, self._keep, self._sums)
            try:
                if any(before.get(name, known) != known for name, known in self._sums.items()):
                    seen = self._write(kept, seen, writer=secrets.token_hex(4))
                self._files.put(self._folder, self._content)
                self._write(kept | self._sums, seen)
            except Changed:
                continue
            self._remove(stored_names(before) - stored_names(kept | self._sums))
            return True

    def tidy(self) -> None:
        """Removes what killed writers left: old files that the manifest does not name."""
        written = self._files.written(self._folder)
        named = {*stored_names(_understood(self._look())), MANIFEST}
        newest = max(written.values(), default=0.0)
        self._remove(
            {
                name
                for name, when in written.items()
                if "/" not in name and name not in named and newest - when > LEFTOVER_S
            }
        )

    def _look(self) -> Seen:
        return self._files.look(f"{self._folder}/{MANIFEST}")

    def _write(self, manifest: Manifest, seen: Seen, **notes: str) -> Seen:
        return self._files.replace(f"{self._folder}/{MANIFEST}", to_json(manifest, **notes), seen=seen)

    def _upload(self, taken: Collection[str]) -> None:
        for name, content in self._content.items():
            if name in self._own:
                continue
            stored = name
            if name in taken or not self._files.create(f"{self._folder}/{name}", content):
                path = PurePosixPath(name)
                stored = f"{path.stem}.{secrets.token_hex(4)}{path.suffix}"
                self._files.put(self._folder, {stored: content})
            known = self._sums[name]
            self._own[name] = known if stored == name else known._replace(stored_as=stored)

    def _remove(self, names: Collection[str]) -> None:
        self._files.remove(self._folder, sorted(names))


def _understood(seen: Seen) -> Manifest:
    """What a manifest says; nothing where there is none or it is damaged."""
    try:
        return {} if seen.content is None else from_json(seen.content)
    except ValueError:
        return {}
