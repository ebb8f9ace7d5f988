"""The name of this machine's processor, and what it can do."""

import platform
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")  # of Linux


# Linux's names of instructions that multiply in bfloat16.
BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})


def processor_name() -> str:
    """The model as the system gives it, else the architecture."""
    models = _read("model name")
    return models[0] if models else platform.machine()


def multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for products in bfloat16; without them these are slow."""
    return any(BFLOAT16_FLAGS & set(flags.split()) for flags in _read("flags")[:1])


def _read(name: str) -> list[str]:
    """What the system says under a name, of each processor."""
    try:
        lines = CPU_INFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    return [line.partition(":")[2].strip() for line in lines if line.startswith(name)]
