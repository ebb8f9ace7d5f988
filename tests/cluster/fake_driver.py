"""A driver for tests to interrupt: python fake_driver.py FOLDER WHAT..."""

import sys
from pathlib import Path

from fake_tasks import FakeTask, run

from hkrun.cluster import TaskList, run_tasks
from hkrun.errors import Interrupted


class Silent:
    def taken(self, index):
        pass

    def started(self, index):
        pass

    def progress(self, index, progress):
        pass

    def done(self, index, outcomes):
        pass

    def failed(self, index, message):
        pass


def main(folder: str, *does: str) -> int:
    tasks = [FakeTask(name=f"{what}{index}", does=what, folder=folder) for index, what in enumerate(does)]
    try:
        results = run_tasks(TaskList(tasks=tasks, log_folder=Path(folder) / "logs", function=run), Silent())
    except Interrupted as interrupt:
        Path(folder, "interrupted.txt").write_text(interrupt.message)
        return interrupt.exit_code
    sys.stdout.write(f"{[result.outcomes is not None for result in results]}\n")
    sys.stdout.write(
        f"imports that nobody asked for: {sorted({'mlflow', 'ray', 'torch'} & set(sys.modules))}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
