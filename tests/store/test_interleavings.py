"""Two writers of one folder without locks, one request at a time, in every order; and killed anywhere."""

import hashlib
import itertools
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from hkrun.store.files import ABSENT, Changed, Seen
from hkrun.store.transactions import MANIFEST, CommittedFolders, DamagedError, from_json, stored_names

FOLDER = "cells/0123456789ab/seeds/0"
IN_PLACE = "sweeps/stability-digits"


class Memory:
    """An object store: every request is atomic, and a version is a digest of the content, as on S3."""

    parallel_reads = 1

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.before_request: Callable[[], None] = lambda: None

    def look(self, path: str) -> Seen:
        self.before_request()
        content = self.objects.get(path)
        return ABSENT if content is None else Seen(content, hashlib.md5(content).hexdigest())

    def get(self, path: str) -> bytes | None:
        return self.look(path).content

    def create(self, path: str, content: bytes) -> bool:
        self.before_request()
        if path in self.objects:
            return False
        self.objects[path] = content
        return True

    def replace(self, path: str, content: bytes, *, seen: Seen) -> Seen:
        self.before_request()
        there = self.objects.get(path)
        if there == content:
            return Seen(content, hashlib.md5(content).hexdigest())
        if (None if there is None else hashlib.md5(there).hexdigest()) != seen.version:
            raise Changed
        self.objects[path] = content
        return Seen(content, hashlib.md5(content).hexdigest())

    def put(self, folder: str, files: Mapping[str, bytes]) -> None:
        for name, content in files.items():
            self.before_request()
            self.objects[f"{folder}/{name}"] = content

    def remove(self, folder: str, names: Iterator[str]) -> None:
        for name in names:
            self.before_request()
            self.objects.pop(f"{folder}/{name}", None)

    def sizes(self, folder: str) -> dict[str, int]:
        raise NotImplementedError

    folders = states = remove_folder = exclusive = heeds_conditions = written = sizes


class Killed(BaseException):
    """The end of a process, as far as its code can see."""


class Turns:
    """Lets threads make one request at a time, in an order that is given."""

    def __init__(self, memory: Memory, watch: Callable[[], None]) -> None:
        self._waiting: dict[int, threading.Event] = {}
        self._stopped = threading.Semaphore(0)
        self._ended: set[int] = set()
        self._killed = False
        self._watch = watch
        self._who = threading.local()
        self.problems: list[BaseException] = []
        memory.before_request = self._await_turn

    def _await_turn(self) -> None:
        number = getattr(self._who, "number", None)
        if number is None:
            return  # the test's own look
        turn = self._waiting[number]
        self._stopped.release()
        turn.wait()
        turn.clear()
        if self._killed:
            raise Killed

    def run(self, writers: list[Callable[[], object]], order: Iterator[int], *, requests: int) -> list[int]:
        """Runs writers by turns, then kills those that are not done.

        Args:
            writers: What to run.
            order: Whose turn is next; who is done is passed over.
            requests: How many requests there are before the kill.

        Returns:
            Whose turns they were.
        """

        def work(number: int) -> None:
            self._who.number = number
            try:
                writers[number]()
            except Killed:
                pass
            except BaseException as error:
                self.problems.append(error)
            self._ended.add(number)
            self._stopped.release()

        threads = [threading.Thread(target=work, args=(number,)) for number in range(len(writers))]
        self._waiting = {number: threading.Event() for number in range(len(writers))}
        for thread in threads:
            thread.start()
            self._stopped.acquire()
        turns: list[int] = []
        while len(self._ended) < len(writers) and len(turns) < requests:
            number = next(order)
            if number in self._ended:
                continue
            self._waiting[number].set()
            self._stopped.acquire()
            turns.append(number)
            try:
                self._watch()
            except DamagedError as error:
                self.problems.append(error)
        self._killed = True
        for number, turn in self._waiting.items():
            if number not in self._ended:
                turn.set()
                self._stopped.acquire()
        for thread in threads:
            thread.join()
        return turns


def visible(memory: Memory) -> dict[str, bytes]:
    """What a reader finds; it fails if that is damaged."""
    folders = CommittedFolders(memory, place="here")  # type: ignore[arg-type]
    return {name: folders.read(FOLDER, name) for name in folders.names(FOLDER)}


def content_of(author: bytes) -> dict[str, bytes]:
    """What an author commits: the weights are the same to the bit whoever trains them."""
    return {
        "record.json": b"record of " + author,
        "curves.parquet": b"curves of " + author,
        "weights.pt": b"the same weights",
    }


