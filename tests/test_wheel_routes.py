"""The wheel as people install it, with `uv tool` and with pipx, and used away from the clone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import hkrun

REPOSITORY = Path(__file__).parents[1]
UV = Path(sys.executable).with_name("uv")
PIPX = "pipx==1.18.4"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not UV.is_file(), reason="uv comes with make setup"),
]


def run(*command, folder, environment, code=0):
    """What a command prints that ends with this exit code."""
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built as docs/install.md says."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [UV, "build", "--quiet", "--wheel", "--out-dir", folder]
    command += ["--build-constraints", REPOSITORY / "build.lock", REPOSITORY]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "hatchling" in done.stderr and "fetch" in done.stderr:
        pytest.skip("the build backend cannot be fetched here")
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(params=["uv tool", "pipx"])
def installed(request, wheel, tmp_path):
    """Where a tool has put hkrun, in the versions of the lock; an environment without the clone."""
    places = {
        "HOME": tmp_path / "home",
        "UV_TOOL_DIR": tmp_path / "tools",
        "UV_TOOL_BIN_DIR": tmp_path / "bin",
        "PIPX_HOME": tmp_path / "pipx",
        "PIPX_BIN_DIR": tmp_path / "bin",
        "PIPX_MAN_DIR": tmp_path / "man",
    }
    kept = {name: value for name, value in os.environ.items() if name.startswith(("UV_", "PIP_", "SSL_"))}
    cache = subprocess.run([UV, "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
    path = f"{UV.parent}:/usr/local/bin:/usr/bin:/bin"  # pipx looks for uv there
    environment = {**kept, **{name: str(place) for name, place in places.items()}, "PATH": path}
    environment["UV_CACHE_DIR"] = cache
    lock = REPOSITORY / "requirements.lock"
    python = ["--python", sys.executable]
    commands = {
        "uv tool": [UV, "tool", "install", "--quiet", *python, "--constraints", lock, wheel],
        "pipx": [
            *(UV, "tool", "run", "--quiet", "--from", PIPX, "pipx", "install", "--quiet", "--backend", "uv"),
            *(*python, "--pip-args", f"--constraint {lock}", wheel),
        ],
    }
    (tmp_path / "home").mkdir()
    run(*commands[request.param], folder=tmp_path, environment=environment)
    return tmp_path / "bin/hkrun", environment


def test_a_wheel_is_installed_and_used_away_from_the_clone(installed, tmp_path):
    command, environment = installed
    place = tmp_path / "elsewhere"
    place.mkdir()

    def call(*arguments, code=0):
        return run(command, *arguments, folder=place, environment=environment, code=code)

    build = json.loads(call("--version", "--json"))
    assert (build["hkrun"], build["commit"], build["numbers"]) == (hkrun.__version__, None, "epoch 1")
    assert all(build[name] for name in ("torch", "ray", "mlflow"))
    assert "stability" in call("spaces")
    plan = json.loads(call("sweep", "stability", "--dry-run", "--json"))
    assert (plan["runs"], plan["to_run"]) == (80, 80)
    checks = {check["name"]: check["state"] for check in json.loads(call("doctor", "--json"))["checks"]}
    assert {checks[name] for name in ("Python", "PyTorch", "Ray", "MLflow", "Data digits")} == {"ok"}
    assert call("completion", "bash").startswith("# Completion of hkrun for bash")
    assert list(place.iterdir()) == []
