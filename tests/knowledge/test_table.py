"""The teacher table: its answers are the live teacher's, however they came about."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hkrun.data.dataset import Dataset
from hkrun.knowledge import LiveTeacher, RowFiles
from hkrun.losses.features import attention_transfer_loss
from hkrun.models import DistilledNetwork, Output
from knowledge.conftest import (
    Batch,
    Counter,
    make_batch,
    make_computer,
    make_images,
    make_network,
    make_reader,
    make_table,
)

PARTS = ("logits", "knowledge", "descriptor")


def same(first: Output, second: Output, parts: tuple[str, ...]) -> bool:
    return all(torch.equal(getattr(first, part), getattr(second, part)) for part in parts)


@pytest.mark.parametrize(
    ("precision", "storage", "tolerance"),
    [
        ("float32", "float32", 1e-5),
        ("float64", "float64", 1e-13),
        ("bfloat16", "float32", 1e-2),
        ("float32", "float16", 2e-3),
    ],
)
def test_answers_equal_the_live_teacher_s_to_rounding(
    tmp_path: Path, dataset: Dataset, precision: str, storage: str, tolerance: float
) -> None:
    dtype = torch.float64 if precision == "float64" else torch.float32
    network = make_network(dtype)
    computer = make_computer(network, PARTS, precision=precision, storage=storage)
    table = make_table(tmp_path, computer, dataset, dtype=storage)
    batch = make_batch(dataset, dtype=dtype)
    live = LiveTeacher(network, precision=precision)(batch)
    for _ in ("computed", "looked up"):
        answer = table(batch)
        for part in PARTS:
            found, expected = getattr(answer, part), getattr(live, part)
            assert found.dtype == dtype
            assert torch.allclose(found, expected, rtol=tolerance, atol=tolerance)


def test_looked_up_answers_need_no_teacher_and_are_those_computed(
    tmp_path: Path, dataset: Dataset, network: DistilledNetwork
) -> None:
    table = make_table(tmp_path, make_computer(network, PARTS), dataset)
    batch = make_batch(dataset)
    computed = table(batch)
    counter = Counter(network)
    assert same(table(batch), computed, PARTS)
    assert counter.passes == 0


def test_an_answer_s_bits_depend_on_its_view_alone(
    tmp_path: Path, dataset: Dataset, network: DistilledNetwork
) -> None:
    computer = make_computer(network, PARTS)
    assert computer.is_steady
    filled = make_table(tmp_path / "filled", computer, dataset)
    shares: list[float] = []
    filled.fill(shares.append)
    assert filled.is_whole
    assert shares == [(number + 1) / len(shares) for number in range(len(shares))]
    filled.fill(shares.append)
    assert shares.count(1.0) == 1, "nothing is missing the second time"
    by_use = make_table(tmp_path / "by_use", computer, dataset)
    never_kept = make_table(tmp_path / "never", computer, dataset, keep=False)
    assert not never_kept.is_whole
    for seed in range(5):
        batch = make_batch(dataset, seed=seed)
        expected = filled(batch)
        assert same(by_use(batch), expected, PARTS)
        assert same(never_kept(batch), expected, PARTS)


def test_a_pack_asks_for_all_its_batches_at_once(
    tmp_path: Path, dataset: Dataset, network: DistilledNetwork
) -> None:
    packed = make_batch(dataset, (3, 8))
    assert packed.image_ids is not None
    assert packed.view_ids is not None
    table = make_table(tmp_path, make_computer(network), dataset)
    for teacher in (table, LiveTeacher(network, precision="float32")):
        answer = teacher(packed)
        assert answer.logits.shape == (3, 8, 10)
        for seed in range(3):
            alone = teacher(Batch(packed.images[seed], packed.image_ids[seed], packed.view_ids[seed]))
            assert torch.allclose(answer.logits[seed], alone.logits, atol=1e-5)
            assert torch.allclose(answer.knowledge[seed], alone.knowledge, atol=1e-5)


def test_a_live_teacher_answers_a_pack_with_every_field(dataset: Dataset, network: DistilledNetwork) -> None:
    packed = make_batch(dataset, (3, 8))
    answer = LiveTeacher(network, precision="float32")(packed)
    with torch.no_grad():
        expected = network(packed.images[1])
    assert torch.allclose(answer.stem[1], expected.stem, atol=1e-6)
    for found, stage in zip(answer.stages, expected.stages, strict=True):
        assert torch.allclose(found[1], stage, atol=1e-5)


def test_each_missing_view_of_a_batch_is_computed_once(tmp_path: Path, network: DistilledNetwork) -> None:
    dataset = make_images(num_images=1)
    computer = make_computer(network)
    assert computer.is_steady
    table = make_table(tmp_path, computer, dataset)
    counter = Counter(network)
    table(make_batch(dataset, (500,)))  # of nine views
    assert counter.passes == 1
    assert table.is_whole


@pytest.mark.parametrize("tap", ["raw", "relu"])
def test_attention_transfer_sees_no_difference_to_the_live_teacher(
    tmp_path: Path, dataset: Dataset, tap: str
) -> None:
    network, student = make_network(torch.float64), make_network(torch.float64, seed=1)
    parts = ("logits", "attention_maps")
    computer = make_computer(network, parts, precision="float64", tap=tap)
    batch = make_batch(dataset, dtype=torch.float64)

    def loss(answer: Output) -> float:
        mine, theirs = student(batch.images).stages, answer.stages
        if tap == "relu":
            mine, theirs = ([maps.relu() for maps in stages] for stages in (mine, theirs))
        return float(attention_transfer_loss(mine, theirs))

    live = loss(LiveTeacher(network, precision="float64")(batch))
    found = loss(make_table(tmp_path, computer, dataset, dtype="float64")(batch))
    assert live > 0
    assert found == pytest.approx(live, rel=1e-12)


def test_filling_goes_on_where_it_was_stopped(
    tmp_path: Path, dataset: Dataset, network: DistilledNetwork
) -> None:
    computer = make_computer(network)
    assert computer.is_steady
    counter = Counter(network)
    first = make_table(tmp_path, computer, dataset)
    calls = 0

    def stop_soon(images: torch.Tensor, views: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return read(images, views)

    read = make_reader(dataset)
    first._read = stop_soon
    with pytest.raises(KeyboardInterrupt):
        first.fill()
    second = make_table(tmp_path, computer, dataset)
    second.fill()
    assert second.is_whole
    assert counter.passes == 3  # 180 rows are three blocks of 64; none was computed twice


FILLER = """
import sys, torch
from pathlib import Path
from knowledge.conftest import make_computer, make_images, make_network, make_table
torch.set_num_threads(1)
dataset, computer = make_images(num_images=300), make_computer(make_network(), ("logits", "knowledge"))
table = make_table(Path(sys.argv[1]), computer, dataset)
read, calls = table._read, 0

