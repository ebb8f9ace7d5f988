import functools
import hashlib
import http.server
import io
import pickle
import tarfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from torchvision import datasets

from hkrun.data import load_dataset
from hkrun.errors import DataError

NUM_PER_BATCH = 4
SOURCES = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}
NAMES = sorted(SOURCES)


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def official_pickle(content: dict[str, object]) -> bytes:
    """A pickle spelled as in the official archives: Python 2's protocol, NumPy's old module and flags."""
    new = pickle.dumps(content, protocol=2)
    return new.replace(b"numpy._core", b"numpy.core").replace(b"\x89\x88\x87", b"K\x00K\x01\x87")


def official_files(name: str) -> tuple[dict[str, bytes], np.ndarray, list[int]]:
    """The files of a small data set in the official format, its images [N, 3, 32, 32] and its labels."""
    source = SOURCES[name]
    rng = np.random.default_rng(3)
    batches = [file for file, _ in (*source.train_list, *source.test_list)]
    num_images = NUM_PER_BATCH * len(batches)
    images = rng.integers(256, size=(num_images, 3, 32, 32), dtype=np.uint8)
    labels = rng.integers(10 if name == "cifar10" else 100, size=num_images).tolist()
    files = {}
    for number, file in enumerate(batches):
        part = slice(number * NUM_PER_BATCH, (number + 1) * NUM_PER_BATCH)
        content: dict[str, object] = {"data": images[part].reshape(NUM_PER_BATCH, -1)}
        if name == "cifar10":
            content["labels"] = labels[part]
        else:
            content |= {"fine_labels": labels[part], "coarse_labels": [19] * NUM_PER_BATCH}
        files[file] = official_pickle(content)
    num_classes = 10 if name == "cifar10" else 100
    files[source.meta["filename"]] = official_pickle(
        {source.meta["key"]: [f"class {i}" for i in range(num_classes)]}
    )
    return files, images, labels


