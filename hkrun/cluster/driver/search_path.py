"""Makes Ray's workers look for modules among the libraries first, as the driver does.

Ray has them look in the driver's working directory first, where a numbers.py of the user's would be taken for
Python's by every library that a worker has not imported yet.
"""

import os
import sys
from pathlib import Path
from typing import Any

import hkrun
from hkrun.cluster import ray_private
from hkrun.user_parts import DRIVER_FOLDERS


def make_job_config() -> Any:
    """The job config, for `ray.init`, of workers that find libraries first.

    Of the driver's folders they take that of hkrun alone, which may be installed nowhere.
    """
    package = Path(hkrun.__file__).resolve().parent
    return ray_private.job_config(lambda folder: Path(folder, package.name).resolve() == package)


def worker_variables() -> dict[str, str]:
    """The environment variables by which workers find the user's own parts where this process does."""
    libraries = tuple({str(Path(prefix).resolve()) for prefix in (sys.prefix, sys.base_prefix)})
    folders = [str(Path.cwd()), *(str(Path(folder).resolve()) for folder in sys.path)]
    own = [folder for folder in folders if not folder.startswith(libraries)]
    return {DRIVER_FOLDERS: os.pathsep.join(dict.fromkeys(own))}
