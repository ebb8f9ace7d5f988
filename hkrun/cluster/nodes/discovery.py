"""Which nodes a Ray cluster has, what each offers, and which of them still answer."""

import contextlib
import dataclasses
import logging
import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hkrun.cluster.nodes.resources import Node, look_at_gpus

logger = logging.getLogger(__name__)

# A node whose raylet was killed refuses at once, a lost one does not answer; Ray takes longer to notice.
ANSWER_WITHIN_S = 1.0
MAX_CALLS = 32
# A process that imports torch, on a busy node.
LOOK_WITHIN_S = 120.0


def read_nodes() -> list[Node]:
    """The nodes that Ray believes to be alive."""
    return [_to_node(node) for node in _alive()]


def find_answering() -> list[Node]:
    """Those of them that answer, without nodes that were lost a moment ago."""
    alive = _alive()
    with ThreadPoolExecutor(max_workers=min(MAX_CALLS, max(1, len(alive)))) as pool:
        answers = list(pool.map(_answers, alive))
    return [_to_node(node) for node, answer in zip(alive, answers, strict=True) if answer]


def look_closer(nodes: Sequence[Node]) -> list[Node]:
    """The nodes, with only the GPUs that torch can use there."""
    look = ray.remote(num_cpus=0)(look_at_gpus)
    answers = {
        node.name: look.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.name, soft=False)
        ).remote()
        for node in nodes
        if node.gpus
    }
    return [_with_gpus(node, answers[node.name]) if node.name in answers else node for node in nodes]


def _with_gpus(node: Node, answer: "ray.ObjectRef[tuple[int, int]]") -> Node:
    try:
        number, memory_bytes = ray.get(answer, timeout=LOOK_WITHIN_S)
    except ray.exceptions.RayError as error:
        logger.warning("the GPUs of node %s cannot be looked at: %s", node.name, error)
        number, memory_bytes = 0, 0
    return dataclasses.replace(node, gpus=min(node.gpus, number), gpu_memory_bytes=memory_bytes)


def _alive() -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in nodes if node["Alive"]]


def _answers(node: Mapping[str, Any]) -> bool:
    with contextlib.suppress(OSError):
        address = node["NodeManagerAddress"], node["NodeManagerPort"]
        socket.create_connection(address, timeout=ANSWER_WITHIN_S).close()
        return True
    return False


def _to_node(node: Mapping[str, Any]) -> Node:
    resources = node["Resources"]
    return Node(
        cpus=int(resources.get("CPU", 0)),
        gpus=int(resources.get("GPU", 0)),
        memory_bytes=int(resources.get("memory", 0)),
        name=node["NodeID"],
    )
