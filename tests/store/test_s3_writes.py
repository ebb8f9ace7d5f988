"""Whole processes on S3: writers killed in the middle, readers beside them, and how many requests."""

import functools
import itertools
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from s3_server import BUCKET, S3Server
from sweep_example import fill_store, make_sweep

from hkrun.config import cell_id
from hkrun.errors import StoreError
from hkrun.plans import Workers, make_plan
from hkrun.report import summarise
from hkrun.store import NotCommittedError, open_store
from hkrun.store.files import ABSENT, Changed, Seen
from hkrun.store.s3 import S3Files
from hkrun.store.transactions import MANIFEST, ConditionalCommit, stored_names, sum_of

CELL, TEACHER = "0123456789ab", "ba9876543210"
WRITER = """
import sys
import pyarrow as pa
from hkrun.store import Record, open_store
store, author, rounds = open_store(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for number in range(rounds):
    record = Record(
        cell_id="0123456789ab", seed=0, status=sys.argv[4], epochs=2, device="cpu", started_at=0.0,
        threads=author + 10 * number,
    )
    curves = pa.table({"epoch": [1, 2], "error_pct": [float(author + 10 * number)] * 2})
    student = b"%d " % (author + 10 * number) * 20_000
    store.put_run(record, curves=curves, student=student, keep_result=sys.argv[4] == "finished")
    print("put", flush=True)
"""


