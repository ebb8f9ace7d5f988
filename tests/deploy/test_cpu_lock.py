"""The set-up without CUDA, from an index of made-up wheels: PyTorch's own is not asked."""

import hashlib
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
from ports import free_port

REPOSITORY = Path(__file__).parents[2]
SCRIPT = REPOSITORY / "deploy/cpu_lock.py"
UV = Path(sys.executable).with_name("uv")
pytestmark = pytest.mark.skipif(not UV.is_file(), reason="uv comes with make setup")


def make_wheel(folder, name, version):
    """A wheel that can be installed; its SHA-256 sum."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}.py", f"version = {version!r}\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def index(tmp_path):
    """The URL of an index with torch and torchvision of the lock's versions without CUDA, and filelock."""
    root = tmp_path / "index"
    locked = (REPOSITORY / "requirements.lock").read_text()
    versions = {
        name: re.search(rf"^{name}==(\S+)", locked, re.MULTILINE)[1] for name in ("torch", "torchvision")
    }
    for name, version in (*((name, f"{text}+cpu") for name, text in versions.items()), ("filelock", "3.0")):
        (root / name).mkdir(parents=True)
        digest = make_wheel(root / name, name, version)
        file = f"{name}-{version}-py3-none-any.whl"
        (root / name / "index.html").write_text(f'<a href="{file}#sha256={digest}">{file}</a>')
    handler = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *given: handler(*given, directory=str(root))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def make_lock(tmp_path, index, lock=REPOSITORY / "requirements.lock"):
    command = [sys.executable, SCRIPT, UV, lock, tmp_path / "cpu.lock", index]
    once = os.environ | {"UV_HTTP_RETRIES": "0"}  # what does not answer is asked again for seconds
    return subprocess.run(command, env=once, capture_output=True, text=True, check=False)


def blocks(path):
    return re.split(r"^(?=[a-z0-9])", path.read_text(), flags=re.MULTILINE)[1:]


def test_only_torch_is_replaced_and_only_what_its_cuda_builds_need_goes(index, tmp_path):
    done = make_lock(tmp_path, index)
    assert (done.returncode, done.stderr) == (0, "")
    before, after = blocks(REPOSITORY / "requirements.lock"), blocks(tmp_path / "cpu.lock")
    gone = {block for block in before if block not in after}
    names = {re.match(r"[a-z0-9-]+", block)[0] for block in gone}
    assert {"torch", "torchvision", "triton", "nvidia-cudnn-cu13", "cuda-toolkit"} <= names
    others = {name for name in names if not name.startswith(("nvidia-", "cuda-"))}
    assert others == {"torch", "torchvision", "triton"}
    new = [block for block in after if block not in before]
    assert [block.partition("==")[0] for block in new] == ["torch", "torchvision"]
    for block in new:
        (wheel,) = (tmp_path / "index" / block.partition("==")[0]).glob("*.whl")
        assert "+cpu" in block.splitlines()[0]
        assert hashlib.sha256(wheel.read_bytes()).hexdigest() in block


@pytest.mark.parametrize("tampered", [None, "torch", "filelock"])
def test_what_is_installed_has_the_sums_of_the_lock(tampered, index, tmp_path):
    (wheel,) = (tmp_path / "index/filelock").glob("*.whl")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    torch = "".join(
        block for block in blocks(REPOSITORY / "requirements.lock") if re.match("torch(vision)?==", block)
    )
    nvidia = f"nvidia-nvtx==1.0 \\\n    --hash=sha256:{'0' * 64}\n"
    (tmp_path / "small.lock").write_text(
        f"filelock==3.0 \\\n    --hash=sha256:{digest}\n    # via torch\n{nvidia}{torch}"
    )
    assert make_lock(tmp_path, index, tmp_path / "small.lock").returncode == 0
    if tampered:
        (target,) = (tmp_path / "index" / tampered).glob("*.whl")
        with zipfile.ZipFile(target, "a") as archive:
            archive.writestr("more.py", "")
        page = target.parent / "index.html"
        now = hashlib.sha256(target.read_bytes()).hexdigest()
        page.write_text(re.sub("sha256=[0-9a-f]+", f"sha256={now}", page.read_text()))
    environment = {"UV_CACHE_DIR": str(tmp_path / "cache"), "PATH": "/usr/bin:/bin"}
    subprocess.run([UV, "venv", "-q", "--python", sys.executable, tmp_path / "venv"], check=True)
    install = [UV, "pip", "sync", "--quiet", "--python", tmp_path / "venv/bin/python", "--require-hashes"]
    install += ["--default-index", index, tmp_path / "cpu.lock"]
    done = subprocess.run(install, env=environment, capture_output=True, text=True, check=False)
    if tampered:
        assert done.returncode != 0
        assert "Hash mismatch" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    code = "import torch, torchvision, filelock; print(torch.version)"
    told = subprocess.run(
        [tmp_path / "venv/bin/python", "-c", code], capture_output=True, text=True, check=True
    )
    assert told.stdout.endswith("+cpu\n")


def test_without_the_index_one_line_says_how_to_go_on(tmp_path):
    done = make_lock(tmp_path, f"http://127.0.0.1:{free_port()}")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert re.match(r"The CPU builds of torch cannot be had: Failed to fetch: http://127\.0\.0\.1", line)
    assert "make setup TORCH=" in line
    assert "TORCH_INDEX=URL" in line
    assert not (tmp_path / "cpu.lock").exists()


def test_an_index_without_sums_is_not_used(index, tmp_path):
    for page in (tmp_path / "index").glob("torch*/index.html"):
        page.write_text(re.sub("#sha256=[0-9a-f]+", "", page.read_text()))
    done = make_lock(tmp_path, index)
    assert done.returncode == 1
    assert "their index states no SHA-256 sums" in done.stderr
    assert not (tmp_path / "cpu.lock").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["TORCH=cpu"], "--require-hashes --torch-backend cpu .venv/cpu.lock"),
        (
            ["TORCH=cpu", "TORCH_INDEX=http://x/simple"],
            "--require-hashes --index http://x/simple --index-strategy unsafe-best-match .venv/cpu.lock",
        ),
        ([], "--require-hashes  requirements.lock"),
    ],
)
@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_installs_from_the_lock_that_torch_asks_for(arguments, told, tmp_path):
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    for name in ("requirements.lock", "build.lock", "pyproject.toml"):
        (tmp_path / name).touch()
    command = ["make", "--dry-run", "stability", *arguments]
    planned = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert told in planned
    assert ("deploy/cpu_lock.py" in planned) == bool(arguments)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/.synced-cpu").touch()  # what was set up without CUDA stays so
    planned = subprocess.run(["make", "-n", "test"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ".venv/cpu.lock" in planned.stdout or "sync" not in planned.stdout
    done = subprocess.run(
        ["make", "-n", "TORCH=gpu"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "TORCH is cpu, or empty for the builds with CUDA, and not gpu" in done.stderr
