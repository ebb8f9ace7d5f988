"""What a URI and the environment say of an S3 store, and what no message shows."""

import logging
from pathlib import Path

import pytest
from s3_server import SECRET, S3Server

from hkrun.addresses import S3Address, read_address
from hkrun.cli.program import call
from hkrun.data.shards import Place
from hkrun.errors import DataError, InputError, StoreError
from hkrun.store import open_store


@pytest.mark.parametrize(
    ("uri", "environment", "expected"),
    [
        ("s3://bucket", {}, S3Address("bucket", "")),
        ("s3://bucket/a/b/", {}, S3Address("bucket", "a/b")),
        (
            "s3://k:s%2Fe%40c@bucket/a?endpoint_override=host:9000&scheme=http",
            {"AWS_ACCESS_KEY_ID": "other", "AWS_SESSION_TOKEN": "other", "AWS_ENDPOINT_URL": "https://other"},
            S3Address("bucket", "a", "http://host:9000", "us-east-1", "k", "s/e@c"),
        ),
        (
            "s3://bucket/a?endpoint_override=host&region=eu-west-1",
            {"AWS_REGION": "other"},
            S3Address("bucket", "a", "https://host", "eu-west-1"),
        ),
        (
            "s3://bucket/a",
            {
                "AWS_ENDPOINT_URL": "https://other",
                "AWS_ENDPOINT_URL_S3": "http://host:9000/",
                "AWS_DEFAULT_REGION": "eu-west-2",
                "AWS_ACCESS_KEY_ID": "k",
                "AWS_SECRET_ACCESS_KEY": "s",
                "AWS_SESSION_TOKEN": "t",
            },
            S3Address("bucket", "a", "http://host:9000", "eu-west-2", "k", "s", "t"),
        ),
    ],
)
def test_the_uri_comes_before_the_environment(
    uri: str, environment: dict[str, str], expected: S3Address, tmp_path: Path
) -> None:
    environment = {"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"), **environment}
    assert read_address(uri, environment) == expected