def writer(uri: str, author: int, *, rounds: int = 1, status: str = "finished") -> subprocess.Popen[str]:
    """A process that is ready to put a run, again and again."""
    command = [sys.executable, "-c", WRITER, uri, str(author), str(rounds), status]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def start(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def end(process: subprocess.Popen[str]) -> None:
    with process:
        process.kill()


def authors(uri: str) -> set[int]:
    """Who wrote each file of the run; a file that is damaged is an error."""
    store = open_store(uri, create=False)
    folder = store.run_folder(CELL, 0)
    before = store.manifest(folder)
    record = store.record(CELL, 0)
    found = {record.threads} if record is not None else set()
    try:
        found |= {int(store.curves(CELL, 0)["error_pct"][0].as_py())}
        found |= {int(word) for word in set(store.student(CELL, 0).split())}
    except NotCommittedError:
        pass
    return found if store.manifest(folder) == before else authors(uri)


@pytest.mark.parametrize("kills", [1, pytest.param(12, marks=pytest.mark.slow)])
def test_an_uploader_killed_at_any_time_leaves_the_old_run_or_the_new_one(
    each_s3_server: S3Server, kills: int, caplog: pytest.LogCaptureFixture
) -> None:
    uri = each_s3_server.place().full_uri
    generator = random.Random(0)
    found = []
    for _ in range(kills):
        process = writer(uri, 1, rounds=10_000, status="failed")
        start(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "put\n"
        time.sleep(generator.uniform(0.0, 0.4))
        end(process)
        found.append(authors(uri))
    assert all(len(authors_of_all_files) == 1 for authors_of_all_files in found)
    assert not caplog.records


@pytest.mark.parametrize("number", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_of_many_processes_that_put_the_same_run_one_wins_and_nothing_else_is_ever_seen(
    each_s3_server: S3Server, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    uri = each_s3_server.place().full_uri
    processes = [writer(uri, author) for author in range(1, number + 1)]
    seen: list[set[int]] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.append(authors(uri))

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for process in processes:
            start(process)
        assert [process.wait(timeout=100) for process in processes] == [0] * number
    finally:
        done.set()
        reader.join()
        for process in processes:
            end(process)
    winner = authors(uri)
    assert len(winner) == 1
    assert all(found in (set(), winner) for found in seen)
    store = open_store(uri)
    folder = store.run_folder(CELL, 0)
    manifest = store.manifest(folder)
    assert manifest is not None
    assert set(store._files.sizes(folder)) == {MANIFEST, *stored_names(manifest)}, "losers left files behind"
    assert not caplog.records


def test_an_upload_in_parts_that_was_never_finished_is_seen_by_nobody(each_s3_server: S3Server) -> None:
    place = each_s3_server.place()
    store = open_store(place.full_uri)
    client = each_s3_server.client()
    key = f"{place.uri.removeprefix(f's3://{BUCKET}/')}/cells/{CELL}/seeds/0/student.pt"
    upload = client.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
    client.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=1, Body=bytes(6_000_000))
    assert store.records(CELL) == []
    assert store._files.sizes("cells") == {}
    client.abort_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload)
    assert store._files.sizes("cells") == {}
    client.close()


def test_every_write_of_a_store_is_one_request_that_is_whole_or_nothing(s3_server: S3Server) -> None:
    store = open_store(s3_server.place().full_uri)
    before = len(s3_server.requests())
    store.commit("sweeps/x", {"large": bytes(20_000_000), "small": b"1"})
    store.commit(f"cells/{CELL}/seeds/0/checkpoints", {"epoch-000001.pt": bytes(20_000_000)})
    made = s3_server.requests()[before:]
    assert not any("upload" in request for request in made)
    assert Counter(request.split()[0] for request in made) == {"PUT": 5, "GET": 2}


def test_a_refusal_of_a_write_that_had_gone_through_is_no_conflict(s3_server: S3Server) -> None:
    """As after an answer that was lost: the client tries again, and meets its own first try."""
    files = open_store(s3_server.place().full_uri)._files
    assert isinstance(files, S3Files)
    first = files.replace("a", b"mine", seen=ABSENT)
    assert files.replace("a", b"mine", seen=ABSENT) == first
    with pytest.raises(Changed):
        files.replace("a", b"other", seen=ABSENT)
    assert files.get("a") == b"mine"


def test_a_file_that_is_there_is_never_taken_for_the_own_one_whatever_it_holds(
    each_s3_server: S3Server,
) -> None:
    files = open_store(each_s3_server.place().full_uri)._files
    assert isinstance(files, S3Files)
    assert files.create("a", b"the same")
    assert not files.create("a", b"the same")
    assert not files.create("a", b"other")
    assert files.get("a") == b"the same"


@pytest.mark.parametrize("first_stands", [True, False])
def test_of_two_writers_of_the_same_bits_the_loser_takes_nothing_from_the_winner(
    each_s3_server: S3Server, first_stands: bool
) -> None:
    """A uploads, B uploads the same bits, A commits, B finds that it came second and tidies up."""
    store = open_store(each_s3_server.place().full_uri)
    files = store._files
    assert isinstance(files, S3Files)
    folder, content = f"teachers/{TEACHER}", {"record.json": b"record", "weights.pt": b"the same weights"}
    sums = {name: sum_of(text) for name, text in content.items()}
    winner = ConditionalCommit(files, folder, content, sums, keep=())
    winner._upload(())
    asked: list[bool] = []

    def has_result() -> bool:
        asked.append(bool(store.names(folder)))
        return first_stands and asked[-1]

    loser = ConditionalCommit(files, folder, content, sums, keep=())
    loser._write = functools.partial(commit_first, winner, loser._write)  # type: ignore[method-assign]
    assert loser.make(unless=has_result) is not first_stands
    assert asked == [False, True]
    assert {name: store.read(folder, name) for name in store.names(folder)} == content
    assert set(files.sizes(folder)) == {MANIFEST, "record.json", "weights.pt"}


def commit_first(winner: ConditionalCommit, write: Callable[..., Seen], *arguments: Any) -> Seen:
    """Lets another writer, who has uploaded, commit just before a write."""
    if not winner._look().content:
        winner._write(winner._own, ABSENT)
    return write(*arguments)


def test_leftovers_of_killed_writers_are_removed_once_they_are_old(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(s3_server.place().full_uri)
    folder = f"cells/{CELL}/seeds/0/checkpoints"
    store._files.put(folder, {"epoch-000001.pt": b"left"})
    store.commit(folder, {"epoch-000002.pt": b"2"}, tidy=True)
    assert set(store._files.sizes(folder)) == {MANIFEST, "epoch-000001.pt", "epoch-000002.pt"}
    monkeypatch.setattr("hkrun.store.transactions.LEFTOVER_S", -1.0)
    store.commit(folder, {"epoch-000003.pt": b"3"}, keep=["epoch-000002.pt"], tidy=True)
    assert set(store._files.sizes(folder)) == {MANIFEST, "epoch-000002.pt", "epoch-000003.pt"}


def test_a_report_and_a_plan_take_a_few_requests_for_each_run_and_one_listing_for_each_cell(
    s3_server: S3Server,
) -> None:
    counts = []
    few, many = 1, 3
    for seeds in (few, many):
        sweep = make_sweep(num_seeds=seeds)
        store = open_store(s3_server.place().full_uri)
        fill_store(store, sweep)
        requests = [len(s3_server.requests())]
        make_plan(sweep, store, workers=Workers.exactly(1))
        requests.append(len(s3_server.requests()))
        summarise(sweep, store)
        made = s3_server.requests()
        for first, last in itertools.pairwise([*requests, len(made)]):
            listings = sum("list-type=2" in request for request in made[first:last])
            assert listings <= len(sweep.cells) + 2
        costs = [requests[1] - requests[0], len(made) - requests[1]]
        counts.append(costs)
        assert len(store.records(cell_id(sweep.cells[0].cell))) == seeds
    (plan_few, report_few), (plan_many, report_many) = counts
    more = (many - few) * len(sweep.cells)
    assert plan_many - plan_few <= 2 * more, counts
    assert report_many - report_few <= 4 * more, counts


def test_a_run_that_is_put_first_keeps_the_names_that_people_know(s3_server: S3Server) -> None:
    store = open_store(s3_server.place().full_uri)
    sweep = make_sweep(num_cells=1, num_seeds=1)
    fill_store(store, sweep)
    folder = store.run_folder(cell_id(sweep.cells[0].cell), 0)
    assert set(store._files.sizes(folder)) == {MANIFEST, "record.json", "curves.parquet"}
    for number in range(2):
        store.commit("sweeps/stability-digits", {"report.html": b"%d" % number})
    assert set(store._files.sizes("sweeps/stability-digits")) == {MANIFEST, "report.html"}


def test_a_damaged_object_is_named(s3_server: S3Server) -> None:
    store = open_store(s3_server.place().full_uri)
    store.commit("sweeps/x", {"report.html": b"report"})
    store._files.put("sweeps/x", {"report.html": b"riport"})
    with pytest.raises(StoreError, match=r"sweeps/x/report\.html is damaged: expected SHA-256"):
        store.read("sweeps/x", "report.html")
