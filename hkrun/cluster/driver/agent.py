"""Stands in for an agent of Ray's raylet: does nothing until the raylet ends. A program of its own.

See `hkrun.cluster.ray_private.skip_dashboard`; the arguments are the agent's.
"""

import os
import time

if __name__ == "__main__":
    raylet = os.getppid()
    while os.getppid() == raylet:
        time.sleep(1)
