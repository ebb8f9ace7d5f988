"""The lock of a set-up without CUDA: `make setup TORCH=cpu`.

    python cpu_lock.py UV REQUIREMENTS.LOCK CPU.LOCK [INDEX]

torch and torchvision are those of the lock's versions as PyTorch's index of CPU builds has them, or the index at
the URL INDEX, with the SHA-256 sums that it states. What only their CUDA builds need is left out; every other
line is the lock's own, with its sums.
"""

import re
import subprocess
import sys
from pathlib import Path

BUILDS = ("torch", "torchvision")
OF_CUDA = re.compile(r"nvidia-|cuda-|triton$")
UNUSABLE = (
    "The CPU builds of torch cannot be had: {reason}. Go on with those for CUDA, which run without a GPU too, 7 GB: "
    "make setup TORCH=   Or name another index that has them: TORCH_INDEX=URL"
)


def split_lock(text: str) -> dict[str, str]:
    """The blocks of a lock by the name of their package; one of several versions has them all."""
    blocks: dict[str, str] = {}
    for block in re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE):
        if found := re.match(r"[a-z0-9][a-z0-9._-]*", block):
            blocks[found[0]] = blocks.get(found[0], "") + block
    return blocks


def find_builds(uv: str, blocks: dict[str, str], index: str) -> str:
    """The blocks of torch and torchvision, of the lock's versions, from the index of CPU builds."""
    wanted = "".join(re.match(r"[a-z]+==[^ ]+", blocks[name])[0] + "\n" for name in BUILDS)
    where = ["--default-index", index] if index else ["--torch-backend", "cpu"]
    command = [uv, "pip", "compile", "-", "--quiet", "--no-deps", "--generate-hashes", "--no-header"]
    command += ["--no-annotate", "--no-emit-index-url", "--python", sys.executable, *where]
    done = subprocess.run(command, input=wanted, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(UNUSABLE.format(reason=_find_reason(done.stderr)))
    if not all("--hash=sha256:" in block for block in split_lock(done.stdout).values()):
        raise SystemExit(UNUSABLE.format(reason="their index states no SHA-256 sums"))
    return done.stdout


def _find_reason(told: str) -> str:
    """What stopped uv, in a few words: the first cause of a request, else its last line."""
    lines = [re.sub(r"^\W*(error|cause|hint)?:? *", "", line.strip()) for line in told.splitlines() if line.strip()]
    fetched = next((line for line in lines if line.startswith("Failed to fetch")), None)
    return fetched or " ".join(lines)[:300] or "uv says nothing"


def main(uv: str, lock: str, target: str, index: str = "") -> None:
    """Writes the lock without CUDA."""
    blocks = split_lock(Path(lock).read_text(encoding="utf-8"))
    kept = [block for name, block in blocks.items() if name not in BUILDS and not OF_CUDA.match(name)]
    builds = find_builds(uv, blocks, index)
    Path(target).write_text(builds + "".join(kept), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
