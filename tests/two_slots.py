"""A machine on which two tasks run at a time; apart, because importing it takes Ray."""

from hkrun.cluster.nodes.resources import Node
from hkrun.sweep.machine import Machine

TWO_SLOTS = Machine(nodes=(Node(cpus=2, gpus=0, memory_bytes=64 << 30),))
