#!/usr/bin/env bash
# Guess: `uv pip compile --generate-hashes --no-deps` writes the same hashes as without --no-deps, for fewer packages.
# Truth: a wheel of a local folder (--find-links) then gets none, without a warning and with exit code 0: uv has not
#        opened it. `uv pip sync --require-hashes` refuses the lock that uv has just written.
# Hurts: who locks single packages against a folder of wheels: without --require-hashes nothing is checked later on.
. "$(dirname "$0")/isolated.bash"
packages uv==0.13.9

python - <<'PYTHON'
import subprocess
import zipfile
from importlib.metadata import version
from pathlib import Path

Path("wheels").mkdir()
with zipfile.ZipFile("wheels/gear-1.0-py3-none-any.whl", "w") as wheel:
    wheel.writestr("gear.py", "")
    wheel.writestr("gear-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: gear\nVersion: 1.0\n")
    wheel.writestr("gear-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr("gear-1.0.dist-info/RECORD", "")


def uv(*arguments, given=""):
    command = ["uv", "pip", *arguments, "--quiet", "--no-index", "--find-links", "wheels"]
    return subprocess.run(command, input=given, capture_output=True, text=True)


def lock(*more):
    done = uv("compile", "-", "--generate-hashes", "--no-header", "--no-annotate", *more, given="gear==1.0\n")
    print(f"{' '.join(more) or 'as it is'}: exit code {done.returncode}, stderr {done.stderr!r}, {done.stdout!r}")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


print(f"uv {version('uv')}")
assert "--hash=sha256:" in lock()
Path("requirements.lock").write_text(lock("--no-deps"))
assert Path("requirements.lock").read_text().strip() == "gear==1.0"
synced = uv("sync", "--require-hashes", "--python", "venv/bin/python", "--dry-run", "requirements.lock")
print(synced.stderr.strip())
assert synced.returncode != 0
assert "all requirements must have a hash" in synced.stderr
PYTHON
