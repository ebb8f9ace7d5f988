"""What a process that waits for its first task imports ahead; see `ray_private.PRELOAD_SETTINGS`.

It does so before Ray tells it where the driver's modules are: where that is not the hkrun that would be found
here, nothing is imported ahead, and the task finds its own.

Importing makes objects by the hundred thousand that stay for good, and looking through them again and again
takes the garbage collector a tenth of the time: it is kept off, and then told to leave them alone.
"""

import gc
import os
import sys
from pathlib import Path

import hkrun
from hkrun.cluster.ray_private import PRELOAD_FROM_VARIABLE

gc.disable()
try:
    if os.environ.get(PRELOAD_FROM_VARIABLE) != str(Path(hkrun.__file__).parent):
        for name in [name for name in sys.modules if name.partition(".")[0] == "hkrun"]:
            del sys.modules[name]
        raise ImportError(
            f"the driver's hkrun is at {os.environ.get(PRELOAD_FROM_VARIABLE)}, not at {hkrun.__file__}"
        )
    import hkrun.cluster.trials.tune
    import hkrun.trial.run
    import hkrun.trial.teacher_task
except ImportError:
    raise
except Exception as error:
    # Ray lets only an ImportError pass, and the task that imports the same will say what is wrong.
    raise ImportError(str(error)) from error
else:
    gc.freeze()
finally:
    gc.enable()
