"""Kernels that were compiled before are those of the source as it is."""

import shutil
import subprocess
import sys
from pathlib import Path

import hkrun.models

OUTER = """
import numpy as np
from compiling import compiled
from inner_kernels import add

@compiled
def total(numbers, sums):
    add(numbers, sums)

sums = np.zeros(1)
total(np.arange(4.0), sums)
print(sums[0], sum(total.stats.cache_hits.values()))
"""
INNER = """
from compiling import compiled

@compiled
def add(numbers, sums):
    for number in numbers:
        sums[0] += {factor} * number
"""

AHEAD = """
import torch
from hkrun.models import DistilledNetwork, block_kernels, build_network, image_kernels
from hkrun.models.packed import PackedNetwork
from hkrun.models.small_blocks import compile_ahead

def count():
    kernels = [*vars(image_kernels).values(), *vars(block_kernels).values()]
    return sum(len(kernel.signatures) for kernel in kernels if hasattr(kernel, "signatures"))

compile_ahead()
ahead = count()
backbones = [build_network("preact-8-w4", num_classes=10, in_channels=1) for _ in range(2)]
packed = PackedNetwork([DistilledNetwork(backbone) for backbone in backbones])
packed(torch.randn(2, 5, 1, 8, 8))[0].logits.sum().backward()
with torch.no_grad():
    packed.eval().classify(torch.randn(3, 1, 8, 8))
print(ahead > 0, count() - ahead)
"""


def run_python(*arguments: str, cwd: Path) -> str:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True).stdout


def test_what_a_pack_in_float32_takes_is_compiled_ahead(tmp_path: Path) -> None:
    assert run_python("-c", AHEAD, cwd=tmp_path) == "True 0\n"


def test_a_kernel_is_compiled_anew_where_one_of_another_module_has_changed(tmp_path: Path) -> None:
    shutil.copy(Path(hkrun.models.__path__[0]) / "compiling.py", tmp_path)
    (tmp_path / "outer_kernels.py").write_text(OUTER)

    def run(factor: int) -> str:
        (tmp_path / "inner_kernels.py").write_text(INNER.format(factor=factor))
        return run_python("-B", "outer_kernels.py", cwd=tmp_path)  # changed within a second, it is read anew

    assert run(1) == "6.0 0\n"
    assert run(1) == "6.0 1\n"  # what was kept
    assert run(2) == "12.0 0\n"