def pack(source: type[datasets.CIFAR10], files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for file, content in files.items():
            member = tarfile.TarInfo(f"{source.base_folder}/{file}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


class Official:
    """A small data set that takes the official one's place: torchvision's sums are those of its files."""

    def __init__(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.name = name
        self.source = SOURCES[name]
        self.files, self.images, self.labels = official_files(name)
        self.archive = pack(self.source, self.files)
        monkeypatch.setattr(self.source, "tgz_md5", md5(self.archive))
        for part in ("train_list", "test_list"):
            sums = [[file, md5(self.files[file])] for file, _ in getattr(self.source, part)]
            monkeypatch.setattr(self.source, part, sums)
        meta = self.source.meta
        monkeypatch.setattr(self.source, "meta", meta | {"md5": md5(self.files[meta["filename"]])})

    def write_archive(self, directory: Path, *, length: int | None = None) -> Path:
        path = directory / self.source.filename
        path.write_bytes(self.archive[:length])
        return path

    def write_folder(self, directory: Path) -> Path:
        folder = directory / self.source.base_folder
        folder.mkdir()
        for file, content in self.files.items():
            (folder / file).write_bytes(content)
        return folder

    def assert_loaded(self, directory: Path | None, *, download: bool = False) -> None:
        dataset = load_dataset(self.name, data_dir=directory, download=download)
        num_train = NUM_PER_BATCH * len(self.source.train_list)
        assert dataset.name == self.name
        np.testing.assert_array_equal(dataset.train.images.numpy(), self.images[:num_train])
        np.testing.assert_array_equal(dataset.test.images.numpy(), self.images[num_train:])
        assert dataset.train.images.is_contiguous()
        assert dataset.train.labels.tolist() == self.labels[:num_train]
        assert dataset.test.labels.tolist() == self.labels[num_train:]
        assert dataset.classes == tuple(f"class {i}" for i in range(10 if self.name == "cifar10" else 100))

    def refusal(self, directory: Path, *, download: bool = False) -> str:
        """The message of the DataError that loading ends in: one line."""
        with pytest.raises(DataError) as caught:
            load_dataset(self.name, data_dir=directory, download=download)
        (problem,) = caught.value.problems
        assert problem.startswith(f"{self.name}: ")
        return problem


@pytest.fixture(params=NAMES)
def official(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Official:
    return Official(request.param, monkeypatch)


@pytest.fixture
def cifar10(monkeypatch: pytest.MonkeyPatch) -> Official:
    return Official("cifar10", monkeypatch)


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A web server on this machine: its address, and the directory that it serves."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Says nothing of a client that closed its connection first: tests look at what is printed."""

    directory = tmp_path_factory.mktemp("served")
    handler = functools.partial(Handler, directory=str(directory))
    with Server(("127.0.0.1", 0), handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}", directory
        serving.shutdown()
        thread.join()


def test_the_archive_is_unpacked_and_read(official: Official, tmp_path: Path) -> None:
    official.write_archive(tmp_path)

    official.assert_loaded(tmp_path)

    names = {path.name for path in tmp_path.iterdir()}
    assert names == {official.source.filename, official.source.base_folder}


def test_the_unpacked_folder_is_enough_and_nothing_is_written(official: Official, tmp_path: Path) -> None:
    official.write_folder(tmp_path)

    official.assert_loaded(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == [official.source.base_folder]


def test_a_folder_that_was_half_unpacked_is_made_whole_from_the_archive(
    official: Official, tmp_path: Path
) -> None:
    official.write_archive(tmp_path)
    folder = official.write_folder(tmp_path)
    first, _ = official.source.train_list[0]
    (folder / first).write_bytes(b"half")
    (folder / official.source.meta["filename"]).unlink()

    official.assert_loaded(tmp_path)


@pytest.mark.parametrize("step", ["download_url", "extract_archive"])
def test_another_process_may_fetch_and_unpack_at_the_same_time(
    cifar10: Official, tmp_path: Path, server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    url, served = server
    archive = cifar10.write_archive(served)
    monkeypatch.setattr(cifar10.source, "url", f"{url}/{archive.name}")
    real_step = getattr(datasets.utils, step)
    interruptions = []

    def interrupted(*args: object) -> None:
        """Lets another loader do all its work just before this one's step."""
        if not interruptions:
            interruptions.append(step)
            cifar10.assert_loaded(tmp_path, download=True)
        real_step(*args)

    monkeypatch.setattr(datasets.utils, step, interrupted)

    cifar10.assert_loaded(tmp_path, download=True)

    assert interruptions == [step]
    assert {path.name for path in tmp_path.iterdir()} == {archive.name, cifar10.source.base_folder}


def test_missing_files_are_named_with_what_to_put_where(official: Official, tmp_path: Path) -> None:
    directory = tmp_path / "nothing"
    source = official.source

    assert official.refusal(directory) == (
        f"{official.name}: not found; put {source.filename} from {source.url} (MD5 {source.tgz_md5}), "
        f"or the folder {source.base_folder} that it unpacks to, into {directory}"
    )
    assert not directory.exists()


@pytest.mark.parametrize("length", [0, 100, -1])
def test_an_archive_cut_short_is_named_and_kept(official: Official, tmp_path: Path, length: int) -> None:
    archive = official.write_archive(tmp_path, length=length)

    assert f"{archive} is damaged or cut short: its MD5 is not" in official.refusal(tmp_path, download=True)
    assert list(tmp_path.iterdir()) == [archive]


def test_another_archive_than_the_published_one_is_refused(cifar10: Official, tmp_path: Path) -> None:
    files = cifar10.files | {"data_batch_1": cifar10.files["data_batch_2"]}
    (tmp_path / cifar10.source.filename).write_bytes(pack(cifar10.source, files))

    assert "its MD5 is not" in cifar10.refusal(tmp_path)


def test_a_damaged_folder_without_the_archive_names_the_file(official: Official, tmp_path: Path) -> None:
    folder = official.write_folder(tmp_path)
    file, _ = official.source.test_list[0]
    content = bytearray(official.files[file])
    content[-20] ^= 1
    (folder / file).write_bytes(content)

    assert official.refusal(tmp_path, download=True) == (
        f"{official.name}: {folder / file} is missing or damaged (1 such files); "
        f"delete {folder}, or put {official.source.filename} beside it"
    )


def test_without_a_network_the_message_says_what_to_put_where(
    cifar10: Official, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cifar10.source, "url", "http://nowhere.invalid/cifar-10-python.tar.gz")

    problem = cifar10.refusal(tmp_path, download=True)

    assert problem.startswith("cifar10: download failed (")
    assert f"put cifar-10-python.tar.gz from {cifar10.source.url}" in problem
    assert problem.endswith(f"into {tmp_path}")
    assert list(tmp_path.iterdir()) == []


def test_a_download_is_kept_and_used(
    cifar10: Official,
    tmp_path: Path,
    server: tuple[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    url, served = server
    archive = cifar10.write_archive(served)
    monkeypatch.setattr(cifar10.source, "url", f"{url}/{archive.name}")

    cifar10.assert_loaded(tmp_path / "new/place", download=True)

    archive.unlink()
    cifar10.assert_loaded(tmp_path / "new/place", download=True)
    assert capfd.readouterr() == ("", "")  # no progress bar where there is no terminal


def test_without_a_directory_the_user_s_cache_is_used(
    cifar10: Official, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "hkrun").mkdir()
    cifar10.write_folder(tmp_path / "hkrun")

    cifar10.assert_loaded(None)


def test_a_download_cut_short_leaves_nothing_behind(
    cifar10: Official, tmp_path: Path, server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, served = server
    archive = cifar10.write_archive(served, length=-10)
    monkeypatch.setattr(cifar10.source, "url", f"{url}/{archive.name}")

    assert "cifar10: download failed (File not found or corrupted.)" in cifar10.refusal(
        tmp_path, download=True
    )
    assert list(tmp_path.iterdir()) == []


def test_a_missing_page_is_reported_in_one_line(
    cifar10: Official, tmp_path: Path, server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cifar10.source, "url", f"{server[0]}/{cifar10.source.filename}")

    assert "cifar10: download failed (HTTP Error 404: File not found)" in cifar10.refusal(
        tmp_path, download=True
    )


def test_a_directory_that_cannot_be_written_is_named(cifar10: Official, tmp_path: Path) -> None:
    occupied = tmp_path / "file"
    occupied.write_text("not a directory")

    problem = cifar10.refusal(occupied / "data", download=True)

    assert problem.startswith(f"cifar10: cannot use {occupied / 'data'}: ")
    assert "Not a directory" in problem


def test_no_room_to_unpack_is_one_line_and_leaves_no_half_folder(
    cifar10: Official, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = cifar10.write_archive(tmp_path)

    def extract(_archive: Path, into: str) -> None:
        (Path(into) / "half").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(datasets.utils, "extract_archive", extract)

    assert cifar10.refusal(tmp_path) == f"cifar10: cannot use {tmp_path}: [Errno 28] No space left on device"
    assert list(tmp_path.iterdir()) == [archive]


def test_warnings_of_reading_old_pickles_do_not_escape(
    cifar10: Official, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cifar10.write_folder(tmp_path)
    init = datasets.CIFAR10.__init__

    def warn(self: datasets.CIFAR10, *args: object, **kwargs: object) -> None:
        warnings.warn("dtype(): align should be passed as a boolean", DeprecationWarning, stacklevel=1)
        init(self, *args, **kwargs)

    monkeypatch.setattr(datasets.CIFAR10, "__init__", warn)

    cifar10.assert_loaded(tmp_path)


def test_torchvision_s_sums_are_the_published_ones() -> None:
    """The tests above replace them; these are what users' files are checked against."""
    assert datasets.CIFAR10.tgz_md5 == "c58f30108f718f92721af3b95e74349a"
    assert datasets.CIFAR100.tgz_md5 == "eb9058c3a382ffc7106e4002c42a8d85"
