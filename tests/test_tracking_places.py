"""The mirror where its place is odd, has moved, is damaged or is gone; MLflow's own database is read."""

import contextlib
import dataclasses
import http.server
import json
import logging
import re
import shutil
import socket
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from sweep_example import fill_store, make_summaries, make_sweep, put_run

from hkrun.config import cell_id
from hkrun.errors import InputError, StoreError
from hkrun.spaces import Sweep
from hkrun.store import Store, open_store
from hkrun.sweep import running
from hkrun.tracking import (
    Links,
    Mirror,
    connection,
    find_mirror,
    find_ui,
    resolve_uri,
    serve,
    server,
    sync,
)
from hkrun.tracking.connection import connect
from hkrun.tracking.database import (
    check_opens,
    check_whole,
    database_path,
    database_uri,
    describe_damage,
    file_number,
    make_database,
    put_aside,
)
from hkrun.tracking.experiments import read_identity
from hkrun.tracking.view import find_links

REPORT = {"report.md": b"# Report\n"}
ODD_NAMES = ["hash#tag", "what?x=1", "per%20cent%", 'quo\'te "two"', "ü&=+;:@", "file:", "sqlite:"]


@pytest.fixture
def sweep() -> Sweep:
    return make_sweep(num_cells=1, num_seeds=2, epochs=2)


@pytest.fixture
def store(tmp_path: Path, empty_database: Path, sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store with the runs of the sweep, and an empty database of MLflow's."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    made = open_store(tmp_path / "place" / "store")
    fill_store(made, sweep)
    shutil.copy(empty_database, tmp_path / "place" / "store" / "mlflow.db")
    return made


def folder_of(store: Store) -> Path:
    assert store.local_path is not None
    return store.local_path


def mirror(sweep: Sweep, store: Store, files: dict[str, bytes] = REPORT) -> Links:
    return sync(sweep, store, summaries=make_summaries(store, sweep), files=files).links


def query(database: Path, sql: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(database)) as opened:
        return opened.execute(sql).fetchall()


def names_of_runs(store: Store) -> list[object]:
    sql = "select name from runs where lifecycle_stage = 'active' order by name"
    return [name for (name,) in query(folder_of(store) / "mlflow.db", sql)]


def reports(store: Store) -> list[bytes]:
    """What lies where MLflow says that the reports of the active parents are."""
    sql = (
        "select artifact_uri from runs join tags using (run_uuid) where lifecycle_stage = 'active' and "
        "tags.key = 'hkrun.kind' and tags.value = 'cell'"
    )
    uris = [str(uri) for (uri,) in query(folder_of(store) / "mlflow.db", sql)]
    return [(Path(unquote(urlsplit(uri).path)) / "report" / "report.md").read_bytes() for uri in uris]


ALL_RUNS = ["L_b", "L_b seed 0", "L_b seed 1"]


# --- names of folders ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_store_in_a_folder_of_any_name_keeps_its_mirror_to_itself(
    store: Store, sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = folder_of(store).parent.rename(tmp_path / name) / "store"
    odd = open_store(folder)
    links = mirror(sweep, odd)
    assert names_of_runs(odd) == ALL_RUNS
    assert reports(odd) == list(REPORT.values())
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert [path.name for path in (tmp_path / name).iterdir()] == ["store"]
    assert mirror(sweep, odd) == links == find_mirror(sweep, odd)


@pytest.mark.slow
def test_a_database_is_made_in_a_folder_of_any_name_and_no_other_is(tmp_path: Path) -> None:
    path = tmp_path / "what?x#y%20z'" / "mlflow.db"
    connect(database_uri(path))
    assert query(path, "select count(*) from alembic_version") == [(1,)]
    assert [entry.name for entry in tmp_path.iterdir()] == ["what?x#y%20z'"]


@pytest.mark.slow
def test_the_ui_serves_the_reports_of_a_store_that_moved_to_an_odd_folder(
    store: Store, sweep: Sweep, tmp_path: Path
) -> None:
    mirror(sweep, store)
    moved = open_store(folder_of(store).rename(tmp_path / "what?x#y%20z'"))
    ((run_id,),) = query(folder_of(moved) / "mlflow.db", "select run_uuid from runs where name = 'L_b'")
    with serve(moved) as running:
        import urllib.request

        address = f"{running.address}/get-artifact?path=report/report.md&run_uuid={run_id}"
        with urllib.request.urlopen(address) as answer:
            assert answer.read() == REPORT["report.md"]
    assert [entry.name for entry in tmp_path.iterdir() if "what" in entry.name] == ["what?x#y%20z'"]


@pytest.mark.parametrize("name", [*ODD_NAMES, "plain-1.2 b"])
def test_a_path_comes_back_from_its_uri(tmp_path: Path, name: str) -> None:
    path = tmp_path / name / "mlflow.db"
    assert database_path(database_uri(path)) == path


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("sqlite://", "a database in memory"),
        ("sqlite:///", "a database in memory"),
        ("sqlite+pysqlite://", "a database in memory"),
        ("sqlite:///:memory:", "a database in memory"),
        ("sqlite:///file::memory:?uri=true", "a database in memory"),
        ("sqlite:///file:x?mode=memory&cache=shared&uri=true", "a database in memory"),
        ("sqlite:///file:/tmp/x.db?uri=true", "without 'file:'"),
        ("sqlite:////tmp/what?x/mlflow.db", "'\\?' is written %3F"),
        ("sqlite://tmp/mlflow.db", "three slashes"),
        ("sqlite:/tmp/mlflow.db", "cannot be used"),
        ("postgresql:/host/db", "cannot be used"),
        ("http:/host:5000", "cannot be used"),
        ("http://", "cannot be used"),
    ],
)
def test_a_tracking_uri_that_keeps_nothing_or_is_no_uri_is_refused_before_anything_is_trained(
    store: Store, sweep: Sweep, monkeypatch: pytest.MonkeyPatch, uri: str, told: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(InputError, match=told) as caught:
        Mirror(sweep, store, warn=pytest.fail)
    assert len(caught.value.problems) == 1
    assert caught.value.message.startswith("MLFLOW_TRACKING_URI: ")


def test_a_database_named_by_a_relative_uri_is_the_one_that_gets_the_points(
    store: Store, sweep: Sweep, tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_database, tmp_path / "a%b.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///a%25b.db")
    mirror(sweep, store)
    assert query(tmp_path / "a%b.db", "select count(*) > 0 from metrics") == [(1,)]
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("a")) == ["a%b.db"]


