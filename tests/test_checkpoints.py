"""Checkpoints: what was saved is loaded; damage and kills cost epochs, never the run."""

import errno
import io
import logging
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hkrun import checkpoints
from hkrun.checkpoints import (
    load_checkpoints,
    load_teacher_checkpoints,
    save_checkpoint,
    save_teacher_checkpoint,
)
from hkrun.errors import StoreError
from hkrun.store import Store, open_store

CELL = "0123456789ab"
FOLDER = f"cells/{CELL}/seeds/3/checkpoints"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def make_state(epoch: int) -> dict[str, Any]:
    return {"epoch": epoch, "weights": torch.full((50,), float(epoch))}


def save(store: Store, *epochs: int) -> None:
    for epoch in epochs:
        save_checkpoint(store, CELL, 3, epoch=epoch, state=make_state(epoch))


def load_one(store: Store) -> tuple[int, dict[str, Any]] | None:
    return load_checkpoints(store, CELL, [3]).get(3)


def loaded_epoch(store: Store) -> int | None:
    """The epoch that is loaded, after a look at whether its state is that epoch's."""
    found = load_one(store)
    if found is None:
        return None
    epoch, state = found
    assert state["epoch"] == epoch
    assert torch.equal(state["weights"], make_state(epoch)["weights"])
    return epoch


def folder_of(store: Store) -> Path:
    assert store.local_path is not None
    return store.local_path / FOLDER


# --- what is saved is loaded --------------------------------------------------------------------------------


