"""Stands in for an agent of Ray's raylet: does nothing until the raylet ends. A program of its own.

See `skip_dashboard` in `starting`; the arguments are the agent's.
"""

import os
import time

if __name__ == "__main__":
    raylet = os.getppid()
    while raylet != 1 and os.getppid() == raylet:  # 1: it has ended already
        time.sleep(1)