def stall(*ids):
    global calls
    calls += 1
    if calls > int(sys.argv[2]):
        print("stalled", flush=True)
        sys.stdin.readline()
    return read(*ids)

table._read = stall
print("ready", flush=True)
sys.stdin.readline()
table.fill()
print(table.is_whole, flush=True)
"""


def start_filler(folder: Path, *, stalls_after: int = 1000) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", FILLER, str(folder), str(stalls_after)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": "tests", "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_filler_that_is_killed_and_two_at_once_end_with_the_same_table(tmp_path: Path) -> None:
    dataset, network = make_images(num_images=300), make_network()
    computer = make_computer(network)
    alone = make_table(tmp_path / "alone", computer, dataset)
    alone.fill()

    killed = start_filler(tmp_path / "shared", stalls_after=5)
    assert killed.stdin is not None
    assert killed.stdout is not None
    killed.stdin.write("go\n")
    killed.stdin.flush()
    assert killed.stdout.readline() == "stalled\n"
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not make_table(tmp_path / "shared", computer, dataset).is_whole

    other = start_filler(tmp_path / "shared")
    assert other.stdin is not None
    other.stdin.write("go\n")
    other.stdin.flush()
    table = make_table(tmp_path / "shared", computer, dataset)
    table.fill()
    assert table.is_whole
    assert other.communicate(timeout=120)[0] == "True\n"
    for part in ("logits", "knowledge"):
        for name in ("rows", "sums"):
            expected = (tmp_path / "alone" / part / name).read_bytes()
            assert (tmp_path / "shared" / part / name).read_bytes() == expected


def test_a_damaged_row_is_computed_anew_and_said_once(
    tmp_path: Path, dataset: Dataset, network: DistilledNetwork, caplog: pytest.LogCaptureFixture
) -> None:
    computer = make_computer(network)
    batch = make_batch(dataset)
    expected = make_table(tmp_path, computer, dataset)(batch)
    path = tmp_path / "logits" / "rows"
    content = bytearray(path.read_bytes())
    content = bytearray(byte ^ 1 if byte else 0 for byte in content)
    path.write_bytes(content)
    table = make_table(tmp_path, computer, dataset)
    assert same(table(batch), expected, ("logits", "knowledge"))
    (alarm,) = table.take_alarms()
    assert "damaged row(s) of the teacher table were computed anew" in alarm
    assert "damaged" in caplog.text
    assert same(table(batch), expected, ("logits", "knowledge"))
    assert table.take_alarms() == []


def test_a_table_that_takes_no_more_rows_leaves_every_answer_as_it_would_be(
    tmp_path: Path, dataset: Dataset, network: DistilledNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    computer = make_computer(network)
    expected = make_table(tmp_path / "whole", computer, dataset)
    expected.fill()

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(RowFiles, "write", refuse)
    full = make_table(tmp_path / "full", computer, dataset)
    full.fill()
    for seed in range(2):
        batch = make_batch(dataset, seed=seed)
        assert same(full(batch), expected(batch), ("logits", "knowledge"))
    for _ in range(2):  # every run from here on
        (alarm,) = full.take_alarms()
        assert alarm == "the teacher table takes no more rows, the teacher runs live: No space left on device"


@pytest.mark.parametrize("sign", [1, -1])
def test_numbers_beyond_float16_are_clipped_and_each_run_that_reads_them_says_so(
    tmp_path: Path, dataset: Dataset, sign: int
) -> None:
    clipping, other = make_network(), make_network()
    clipping.backbone.classifier.bias += sign * 1e6
    other.backbone.classifier.bias += sign * 6e4  # large, but in the range
    expected = "numbers beyond the range of float16 were clipped; use teacher_table = float32"
    for network, alarms in ((clipping, [expected]), (other, [])):
        folder = tmp_path / str(len(alarms))
        filling = make_table(folder, make_computer(network, storage="float16"), dataset, dtype="float16")
        filling.fill()
        reading = make_table(folder, make_computer(network, storage="float16"), dataset, dtype="float16")
        for table in (filling, reading):
            assert table.take_alarms() == []  # no run was told any of them
            for _ in range(2):
                largest = float(table(make_batch(dataset)).logits.abs().max())
                assert (largest == np.finfo(np.float16).max) == bool(alarms)
                assert table.take_alarms() == alarms


class Unsteady(DistilledNetwork):
    """Its answer depends on an image's place in the pass."""

    def forward(self, images: torch.Tensor) -> Output:
        output = super().forward(images)
        return output._replace(logits=output.logits + torch.arange(len(images))[:, None])


def test_rows_of_a_teacher_that_is_not_steady_are_those_of_the_fixed_order(
    tmp_path: Path, dataset: Dataset, network: DistilledNetwork
) -> None:
    unsteady = Unsteady(network.backbone, network.attention)
    unsteady.eval()
    computer = make_computer(unsteady, ("logits",))
    assert not computer.is_steady
    filled = make_table(tmp_path, computer, dataset)
    filled.fill()
    whole = {name: (tmp_path / "logits" / name).read_bytes() for name in ("rows", "sums")}
    damaged = tmp_path / "logits" / "rows"
    damaged.write_bytes(bytes(len(whole["rows"])))
    mended = make_table(tmp_path, computer, dataset)
    for seed in range(20):
        mended(make_batch(dataset, seed=seed))
    batch = make_batch(dataset)
    ids = (batch.image_ids * 9 + batch.view_ids).numpy()
    expected = np.frombuffer(whole["rows"], np.float32).reshape(-1, 10)[ids]
    assert np.array_equal(mended(batch).logits.numpy(), expected)