def test_the_full_state_of_training_comes_back_to_the_bit(store: Store) -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    network(torch.randn(5, 1, 4, 4)).square().mean().backward()
    optimizer.step()
    generator = torch.Generator().manual_seed(7)
    torch.randn(3, generator=generator)
    state = {
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "generator": generator.get_state(),
        "history": [{"epoch": 1, "error_pct": 1 / 3, "error_top5_pct": None, "loss": float("inf")}],
        "name": "L_b + L_is",
        "pair": (1, True),
        "half": torch.randn(3).bfloat16(),
        "double": torch.randn(3, dtype=torch.float64),
    }
    save_checkpoint(store, CELL, 3, epoch=1, state=state)
    found = load_one(store)
    assert found is not None
    epoch, again = found
    assert epoch == 1
    assert again["history"] == state["history"]
    assert (again["name"], again["pair"]) == (state["name"], state["pair"])
    for name in ("generator", "half", "double"):
        assert torch.equal(again[name], state[name])
        assert again[name].dtype == state[name].dtype
    for name, value in network.state_dict().items():
        assert torch.equal(again["network"][name], value)
    twin = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))
    twin.load_state_dict(again["network"])
    twin_optimizer = torch.optim.SGD(twin.parameters(), lr=0.5)
    twin_optimizer.load_state_dict(again["optimizer"])
    for each in (network, twin):
        each.zero_grad()
        each(torch.ones(5, 1, 4, 4)).square().mean().backward()
    optimizer.step()
    twin_optimizer.step()
    for one, other in zip(network.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_newest_two_are_kept(store: Store) -> None:
    save(store, 1, 2, 3, 10)
    assert store.names(FOLDER) == ["epoch-000003.pt", "epoch-000010.pt"]
    assert sorted(path.name for path in folder_of(store).iterdir()) == [
        "epoch-000003.pt",
        "epoch-000010.pt",
        "manifest.json",
    ]
    assert loaded_epoch(store) == 10


def test_epochs_count_as_numbers_beyond_six_digits(store: Store) -> None:
    save(store, 999_999, 1_000_000)
    assert loaded_epoch(store) == 1_000_000


def test_nothing_saved_is_nothing_loaded(store: Store) -> None:
    assert load_one(store) is None
    assert load_teacher_checkpoints(store, [CELL]).get(CELL) is None


def test_a_teacher_s_state_is_apart_from_a_run_s(store: Store) -> None:
    save(store, 5)
    save_teacher_checkpoint(store, CELL, epoch=7, state=make_state(7))
    assert loaded_epoch(store) == 5
    found = load_teacher_checkpoints(store, [CELL]).get(CELL)
    assert found is not None
    assert found[0] == 7
    assert store.names(f"teachers/{CELL}/checkpoints") == ["epoch-000007.pt"]


def test_a_resumed_run_drops_the_epochs_it_repeats(store: Store) -> None:
    save(store, 1, 2)
    (folder_of(store) / "epoch-000002.pt").write_bytes(b"damaged")
    assert loaded_epoch(store) == 1
    save(store, 2)
    assert loaded_epoch(store) == 2
    assert store.names(FOLDER) == ["epoch-000001.pt", "epoch-000002.pt"]


# --- what cannot be saved -----------------------------------------------------------------------------------


class Code:
    """What a checkpoint must never hold: on loading, it would run."""


@pytest.mark.parametrize(
    ("state", "where"),
    [
        ({"error": np.float64(1.0)}, r"state\['error'\] is a numpy\.float64"),
        ({"history": [{"loss": np.float32(1.0)}]}, r"state\['history'\]\[0\]\['loss'\] is a numpy\.float32"),
        ({"a": (1, Code())}, r"state\['a'\]\[1\] is a .*Code"),
        ({"a": {np.int64(3): 1}}, r"a key of state\['a'\] is a numpy\.int64"),
        ({"a": np.zeros(2)}, r"state\['a'\] is a numpy\.ndarray"),
    ],
)
def test_what_could_not_be_loaded_is_refused_when_saved(
    store: Store, state: dict[str, Any], where: str
) -> None:
    save(store, 1)
    with pytest.raises(TypeError, match=where):
        save_checkpoint(store, CELL, 3, epoch=2, state=state)
    assert loaded_epoch(store) == 1


def test_a_committed_file_that_holds_code_is_not_run(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    save(store, 1)
    buffer = io.BytesIO()
    torch.save({"format": checkpoints.FORMAT, "state": {"epoch": 2, "weights": Code()}}, buffer)
    store.commit(FOLDER, {"epoch-000002.pt": buffer.getvalue()}, keep=["epoch-000001.pt"])
    assert loaded_epoch(store) == 1
    assert "epoch-000002.pt is passed over" in caplog.text
    assert "\n" not in caplog.messages[0]


# --- damage -------------------------------------------------------------------------------------------------


def damage(path: Path, kind: str) -> None:
    content = bytearray(path.read_bytes())
    if kind == "missing":
        path.unlink()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "longer":
        path.write_bytes(content + b"\0")
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


KINDS = ["missing", "empty", "truncated", "longer", "bit"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_newest_one_falls_back_to_the_one_before(
    store: Store, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    save(store, 1, 2, 3)
    damage(folder_of(store) / "epoch-000003.pt", kind)
    assert loaded_epoch(store) == 2
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "epoch-000003.pt is passed over" in caplog.text


@pytest.mark.parametrize("kind", KINDS)
def test_where_all_are_damaged_the_run_starts_anew(
    store: Store, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    save(store, 1, 2)
    damage(folder_of(store) / "epoch-000001.pt", kind)
    damage(folder_of(store) / "epoch-000002.pt", kind)
    assert load_one(store) is None
    assert "epoch-000001.pt is passed over" in caplog.text
    assert "the run starts anew" in caplog.text
    save(store, 1)
    assert loaded_epoch(store) == 1


@pytest.mark.parametrize("kind", ["empty", "truncated"])
def test_a_damaged_manifest_starts_the_run_anew(
    store: Store, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    save(store, 1, 2)
    damage(folder_of(store) / "manifest.json", kind)
    assert load_one(store) is None
    assert "manifest.json is damaged" in caplog.text
    save(store, 1)
    assert loaded_epoch(store) == 1


def test_a_checkpoint_that_the_manifest_does_not_name_is_not_there(store: Store) -> None:
    save(store, 1, 2)
    (folder_of(store) / "epoch-000003.pt").write_bytes((folder_of(store) / "epoch-000002.pt").read_bytes())
    assert loaded_epoch(store) == 2


def test_random_damage_anywhere_costs_epochs_and_never_yields_a_wrong_state(store: Store) -> None:
    generator = np.random.default_rng(0)
    save(store, 1, 2)
    outcomes = []
    names = ["epoch-000001.pt", "epoch-000002.pt", "manifest.json"]
    intact = {name: (folder_of(store) / name).read_bytes() for name in names}
    for _ in range(150):
        victim = str(generator.choice(names))
        content = bytearray(intact[victim])
        for position in generator.integers(len(content), size=generator.integers(1, 4)):
            content[position] ^= int(generator.integers(1, 256))
        cut = int(generator.integers(len(content))) if generator.random() < 0.2 else len(content)
        (folder_of(store) / victim).write_bytes(content[:cut])
        outcomes.append((victim, loaded_epoch(store)))
        (folder_of(store) / victim).write_bytes(intact[victim])
    assert {epoch for victim, epoch in outcomes if victim == "epoch-000001.pt"} == {2}
    assert {epoch for victim, epoch in outcomes if victim == "epoch-000002.pt"} == {1}
    assert {epoch for victim, epoch in outcomes if victim == "manifest.json"} <= {None, 1, 2}


def test_a_store_that_cannot_be_read_is_no_fresh_start(store: Store) -> None:
    save(store, 1, 2)
    (folder_of(store) / "epoch-000002.pt").unlink()
    (folder_of(store) / "epoch-000002.pt").mkdir()
    with pytest.raises(StoreError, match="a folder stands where a file should be"):
        load_one(store)


def test_a_failed_save_leaves_the_earlier_ones(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    save(store, 1, 2)

    def refuse(self: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(StoreError, match="the disk is full"):
        save(store, 3)
    assert loaded_epoch(store) == 2
    assert store.names(FOLDER) == ["epoch-000001.pt", "epoch-000002.pt"]


# --- kills --------------------------------------------------------------------------------------------------

# Torch takes seconds to load, so one process loads it and forks the ones that are killed. Each child saves
# without a pause and tells, after each save, which epoch is safe: whatever the moment of the kill, that epoch
# or the one being saved must be loaded.
KILLS = """
import os, random, signal, sys, time
import torch
from hkrun.checkpoints import load_checkpoints, save_checkpoint
from hkrun.store import open_store

torch.set_num_threads(1)
random.seed(int(sys.argv[2]))
store, safe, interrupted = open_store(sys.argv[1]), 0, 0
for _ in range(int(sys.argv[3])):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        for epoch in range(safe + 1, safe + 10_000):
            state = {"epoch": epoch, "weights": torch.full((60_000,), float(epoch))}
            save_checkpoint(store, "0123456789ab", 0, epoch=epoch, state=state)
            os.write(writer, epoch.to_bytes(8, "big"))
    os.close(writer)
    if safe == 0:
        safe = int.from_bytes(os.read(reader, 8), "big")
    time.sleep(random.uniform(0.0, 0.06))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    told = b"".join(iter(lambda: os.read(reader, 1 << 16), b""))
    os.close(reader)
    safe = int.from_bytes(told[-8:], "big") if told else safe
    epoch, state = load_checkpoints(store, "0123456789ab", [0])[0]
    assert epoch in (safe, safe + 1), (epoch, safe)
    assert state["epoch"] == epoch and bool((state["weights"] == epoch).all())
    folder = store.local_path / "cells/0123456789ab/seeds/0/checkpoints"
    interrupted += any(path.name.endswith(".tmp") for path in folder.iterdir())
    assert len(list(folder.iterdir())) <= 7, "what killed writers leave must not pile up"
    safe = epoch
print(interrupted)
"""


@pytest.mark.parametrize("kills", [25, pytest.param(400, marks=pytest.mark.slow)])
def test_a_kill_at_any_moment_leaves_the_last_saved_state(store: Store, kills: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLS, store.uri, "0", str(kills)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= kills // 10  # some of the kills did hit a save half-way


def test_saving_an_epoch_anew_beside_a_good_one_is_safe_at_every_step(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest is damaged, the run repeats its epoch, and dies: the one before must still be loadable."""
    rename = Path.replace
    for step in range(1, 10):
        store.delete(FOLDER)
        save(store, 1, 2)
        damage(folder_of(store) / "epoch-000002.pt", "truncated")
        renames = 0

        def die(self: Path, target: Path, step: int = step) -> Path:
            nonlocal renames
            renames += 1
            if renames == step:
                raise KeyboardInterrupt
            return rename(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", die)
            try:
                save_checkpoint(store, CELL, 3, epoch=2, state=make_state(2) | {"name": OrderedDict(a=1)})
            except KeyboardInterrupt:
                assert loaded_epoch(store) == 1
                continue
        assert loaded_epoch(store) == 2
        break
    assert step > 2


def test_a_checkpoint_of_another_format_is_passed_over(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    save(store, 1)
    monkeypatch.setattr(checkpoints, "FORMAT", checkpoints.FORMAT + 1)
    assert loaded_epoch(store) is None
    assert "epoch-000001.pt is passed over: it is of another version of hkrun" in caplog.text
    save(store, 2)
    assert loaded_epoch(store) == 2