def test_the_credentials_file_comes_last(tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text(
        "[default]\naws_access_key_id = k\naws_secret_access_key = s%\n"
        "[lab]\naws_access_key_id = k2\naws_secret_access_key = s2\naws_session_token = t2\n"
    )
    environment = {"AWS_SHARED_CREDENTIALS_FILE": str(file)}
    assert read_address("s3://bucket", environment) == S3Address("bucket", "", key="k", secret="s%")
    lab = read_address("s3://bucket", environment | {"AWS_PROFILE": "lab"})
    assert (lab.key, lab.secret, lab.token) == ("k2", "s2", "t2")
    assert read_address("s3://bucket", environment | {"AWS_ACCESS_KEY_ID": "k3"}).key == "k3"
    file.write_text("no file of credentials")
    assert read_address("s3://bucket", environment).key == ""


@pytest.mark.parametrize(
    "uri",
    [
        "s3://",
        "s3:///a",
        "s3://k:se/cret@bucket/a",
        "s3://k:se cret@bucket/a",
        "s3://k:se@cret@bucket/a",
        "s3://bucket/../other",
        "s3://bucket/a/./b",
        "s3://bucket/a//b",
        "s3://bucket/%2e%2e/other",
        "s3://bucket/a?password=secret",
        "s3://bucket/a?endpoint_override=k:secret@host",
        "s3://bucket/a?endpoint_override=host:port",
        "s3://bucket/a?endpoint_override=host/secret",
        "s3://bucket/a?endpoint_override=host&scheme=file",
    ],
)
def test_a_uri_that_cannot_be_right_is_refused_in_one_line_without_what_is_secret(uri: str) -> None:
    with pytest.raises(StoreError, match="cannot open the store s3:") as caught:
        open_store(uri)
    assert len(caught.value.problems) == 1
    assert caught.value.__cause__ is None
    assert "se cret" not in caught.value.message
    assert "cret" not in caught.value.message.replace("or its secret as", "")
    with pytest.raises(DataError, match="cannot open s3:"):
        Place(uri).holds("x")


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("s3://bucket/a b", "a space in the prefix is written %20"),
        ("s3://bucket/a/b#1", "'#' in the prefix is written %23"),
        ("s3://bucket/a\tb", r"'\\t' in the prefix is written %09"),
        ("s3://my bucket/a", "' ' cannot be in the name of a bucket"),
    ],
)
def test_the_character_that_cannot_be_is_named_where_it_is_no_secrets(uri: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read_address(uri, {})


def test_a_prefix_with_spaces_and_signs_works_as_its_message_says(s3_server: S3Server) -> None:
    uri, _, query = s3_server.place().full_uri.partition("?")
    store = open_store(f"{uri}/a%20b%231?{query}")
    with store.hold("sweeps/x"):
        store.commit("sweeps/x", {"plan.json": b"1"})
    store.commit("cells/0123456789ab/seeds/0", {"record.json": b"2"})
    again = open_store(f"{uri}/a%20b%231?{query}", create=False)
    assert again.read("sweeps/x", "plan.json") == b"1"
    assert again.read("cells/0123456789ab/seeds/0", "record.json") == b"2"
    assert again.sweep_folders() == ["sweeps/x"]


SLIPS = ["s3:/bucket/x", "s3:bucket/x", "S3:/bucket/x", "gs:/bucket/x", "abfs:/x", "hdfs:/x", "file:/tmp/x"]


@pytest.mark.parametrize("place", SLIPS)
@pytest.mark.parametrize(
    "words",
    [
        "sweep stability --dry-run --store {}",
        "sweep stability --dry-run --data {}",
        "sync --store {}",
        "ui --store {}",
        "status --store {}",
        "doctor --store {}",
        "data pack --to {}",
        "submit --address http://127.0.0.1:1 --store {} -- sweep stability",
        "submit --address http://127.0.0.1:1 -- sweep stability --store {}",
    ],
)
def test_a_uri_that_lost_a_slash_is_refused_and_makes_no_folder(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    words: str,
    place: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HKRUN_STORE", raising=False)
    assert call(words.format(place).split()) == 2
    told = capfd.readouterr().err.strip().splitlines()[-1]
    scheme = place.partition(":")[0]
    assert f"'{scheme}:' takes two slashes, {scheme.lower()}://..." in told
    assert "x" not in told.partition("slashes")[0].replace("hkrun", "")
    assert list(tmp_path.iterdir()) == []


def test_all_places_that_lost_a_slash_are_told_at_once_with_where_they_come_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HKRUN_STORE", "s3:/bucket/x")
    assert call(["sweep", "stability", "--data", "gs:/bucket/x"]) == 2
    told = capfd.readouterr().err
    assert "HKRUN_STORE: 's3:' takes two slashes" in told
    assert "--data: 'gs:' takes two slashes" in told


def test_python_is_told_of_a_lost_slash_too_and_may_mean_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="'s3:' takes two slashes"):
        open_store(Path("s3://bucket/x"))
    with pytest.raises(InputError, match="'s3:' takes two slashes"):
        Place.below(Path("s3://bucket/x"), "imagenet")
    assert open_store("./s3:/bucket/x").local_path == tmp_path / "s3:" / "bucket" / "x"


def test_an_address_can_be_shown() -> None:
    address = read_address("s3://key:secret@bucket/a", {"AWS_SESSION_TOKEN": "t"})
    assert "secret" not in repr(address).replace("secret_", "")


def test_a_store_is_found_by_the_environment_and_by_its_uri_alike(
    each_s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    place = each_s3_server.place()
    one = open_store(place.full_uri)
    one.commit("sweeps/x", {"plan.json": b"1"})
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    other = open_store(place.uri, create=False)
    assert other.read("sweeps/x", "plan.json") == b"1"
    assert one.place == other.place == place.uri
    assert SECRET not in caplog.text + repr(one) + str(one.place)


def test_data_is_read_and_written_on_s3(each_s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    place = each_s3_server.place()
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    data = Place.below(place.uri, "imagenet")
    assert not data.holds("index.json")
    content = bytes(range(256)) * 60_000  # several parts of an upload
    with data.create("shard-0") as file:
        file.write(content)
    assert data.holds("shard-0")
    with data.open("shard-0") as file:
        assert file.size() == len(content)
        file.seek(10_000_000)
        assert file.read(300) == content[10_000_000:10_000_300]
    with pytest.raises(DataError, match=f"cannot read {place.uri}/imagenet/none"):
        data.open("none")