# --- a store that moved -------------------------------------------------------------------------------------


def test_reports_before_and_after_a_move_lie_in_the_store_and_mlflow_finds_them(
    store: Store, sweep: Sweep, tmp_path: Path
) -> None:
    mirror(sweep, store)
    old = folder_of(store)
    moved = open_store(old.rename(tmp_path / "elsewhere#2"))
    assert mirror(sweep, moved)
    assert reports(moved) == [b"# Report\n"]
    more = dataclasses.replace(sweep, seeds=(0, 1, 2))
    fill_store(moved, more)
    mirror(more, moved, {"report.md": b"# Another\n"})
    assert reports(moved) == [b"# Another\n"]
    assert not old.exists()
    database = folder_of(moved) / "mlflow.db"
    inside = f"{(folder_of(moved) / 'mlartifacts').as_uri()}/"
    for table, column in (("runs", "artifact_uri"), ("experiments", "artifact_location")):
        kept = [
            str(uri)
            for (uri,) in query(database, f"select {column} from {table}")
            if "mlartifacts/0" not in uri
        ]
        assert all(uri.startswith(inside) for uri in kept), kept


def test_a_store_reached_by_a_link_has_not_moved(store: Store, sweep: Sweep, tmp_path: Path) -> None:
    mirror(sweep, store)
    database = folder_of(store) / "mlflow.db"
    before = query(database, "select artifact_uri from runs order by 1")
    (tmp_path / "link").symlink_to(folder_of(store), target_is_directory=True)
    mirror(sweep, open_store(tmp_path / "link"))
    assert query(database, "select artifact_uri from runs order by 1") == before


def test_a_report_that_lies_elsewhere_is_put_where_mlflow_looks(store: Store, sweep: Sweep) -> None:
    mirror(sweep, store)
    shutil.rmtree(folder_of(store) / "mlartifacts")
    mirror(sweep, store)
    assert reports(store) == [b"# Report\n"]


