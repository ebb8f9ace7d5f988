"""What a process that waits for its first task imports ahead; see `hkrun.cluster.runtime.READY_SETTINGS`.

Importing makes objects by the hundred thousand that stay for good. Looking through them again and again takes
the garbage collector a tenth of the time here, and later of the training: it is kept off, and then told to
leave them alone.
"""

import gc

gc.disable()

import hkrun.cluster.tune  # noqa: E402
import hkrun.trial.run  # noqa: E402
import hkrun.trial.teaching  # noqa: E402, F401

gc.freeze()
gc.enable()
