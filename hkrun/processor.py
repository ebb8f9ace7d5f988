"""The name of this machine's processor."""

import platform
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")  # of Linux


def processor_name() -> str:
    """The model as the system gives it, else the architecture."""
    try:
        lines = CPU_INFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
