"""torchvision's pretrained weights, from a server that is a folder."""

import hashlib
from pathlib import Path

import pytest
import torch
from torchvision.models import get_model_weights

from hkrun.data import fetching
from hkrun.data.fetching import fetch_weights
from hkrun.errors import DataError
from hkrun.networks import PRETRAINED_FILES


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "server"
    folder.mkdir()
    monkeypatch.setattr(fetching, "_SERVER", folder.as_uri())
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    return folder


def offer(server: Path, monkeypatch: pytest.MonkeyPatch, *, digest: str | None = None) -> str:
    """Puts weights on the server, under a name with the start of their SHA-256 or of another one."""
    draft = server / "draft"
    torch.save({"weight": torch.arange(3.0)}, draft)
    digest = digest or hashlib.sha256(draft.read_bytes()).hexdigest()
    name = f"resnet152-{digest[:8]}.pth"
    draft.rename(server / name)
    monkeypatch.setattr(fetching, "pretrained_file", {"resnet-152": name}.get)
    return name


def test_weights_are_fetched_once(server, monkeypatch, capsys):
    name = offer(server, monkeypatch)
    assert torch.equal(fetch_weights("resnet-152", key="student.file")["weight"], torch.arange(3.0))
    assert capsys.readouterr() == ("", "")
    (server / name).unlink()
    assert torch.equal(fetch_weights("resnet-152", key="student.file")["weight"], torch.arange(3.0))


def test_a_wrong_checksum_is_refused_and_nothing_is_kept(server, monkeypatch, tmp_path):
    offer(server, monkeypatch, digest="00000000")
    with pytest.raises(DataError, match="invalid hash value"):
        fetch_weights("resnet-152", key="student.file")
    assert not list(tmp_path.glob("home/**/*.pth"))


def test_without_a_network_the_message_says_what_to_put_where(server, tmp_path):
    with pytest.raises(DataError) as caught:
        fetch_weights("resnet-152", key="student.file")
    (line,) = caught.value.problems
    for part in ("torchvision's resnet-152", f"put resnet152-394f9c45.pth from {server.as_uri()}/", "PATH"):
        assert part in line
    assert str(tmp_path / "home/hub/checkpoints") in line


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short"])
def test_a_file_that_was_damaged_afterwards_is_named(server, monkeypatch, tmp_path, content):
    name = offer(server, monkeypatch)
    fetch_weights("resnet-152", key="student.file")
    (tmp_path / "home/hub/checkpoints" / name).write_bytes(content)
    with pytest.raises(DataError, match=name):
        fetch_weights("resnet-152", key="student.file")


@pytest.mark.parametrize("network", PRETRAINED_FILES)
def test_files_and_server_are_those_that_torchvision_names(network):
    weights = get_model_weights(network.replace("-", "")).IMAGENET1K_V1
    assert weights.url == f"{fetching._SERVER}/{PRETRAINED_FILES[network]}"
