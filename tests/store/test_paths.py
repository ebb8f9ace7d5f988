"""Nothing that a name, a link or a manifest says leads out of a store."""

import contextlib
import hashlib
import json
from pathlib import Path

import pytest

from hkrun.cli.invocation import Invocation
from hkrun.cli.program import call
from hkrun.data.shards import Place
from hkrun.errors import StoreError
from hkrun.store import DamagedError, Store, open_store
from hkrun.store.files import LocalFiles

FOLDER = "cells/0123456789ab/seeds/0"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_bytes(b"not the store's")
    return folder


def manifest_of(name: str, content: bytes, **more: str) -> bytes:
    known = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), **more}
    return json.dumps({"files": {name: known}}).encode()


BAD = ["/etc/passwd", "../../../../outside/secret", "..", ".", "", "a/b", "..\\secret", ".hidden"]


@pytest.mark.parametrize("name", BAD)
def test_a_manifest_that_names_what_is_elsewhere_is_damaged(store: Store, outside: Path, name: str) -> None:
    content = b"not the store's"
    for text in (manifest_of(name, content), manifest_of("record.json", content, stored_as=name)):
        store._files.put(FOLDER, {"manifest.json": text})
        for read in (store.names, lambda folder: store.read(folder, "record.json")):
            with pytest.raises(DamagedError, match=r"manifest\.json is damaged"):
                read(FOLDER)
        assert store.record("0123456789ab", 0) is None


@pytest.mark.parametrize(
    "folder", ["..", "../outside", "missing/../../outside", "missing/../cells", "cells/.."]
)
def test_files_of_a_disk_are_not_reached_by_way_of_a_parent(
    tmp_path: Path, outside: Path, folder: str
) -> None:
    (tmp_path / "store" / "cells").mkdir(parents=True)
    files = LocalFiles(tmp_path / "store")
    calls = [
        lambda: files.put(folder, {"secret": b"mine"}),
        lambda: files.get(f"{folder}/secret"),
        lambda: files.sizes(folder),
        lambda: files.remove(folder, ["secret"]),
        lambda: files.exclusive(folder).__enter__(),
    ]
    for call_it in calls:
        with pytest.raises(StoreError, match="may lead out of the store"):
            call_it()
    # Where nothing is, there is nothing to remove and nothing to refuse.
    with contextlib.suppress(StoreError):
        files.remove_folder(folder)
    assert (outside / "secret").read_bytes() == b"not the store's"
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["cells"]


@pytest.mark.parametrize("link", ["cells", "cells/0123456789ab", "cells/0123456789ab/seeds", FOLDER])
def test_a_link_to_a_folder_elsewhere_is_refused(tmp_path: Path, outside: Path, link: str) -> None:
    store = open_store(tmp_path / "store")
    place = tmp_path / "store" / link
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(outside, target_is_directory=True)
    calls = [
        lambda: store.commit(FOLDER, {"secret": b"mine"}),
        lambda: store.read(FOLDER, "secret"),
        lambda: store.records("0123456789ab"),
        lambda: store.record("0123456789ab", 0),
        lambda: store.delete(FOLDER),
    ]
    for call_it in calls[: 2 if link == FOLDER else 4]:
        with pytest.raises(StoreError, match="it is a link, and the store keeps to its own folder"):
            call_it()
    with pytest.raises(StoreError):
        store.delete(FOLDER)
    assert sorted(path.name for path in outside.rglob("*")) == ["secret"]
    assert (outside / "secret").read_bytes() == b"not the store's"


def test_a_link_in_the_place_of_a_file_is_neither_read_nor_written_through(
    tmp_path: Path, outside: Path
) -> None:
    store = open_store(tmp_path / "store")
    store.commit(FOLDER, {"record.json": b"not the store's"})
    file = tmp_path / "store" / FOLDER / "record.json"
    file.unlink()
    file.symlink_to(outside / "secret")
    with pytest.raises(StoreError, match="it is a link"):
        store.read(FOLDER, "record.json")
    store.commit(FOLDER, {"record.json": b"mine"})
    assert store.read(FOLDER, "record.json") == b"mine"
    assert not file.is_symlink()
    assert (outside / "secret").read_bytes() == b"not the store's"


def test_a_store_may_itself_be_reached_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "disk", target_is_directory=True)
    store = open_store(tmp_path / "store")
    store.commit(FOLDER, {"record.json": b"mine"})
    assert store.read(FOLDER, "record.json") == b"mine"
    assert (tmp_path / "disk" / FOLDER / "record.json").exists()


@pytest.mark.parametrize("words", [["report", "../../outside"], ["status", "../../outside"]])
def test_a_name_on_the_command_line_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HKRUN_STORE", raising=False)
    open_store(tmp_path / "hkrun-store")
    assert call(words) in (2, 6)
    assert "Traceback" not in capfd.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hkrun-store"]


@pytest.mark.parametrize("name", ["hash#tag", "what?x=1", "per%20cent%", 'quo\'te "two"', "ü&=+;:@", "file:"])
def test_store_data_space_and_logs_may_lie_in_a_folder_of_any_name(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    folder = tmp_path / name
    store = open_store(folder / "store")
    store.commit(FOLDER, {"record.json": b"mine"})
    assert open_store(folder / "store", create=False).read(FOLDER, "record.json") == b"mine"
    data = Place.below(folder, "imagenet")
    with data.create("shard") as file:
        file.write(b"images")
    with data.open("shard") as file:
        assert file.read() == b"images"
    (folder / "mine.toml").write_text(
        'title = "Mine"\ndataset = "digits"\nseeds = 2\n[[cells]]\nname = "one"\n[[cells]]\nname = "two"\n'
        "loss.lambda_3 = 0.5\n"
    )
    words = ["--dry-run", "--store", str(folder / "store"), "--data", str(folder)]
    assert call(["sweep", str(folder / "mine.toml"), *words]) == 0, capfd.readouterr().err
    assert Invocation(store_uri=str(folder / "store")).log_folder() == folder / "store" / "logs"
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert sorted(path.name for path in folder.iterdir()) == ["imagenet", "mine.toml", "store"]