# --- what was lost ------------------------------------------------------------------------------------------


def lose_manifest(folder: Path) -> None:
    (folder / "mlflow" / "manifest.json").unlink()


def garble_manifest(folder: Path) -> None:
    (folder / "mlflow" / "manifest.json").write_bytes(b"{")


def lose_identity(folder: Path) -> None:
    shutil.rmtree(folder / "mlflow")


def garble_identity(folder: Path) -> None:
    (folder / "mlflow" / "identity.txt").write_bytes(b"\xff")


def odd_manifest(folder: Path) -> None:
    (folder / "mlflow" / "manifest.json").write_bytes(b'{"files": ["identity.txt"]}')


def lose_tags_of_the_experiment(folder: Path) -> None:
    change(folder / "mlflow.db", "delete from experiment_tags")


LOSSES = [
    lose_manifest,
    garble_manifest,
    odd_manifest,
    lose_identity,
    garble_identity,
    lose_tags_of_the_experiment,
]


@pytest.mark.parametrize("lose", LOSSES)
def test_without_the_stores_mark_its_runs_are_known_by_their_tags(
    store: Store, sweep: Sweep, lose: Callable[[Path], None]
) -> None:
    links = mirror(sweep, store)
    lose(folder_of(store))
    assert mirror(sweep, store).experiment_id == links.experiment_id
    assert names_of_runs(store) == ALL_RUNS
    assert mirror(sweep, store) == links == find_mirror(sweep, store)
    assert names_of_runs(store) == ALL_RUNS