def play(order: Iterator[int], before: bytes | None, *, first_stands: bool, requests: int = 1000) -> Any:
    """Two writers in one order; what there is at the end, what a reader saw after each request, the turns."""
    memory = Memory()
    folders = CommittedFolders(memory, place="here")  # type: ignore[arg-type]
    if before is not None:
        folders.commit(FOLDER, content_of(before))
    seen: list[dict[str, bytes]] = []

    def write(author: bytes) -> Callable[[], object]:
        def has_result() -> bool:
            manifest = folders.manifest(FOLDER) or {}
            return first_stands and "record.json" in manifest and visible(memory) != content_of(b"failed")

        return lambda: folders.commit(FOLDER, content_of(author), unless=has_result)

    turns = Turns(memory, lambda: seen.append(visible(memory)))
    made = turns.run([write(b"A"), write(b"B")], order, requests=requests)
    for problem in turns.problems:
        raise problem
    return memory, seen, made


def then_by_turns(order: tuple[int, ...]) -> Iterator[int]:
    return itertools.chain(order, itertools.cycle((0, 1)))


@pytest.mark.parametrize("before", [None, b"failed"])
@pytest.mark.parametrize("first_stands", [True, False])
@pytest.mark.parametrize("choices", [6, pytest.param(12, marks=pytest.mark.slow)])
def test_in_no_order_of_two_writers_does_a_reader_see_a_mix(
    before: bytes | None, first_stands: bool, choices: int
) -> None:
    """Whose turn it is is chosen for the first requests, in every way; then the writers take turns."""
    states = [content_of(author) for author in (b"A", b"B")]
    start = {} if before is None else content_of(before)
    winners, played = set(), set()
    for order in itertools.product((0, 1), repeat=choices):
        memory, seen, turns = play(then_by_turns(order), before, first_stands=first_stands)
        played.add(tuple(turns))
        assert all(state in [start, *states] for state in seen), order
        changes = [state for state, _ in itertools.groupby(seen, key=lambda state: sorted(state.items()))]
        assert len(changes) <= (2 if first_stands else 3), "a result that stood was replaced"
        assert seen[-1] in states
        winners.add(seen[-1]["record.json"])
        manifest = memory.objects[f"{FOLDER}/{MANIFEST}"]
        left = {path.removeprefix(f"{FOLDER}/") for path in memory.objects}
        assert left == {MANIFEST, *stored_names(from_json(manifest))}, "something was left behind"
    assert len(winners) == 2
    assert len(played) > 50


@pytest.mark.parametrize("choices", [3, pytest.param(8, marks=pytest.mark.slow)])
def test_writers_killed_anywhere_leave_a_whole_state(choices: int) -> None:
    states = [content_of(author) for author in (b"A", b"B", b"failed")]
    for requests in range(18):
        for order in itertools.product((0, 1), repeat=choices):
            memory, seen, _ = play(then_by_turns(order), b"failed", first_stands=True, requests=requests)
            assert all(state in states for state in seen)
            memory.before_request = lambda: None
            folders = CommittedFolders(memory, place="here")  # type: ignore[arg-type]
            folders.commit(FOLDER, content_of(b"A"))  # the next writer is not hindered
            assert visible(memory) == content_of(b"A")


def test_commits_in_place_can_mix_and_the_later_writer_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: the race that `commits.py` documents for folders that a driver should hold."""
    monkeypatch.setattr(sys.modules[__name__], "FOLDER", IN_PLACE)
    damaged = 0
    for order in itertools.product((0, 1), repeat=7):
        try:
            _, seen, _ = play(then_by_turns(order), b"C", first_stands=False)
        except DamagedError:
            damaged += 1
        else:
            assert seen[-1] in [content_of(author) for author in (b"A", b"B")]
    assert damaged


def test_a_name_that_is_taken_is_left_alone_and_the_manifest_says_where_the_new_content_is() -> None:
    memory = Memory()
    folders = CommittedFolders(memory, place="here")  # type: ignore[arg-type]
    memory.objects[f"{FOLDER}/record.json"] = b"left by a killed writer, or about to be committed"
    folders.commit(FOLDER, content_of(b"A"))
    manifest = from_json(memory.objects[f"{FOLDER}/{MANIFEST}"])
    assert manifest["curves.parquet"].stored_as == ""
    assert manifest["record.json"].stored_as.startswith("record.")
    assert manifest["record.json"].stored_as.endswith(".json")
    assert visible(memory) == content_of(b"A")
    assert memory.objects[f"{FOLDER}/record.json"].startswith(b"left")


def test_files_that_another_writer_came_to_keep_are_not_removed_with_the_own_ones() -> None:
    """A's manifest goes through, but no answer comes; B replaces it and keeps a file of A's."""

    class Unanswered(Memory):
        def replace(self, path: str, content: bytes, *, seen: Seen) -> Seen:
            self.__class__ = Memory  # type: ignore[assignment]  # only once
            self.replace(path, content, seen=seen)
            CommittedFolders(self, place="here").commit(FOLDER, {"record.json": b"record of B"}, keep=None)  # type: ignore[arg-type]
            raise Changed

    memory = Unanswered()
    folders = CommittedFolders(memory, place="here")  # type: ignore[arg-type]
    assert not folders.commit(FOLDER, content_of(b"A"), unless=lambda: bool(folders.names(FOLDER)))
    assert visible(memory) == content_of(b"A") | {"record.json": b"record of B"}
