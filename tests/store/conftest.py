"""The kinds of places that a store can be in."""

from pathlib import Path

import pytest
from s3_server import S3Server

from hkrun.store import Store, open_store


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store on a disk, then one on S3."""
    if request.param == "local":
        return open_store(tmp_path / "store")
    server: S3Server = request.getfixturevalue("s3_server")
    return open_store(server.place().full_uri)
