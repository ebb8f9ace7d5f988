"""How long `hkrun sweep stability` takes from the command to the end of the first epoch, phase by phase.

The sweep is stopped there. The last line is a JSON object, so that two revisions can be compared:

    python benchmarks/against.py 0e88808 "{python} {here}/benchmarks/first_epoch.py {folder}/store"
"""

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hkrun.sweep.progress import Phase


def command_began_s() -> float:
    """When this process was started, by the clock that counts from the machine's start."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Runs the command in this process, and prints what passed until each phase began."""
    began_s = command_began_s()
    sys.argv = ["hkrun", "sweep", "stability", "--store", sys.argv[1]]
    from hkrun.cli import display
    from hkrun.cli import main as run_command

    figures: dict[str, float] = {}

    def note(what: str) -> None:
        figures.setdefault(what, round(time.clock_gettime(time.CLOCK_BOOTTIME) - began_s, 3))

    class Watch(display.Display):
        """Notes the phases, and ends the command with the first epoch."""

        def entered(self, phase: "Phase") -> None:
            note(f"until {phase}, s")
            super().entered(phase)

        def progressed(self, task: object, progress: Mapping[str, object]) -> None:  # noqa: ARG002
            if progress["epoch"]:
                note("until the first epoch, s")
                raise KeyboardInterrupt("the first epoch")

    display.Display = Watch  # type: ignore[misc]
    try:
        run_command()
    except SystemExit as end:
        if "until the first epoch, s" not in figures:
            raise SystemExit(f"no epoch: the command ended with {end.code}") from end
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
