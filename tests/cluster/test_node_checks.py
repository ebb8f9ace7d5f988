"""What a node says of itself, without a cluster around it."""

from pathlib import Path

import pytest
from s3_server import KEY, SECRET, S3Server

from hkrun.addresses import connect_uri
from hkrun.cluster.nodes.checks import look_around
from hkrun.cluster.nodes.reports import Needs
from hkrun.store import open_store


@pytest.fixture
def look(tmp_path: Path):
    """Asks this machine, as if it were a node, what it says of a place of data."""
    store = tmp_path / "store"
    open_store(store).commit("probes/driver", {"probe": b"driver"})

    def ask(data: str) -> str:
        needs = Needs(store=str(store), data=data)
        report = look_around(needs, "here", probe="probes/driver", own="probes/own")
        assert (report.problem, report.store) == ("", "")
        return report.data

    return ask


@pytest.fixture
def lab(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """An S3 server that the environment of this process names."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server


def test_data_in_a_bucket_of_the_server_that_the_environment_names_are_seen(look, lab):
    place = lab.place()
    assert look(place.uri) == f"there is nothing at {place.uri}"
    filesystem, folder = connect_uri(place.full_uri)
    with filesystem.open_output_stream(f"{folder}/train.parquet") as stream:
        stream.write(b"images")
    assert look(place.uri) == ""
    assert look(f"{place.uri}/") == ""
    assert look(place.full_uri) == ""


def test_no_secret_of_a_uri_is_in_what_a_node_says_of_it(look, lab):
    nothing = look(lab.place().full_uri)
    assert nothing.startswith("there is nothing at s3://lab/")
    misread = look(f"s3://{KEY}:{SECRET}@lab/data?colour=red")
    assert "unknown option 'colour'" in misread
    unknown = look(f"smoke://{KEY}:{SECRET}@lab/data")
    assert unknown
    for said in (nothing, misread, unknown):
        assert KEY not in said
        assert SECRET not in said


def test_a_folder_that_is_not_there_and_a_file_in_its_place_are_told_apart(look, tmp_path):
    (tmp_path / "file").write_text("no folder")
    assert look(str(tmp_path)) == ""
    assert look(str(tmp_path / "none")) == f"there is no {tmp_path / 'none'}"
    assert look(str(tmp_path / "file")) == f"{tmp_path / 'file'} is no folder there"
