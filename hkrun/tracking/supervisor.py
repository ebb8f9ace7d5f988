"""Runs a command until it ends or its parent is gone, however that went. A program of its own.

    python supervisor.py COMMAND...

must lead a process group of its own: once its stdin ends, which the kernel closes with the parent, it ends
the whole group. It fails where the command does.
"""

import os
import signal
import subprocess
import sys
import threading
import time

PATIENCE_S = 5.0


def end_with_parent() -> None:
    """Waits for the end of stdin, then ends every process of the group, this one last."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.killpg(0, signal.SIGTERM)
    time.sleep(PATIENCE_S)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    # A SIGTERM to the group is for the command, which is waited for. A handler, because the command would
    # inherit a signal that is ignored.
    signal.signal(signal.SIGTERM, lambda *_: None)
    watch = threading.Thread(target=end_with_parent, daemon=True)
    command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    watch.start()
    sys.exit(command.wait() and 1)
