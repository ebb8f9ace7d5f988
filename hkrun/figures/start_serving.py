"""The program of a process that takes pictures: python -P start_serving.py DESCRIPTOR.

It takes over the paths of the process that has started it, then imports hkrun and waits for orders.
"""

import sys
from multiprocessing.connection import Connection

if __name__ == "__main__":
    connection = Connection(int(sys.argv[1]))
    sys.path[:] = connection.recv()

    from hkrun.figures.pictures import serve

    serve(connection)
