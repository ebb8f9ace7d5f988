"""Where Ray's workers look for modules: among the libraries first, as the driver does.

Ray itself has them look in the driver's working directory before all else, where a numbers.py of the user's
would be taken for Python's by every library that a worker has not imported yet.
"""

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import hkrun
from hkrun.user_parts import DRIVER_FOLDERS


class _Folders(list[str]):
    """What Ray extends by the driver's folders: takes that of hkrun alone, which may be installed nowhere."""

    def extend(self, folders: Iterable[str]) -> None:
        package = Path(hkrun.__file__).resolve().parent
        super().extend(folder for folder in folders if Path(folder, package.name).resolve() == package)


def make_job_config() -> Any:
    """The job config, for `ray.init`, of workers that find libraries first."""
    from ray.job_config import JobConfig

    config = JobConfig()
    config._py_driver_sys_path = _Folders()
    return config


def worker_variables() -> dict[str, str]:
    """The environment variables by which workers find the user's own parts, last: where this process does."""
    libraries = tuple({str(Path(prefix).resolve()) for prefix in (sys.prefix, sys.base_prefix)})
    folders = [str(Path.cwd()), *(str(Path(folder).resolve()) for folder in sys.path)]
    own = [folder for folder in folders if not folder.startswith(libraries)]
    return {DRIVER_FOLDERS: os.pathsep.join(dict.fromkeys(own))}
