"""A data set of one's own, a part of the digits, and what goes wrong in the processes that load it.

Faults are files in the folder `failures` of the working directory, WHAT-WHOSE-EPOCH-OFTEN: the
fault, the seed or "teacher", the epoch after which it happens, and "once" or "always". So this file, which is
part of the configuration, is the same in an undisturbed sweep.
"""

import os
import signal
import sys
import time
from pathlib import Path

import torch

from hkrun.data import Dataset, Split, load_dataset
from hkrun.trial import progress

FOLDER = Path("failures")
EPOCH_S = 0.15  # an epoch takes this much longer, without a processor
IN_WORKER = Path(sys.argv[0]).name == "default_worker.py"

if IN_WORKER and (FOLDER / "import").exists():
    import a_module_that_only_the_driver_has  # noqa: F401


def digits(data_dir: Path | None) -> Dataset:
    """120 digits to train on and 200 to test on."""
    whole = load_dataset("digits", data_dir=data_dir)
    train = Split(whole.train.images[:120], whole.train.labels[:120])
    test = Split(whole.test.images[:200], whole.test.labels[:200])
    return Dataset(name="digits", train=train, test=test, classes=whole.classes)


def kill(run: object) -> None:
    """As a process that runs out of memory ends."""
    os.kill(os.getpid(), signal.SIGKILL)


def crash(run: object) -> None:
    """The same before anything is kept of the epoch."""
    kill(run)


def stop(run: object) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def hang(run: object) -> None:
    time.sleep(3600)


def wrong(run: object) -> None:
    raise ZeroDivisionError("a planted mistake")


def nan(run: object) -> None:
    with torch.no_grad():
        next(run.student.backbone.parameters()).fill_(float("nan"))


def _happens(fault: Path, *, often: str) -> bool:
    """Whether it does, in this process; of several that meet it, one."""
    if often == "always":
        return True
    try:
        fault.unlink()
    except FileNotFoundError:
        return False
    return True


def _epoch_done(watch: progress.Watch, learners: list) -> None:
    _meet("crash-*-*-*", learners)
    _original(watch, learners)
    time.sleep(EPOCH_S)
    _meet("*-*-*-*", learners)


def _meet(faults: str, learners: list) -> None:
    for fault in sorted(FOLDER.glob(faults)):
        what, whose, epoch, often = fault.name.split("-")
        for run in learners:
            at = (str(run.seed) if hasattr(run, "student") else "teacher", len(run.history))
            if at == (whose, int(epoch)) and _happens(fault, often=often):
                globals()[what](run)


if IN_WORKER:
    progress.CHECKPOINT_EVERY_S = 0.0
    _original = progress.Watch.epoch_done
    progress.Watch.epoch_done = _epoch_done
