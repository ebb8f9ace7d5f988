"""Output that nobody reads any more: the command ends, soon and with everything that it started."""

import subprocess
import sys

import pytest
from disturbed import SweepFolder

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(600)]


@pytest.mark.parametrize("last_line", ["Planning ...", "Training the teacher ..."])
def test_a_sweep_piped_into_head_ends_as_interrupted_and_goes_on_later(tmp_path, last_line):
    sweep = SweepFolder(tmp_path)
    sweep.process = subprocess.Popen(
        [sys.executable, "-m", "hkrun", *sweep.command],
        cwd=sweep.folder,
        env=sweep.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert any(line.startswith(last_line) for line in sweep.process.stdout)
        sweep.process.stdout.close()
        assert sweep.wait(timeout_s=120) == 75
        assert sweep.run() == 0, sweep.output()  # nothing holds the sweep
    finally:
        sweep.end()
        sweep.temporary.rmdir()