def test_another_mlflow_meanwhile_makes_no_second_copy(
    store: Store, sweep: Sweep, tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    links = mirror(sweep, store)
    lose_identity(folder_of(store))
    shutil.copy(empty_database, tmp_path / "other.db")
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
        mirror(sweep, store)  # the store gets another mark
    assert mirror(sweep, store) == links
    assert names_of_runs(store) == ALL_RUNS


def test_without_its_mark_a_store_does_not_take_anothers_experiment(
    store: Store, sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", resolve_uri(store))
    other = open_store(tmp_path / "other")
    for seed in sweep.seeds:
        put_run(other, sweep.cells[0], seed, started_at=5.0 + seed)
    theirs = mirror(sweep, other)
    mine = mirror(sweep, store)
    lose_identity(folder_of(store))
    assert mirror(sweep, store).experiment_id == mine.experiment_id != theirs.experiment_id
    lose_identity(folder_of(other))
    assert mirror(sweep, other).experiment_id == theirs.experiment_id
    assert names_of_runs(store) == sorted(2 * ALL_RUNS)


# --- a damaged database -------------------------------------------------------------------------------------


def empty_file(path: Path) -> None:
    path.write_bytes(b"")


def no_database(path: Path) -> None:
    path.write_bytes(b"not a database" * 1000)


def cut_short(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def garble_pages(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\x5a" * (len(content) - 4096))


def change(path: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        for statement in statements:
            database.execute(statement)


def other_schema(path: Path) -> None:
    from mlflow.tracking._tracking_service import utils

    change(path, "update alembic_version set version_num = 'f00df00df00d'")
    utils._tracking_store_registry._get_store_with_resolved_uri.cache_clear()  # as in another process


def no_table(path: Path) -> None:
    change(path, "pragma foreign_keys = off", "drop table latest_metrics", "drop table metrics")


def senseless_row(path: Path) -> None:
    change(path, "update tags set value = cast(x'ff80' as text) where key = 'hkrun.digest'")


DAMAGES = [empty_file, no_database, cut_short, garble_pages, other_schema, no_table, senseless_row]


@pytest.fixture
def ready_schema(monkeypatch: pytest.MonkeyPatch, empty_database: Path) -> None:
    """A new database is a copy of an empty one, which takes no second."""

    def copy(path: Path) -> None:
        if not path.exists():
            shutil.copy(empty_database, path)

    monkeypatch.setattr(connection, "make_database", copy)


@pytest.mark.usefixtures("ready_schema")
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_database_is_put_aside_by_name_and_filled_again_once(
    store: Store, sweep: Sweep, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    mirror(sweep, store)
    database = folder_of(store) / "mlflow.db"
    damage(database)
    kept = database.read_bytes()
    put_run(store, sweep.cells[0], 1, started_at=7.0)  # there is something to mirror
    watched = Mirror(sweep, store, warn=pytest.fail)
    watched.run_done(cell_id(sweep.cells[0].cell), 1)
    with caplog.at_level(logging.WARNING, "hkrun"):
        links = watched.finish(summaries=make_summaries(store, sweep), files=REPORT)
    assert links is not None
    (told,) = caplog.messages
    assert told.startswith(f"MLflow's database {database} is damaged (")
    assert told.endswith("): kept as mlflow.db.damaged-1, and a new one is filled from the store")
    assert (folder_of(store) / "mlflow.db.damaged-1").read_bytes() == kept
    assert names_of_runs(store) == ALL_RUNS
    points = Counter(query(database, "select run_uuid, key, step, value, timestamp from metrics"))
    assert set(points.values()) == {1}
    assert len(points) == 2 * (2 * 3 + 2) + 2 + 4
    assert reports(store) == [b"# Report\n"]
    assert mirror(sweep, store) == links
    assert not (folder_of(store) / "mlflow.db.damaged-2").exists()


def test_sync_finds_damage_that_only_reading_all_of_it_shows(
    store: Store, sweep: Sweep, caplog: pytest.LogCaptureFixture
) -> None:
    mirror(sweep, store)
    database = folder_of(store) / "mlflow.db"
    ((root,), (size,)) = (
        *query(database, "select rootpage from sqlite_master where name = 'metrics' and type = 'table'"),
        *query(database, "pragma page_size"),
    )
    assert isinstance(root, int)
    assert isinstance(size, int)
    content = bytearray(database.read_bytes())
    content[(root - 1) * size : root * size] = b"\x5a" * size  # the points, which no one asks for again
    database.write_bytes(content)
    with caplog.at_level(logging.WARNING, "hkrun"):
        mirror(sweep, store)
    assert "mlflow.db.damaged-1" in caplog.text
    assert query(database, "select count(*) from metrics") == [(2 * (2 * 3 + 2) + 2 + 4,)]


def test_sync_makes_a_database_anew_whose_runs_belong_to_no_experiment(
    store: Store, sweep: Sweep, caplog: pytest.LogCaptureFixture
) -> None:
    mirror(sweep, store)
    database = folder_of(store) / "mlflow.db"
    change(database, "pragma foreign_keys = off", "delete from experiments where experiment_id <> 0")
    with caplog.at_level(logging.WARNING, "hkrun"):
        mirror(sweep, store)
    assert re.search(r"is damaged \(a row of \w+ belongs to none of experiments\): kept as", caplog.text)
    assert names_of_runs(store) == ALL_RUNS


@pytest.mark.slow
def test_threads_of_one_process_make_their_databases_one_after_the_other(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.db" for number in range(3)]
    with ThreadPoolExecutor(len(paths)) as pool:
        list(pool.map(make_database, paths))
    for path in paths:
        check_whole(path)
        check_opens(path)


def test_a_mistake_in_a_program_is_no_damage() -> None:
    for mistake in (AssertionError("too long"), ModuleNotFoundError("boto3")):
        assert describe_damage(mistake) == ""
    assert describe_damage(sqlite3.DatabaseError("file is not a database")) == "file is not a database"


def test_a_journal_of_the_damaged_database_goes_with_it(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    for part in ("", "-wal", "-shm", "-journal"):
        database.with_name(f"mlflow.db{part}").write_text(part)
    (tmp_path / "mlflow.db.damaged-1").write_text("an earlier one")
    put_aside(database, file_number(database), "damaged")
    kept = {path.name: path.read_text() for path in tmp_path.iterdir() if path.suffix != ".lock"}
    assert kept == {"mlflow.db.damaged-1": "an earlier one"} | {
        f"mlflow.db.damaged-2{part}": part for part in ("", "-wal", "-shm", "-journal")
    }


def test_a_database_that_another_process_has_renewed_is_not_put_aside(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    database.write_text("damaged")
    seen = file_number(database)
    database.rename(tmp_path / "aside")
    database.write_text("renewed")
    put_aside(database, seen, "damaged")
    assert database.read_text() == "renewed"


def test_a_damaged_database_that_the_user_named_is_left_alone(
    store: Store, sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = tmp_path / "named.db"
    no_database(named)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{named}")
    with pytest.raises(StoreError, match=r"damaged .*; MLFLOW_TRACKING_URI names it: move it away"):
        mirror(sweep, store)
    warnings: list[str] = []
    assert Mirror(sweep, store, warn=warnings.append).finish(summaries={}, files={}) is None
    assert len(warnings) == 1
    assert [path.name for path in tmp_path.iterdir() if "named" in path.name and path.suffix != ".lock"] == [
        "named.db"
    ]


def test_who_only_reads_is_told_what_mends_a_damaged_database(store: Store, sweep: Sweep) -> None:
    no_database(folder_of(store) / "mlflow.db")
    told = r"is damaged \(file is not a database\); `hkrun sync` makes a new one from the store"
    with pytest.raises(StoreError, match=told):
        find_mirror(sweep, store)
    with pytest.raises(StoreError, match=told), serve(store):
        pass
    assert not (folder_of(store) / "mlflow.db.damaged-1").exists()


@pytest.mark.parametrize("what", ["locked", "closed", "folder"])
def test_what_is_no_damage_costs_one_warning_and_puts_nothing_aside(
    store: Store, sweep: Sweep, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr("hkrun.tracking.database.LOCKED_S", 0.1)
    database = folder_of(store) / "mlflow.db"
    holder = sqlite3.connect(database)
    if what == "locked":
        holder.execute("begin exclusive")
    elif what == "closed":
        monkeypatch.setattr(
            "hkrun.tracking.connection.check_opens",
            lambda _: (_ for _ in ()).throw(PermissionError("closed")),
        )
    else:
        database.unlink()
        database.mkdir()
    warnings: list[str] = []
    assert Mirror(sweep, store, warn=warnings.append).finish(summaries={}, files={}) is None
    holder.close()
    (told,) = warnings
    assert told.endswith(
        "nothing is lost: the store has it all, and `hkrun sync` brings MLflow up to date later"
    )
    assert database.exists()
    assert list(folder_of(store).glob("*damaged*")) == []


def test_links_tell_that_an_earlier_version_saved_no_lists_until_the_next_sync(
    store: Store, sweep: Sweep
) -> None:
    assert not mirror(sweep, store).outdated
    uri = resolve_uri(store)
    tags = "DELETE FROM experiment_tags WHERE key IN (?, ?)"
    views = [f"mlflow.sharedViewState.hkrun-{view}" for view in ("cells", "runs")]
    with contextlib.closing(sqlite3.connect(folder_of(store) / "mlflow.db")) as database, database:
        assert database.execute(tags, views).rowcount == 2
    found = find_mirror(sweep, store)
    assert found is not None
    assert found.outdated
    assert found.comparison == found.experiment  # the experiment by itself
    assert "hkrun-comparison" in found.view
    again = mirror(sweep, store)
    assert not again.outdated
    assert again == find_links(connect(uri), uri, again.experiment_id)


# --- a database elsewhere -----------------------------------------------------------------------------------


def test_a_database_that_refuses_or_says_nothing_is_given_up_before_mlflow_tries_ten_times(
    store: Store, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.store.db import utils

    monkeypatch.setattr(utils, "create_sqlalchemy_engine_with_retry", pytest.fail)
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        for listener, limit_s, told in ((closed, 60.0, "refused"), (silent, 0.5, "did not answer within")):
            monkeypatch.setattr(connection, "DATABASE_ANSWER_S", limit_s)
            port = listener.getsockname()[1]
            monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql+psycopg://me:secret@127.0.0.1:{port}/x")
            with pytest.raises(StoreError, match=told) as caught:
                mirror(sweep, store)
            assert "secret" not in caught.value.message
            warnings: list[str] = []
            assert Mirror(sweep, store, warn=warnings.append).finish(summaries={}, files={}) is None
            assert len(warnings) == 1
    wait_for_answers()


def test_a_server_that_takes_connections_and_says_nothing_is_given_up_before_mlflow_tries_again(
    store: Store, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "SERVER_ANSWER_S", 0.5)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://me:secret@127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with pytest.raises(StoreError, match=r"MLflow at http://127\.0\.0\.1:\d+ did not answer within"):
            mirror(sweep, store)
    wait_for_answers()


@pytest.mark.parametrize("trouble", ["refused", "unknown", "silent"])
def test_a_server_that_takes_no_connections_is_told_before_mlflow_is_imported_or_a_report_is_made(
    store: Store, sweep: Sweep, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    monkeypatch.setattr(connection, "load", lambda: pytest.fail("MLflow was imported"))
    monkeypatch.setattr(running, "_write_report", lambda *_: pytest.fail("a report was made"))
    monkeypatch.setattr(connection, "getproxies", dict)
    release = threading.Event()
    if trouble == "silent":
        monkeypatch.setattr(connection, "SERVER_CONNECTION_S", 0.5)
        monkeypatch.setattr(socket, "create_connection", lambda *_, **__: release.wait(60))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        host = "no-such-host.invalid" if trouble == "unknown" else "127.0.0.1"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@{host}:{closed.getsockname()[1]}")
        told = "did not answer within" if trouble == "silent" else "cannot be reached: "
        with pytest.raises(StoreError, match=rf"^MLflow at http://{host}:\d+ {told}") as caught:
            running.mirror_sweep(sweep, store)
        with pytest.raises(StoreError, match=told):
            connection.connect(resolve_uri(store))
    assert "secret" not in caught.value.message
    release.set()
    wait_for_answers()


def test_a_server_behind_a_proxy_is_left_for_mlflow_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_for: list[object] = []

    def knock(address: object, timeout: float) -> socket.socket:
        looked_for.append(address)
        return socket.socket()

    monkeypatch.setattr(socket, "create_connection", knock)
    monkeypatch.setattr(connection, "getproxies", lambda: {"https": "http://proxy:3128"})
    monkeypatch.setattr(connection, "proxy_bypass", lambda host: host == "inside")
    for uri in ("https://mlflow.example.org", "https://inside", "http://plain", "sqlite:////x/mlflow.db"):
        connection.check_listens(uri)
    assert looked_for == [("inside", 443), ("plain", 80)]


def wait_for_answers() -> None:
    """Waits for the threads that ask what is not there."""
    for thread in threading.enumerate():
        if thread.name == "hkrun-mlflow-answer":
            thread.join(60)


class _Answers(http.server.BaseHTTPRequestHandler):
    """A server that says of every experiment that it is of the store of this mark."""

    mark = ""

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        known = asked.path == "/api/2.0/mlflow/experiments/get" and asked.query == "experiment_id=7"
        tags = [{"key": "hkrun.sweep", "value": "x"}, {"key": "hkrun.store", "value": self.mark}]
        self.send_response(200 if known else 404)
        self.end_headers()
        self.wfile.write(json.dumps({"experiment": {"tags": tags}} if known else {}).encode())

    def log_message(self, *_: object) -> None:
        pass


def test_the_ui_of_this_very_store_is_found_beside_those_of_others(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`hkrun ui` takes the next port where another store's has the usual one, which may end before it."""
    store.commit("mlflow", {"identity.txt": b"ours"})
    assert read_identity(store) == "ours"
    with contextlib.ExitStack() as servers:
        first = next(
            port for port in range(20_000, 30_000) if all(map(server._is_free, range(port, port + 5)))
        )
        for port, mark in zip((first, first + 3), ("theirs", "ours"), strict=True):
            handler = type("Handler", (_Answers,), {"mark": mark})
            served = servers.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", port), handler))
            threading.Thread(target=served.serve_forever, daemon=True).start()
            servers.callback(served.shutdown)
        monkeypatch.setattr(server, "DEFAULT_PORT", first)
        assert find_ui(store, "7") == f"http://127.0.0.1:{first + 3}"
        assert find_ui(store, "8") is None  # of an experiment that is not there
        monkeypatch.setattr(server, "DEFAULT_PORT", first + 4)
        assert find_ui(store, "7") is None
