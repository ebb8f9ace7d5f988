"""The program of a driver's process: python -P start_driver.py DESCRIPTOR.

It takes over the paths of the process that has started it, then imports hkrun and does what is asked.
"""

import sys
from multiprocessing.connection import Connection

if __name__ == "__main__":
    connection = Connection(int(sys.argv[1]))
    sys.path[:] = connection.recv()

    from hkrun.cluster.driver.process import serve

    serve(connection)
