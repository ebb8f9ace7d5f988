"""Bytes by key for all processes of a job, and whether the head of the cluster answers."""

import inspect
import socket
from contextlib import suppress
from typing import Any, ClassVar

from hkrun.cluster.ray_private.finding import do_without, find

ANSWER_WITHIN_S, HEAD_ANSWERS_WITHIN_S = 2, 10


class GcsStore:
    """Bytes by key for all processes of a job, in the GCS. RayError where it does not answer."""

    NAMESPACE = b"hkrun"
    METHODS: ClassVar = {
        "internal_kv_put": ("key", "value", "overwrite", "namespace", "timeout"),
        "internal_kv_keys": ("prefix", "namespace", "timeout"),
        "internal_kv_multi_get": ("keys", "namespace", "timeout"),
        "internal_kv_del": ("key", "del_by_prefix", "namespace", "timeout"),
    }
    _OPTIONS: ClassVar = {"namespace": NAMESPACE, "timeout": ANSWER_WITHIN_S}

    def __init__(self, client: Any) -> None:
        self._client = client

    def put(self, key: str, value: bytes) -> None:
        """Sets a value."""
        self._client.internal_kv_put(key=key.encode(), value=value, overwrite=True, **self._OPTIONS)

    def read(self, prefix: str) -> dict[str, bytes]:
        """All values whose keys begin with a prefix."""
        keys = self._client.internal_kv_keys(prefix=prefix.encode(), **self._OPTIONS)
        found = self._client.internal_kv_multi_get(keys=keys, **self._OPTIONS) if keys else {}
        return {key.decode(): value for key, value in found.items()}

    def remove(self, key: str, *, below: bool) -> None:
        """Removes a value, or all whose keys begin with the key."""
        self._client.internal_kv_del(key=key.encode(), del_by_prefix=below, **self._OPTIONS)


class _Values:
    """The actor of an `ActorStore`."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}

    def put(self, key: str, value: bytes) -> None:
        self._values[key] = value

    def read(self, prefix: str) -> dict[str, bytes]:
        return {key: value for key, value in self._values.items() if key.startswith(prefix)}

    def remove(self, key: str, below: bool) -> None:
        gone = self.read(key) if below else [key]
        self._values = {name: value for name, value in self._values.items() if name not in gone}


class ActorStore:
    """The same in an actor, which costs a process. The driver, which reads, starts it."""

    NAME = "hkrun-store"  # in the namespace of the job
    _owned: Any = None  # the actor ends with its driver's last reference

    def put(self, key: str, value: bytes) -> None:
        """See `GcsStore`."""
        self._ask("put", key, value)

    def read(self, prefix: str) -> dict[str, bytes]:
        """See `GcsStore`."""
        import ray

        options = {"num_cpus": 0, "name": self.NAME, "get_if_exists": True}
        ActorStore._owned = ray.remote(_Values).options(**options).remote()
        found: dict[str, bytes] = self._ask("read", prefix)
        return found

    def remove(self, key: str, *, below: bool) -> None:
        """See `GcsStore`."""
        self._ask("remove", key, below)

    def _ask(self, method: str, *arguments: object) -> Any:
        import ray

        with suppress(ValueError):  # the driver has not started it yet
            actor = ray.get_actor(self.NAME)
            return ray.get(getattr(actor, method).remote(*arguments), timeout=ANSWER_WITHIN_S)


def key_value_store() -> GcsStore | ActorStore:
    """What the processes of a job share, for the watchdog."""
    client = _find_gcs_client()
    return ActorStore() if client is None else GcsStore(client)


def head_answers() -> bool:
    """Whether the head of the cluster answers; without a GCS client, whether it takes a connection."""
    import ray

    client = _find_gcs_client()
    try:
        if client is not None:
            namespace = GcsStore.NAMESPACE
            client.internal_kv_keys(prefix=namespace, namespace=namespace, timeout=HEAD_ANSWERS_WITHIN_S)
        else:
            host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), timeout=HEAD_ANSWERS_WITHIN_S).close()
    except (ray.exceptions.RayError, OSError):
        return False
    return True


def _find_gcs_client() -> Any:
    """This process's connection to the GCS; None where Ray has none with a key-value store."""
    name, consequence = "internal_kv_get_gcs_client", "the pulses of processes go through an actor"
    found = find("ray.experimental.internal_kv", name, consequence=consequence)
    try:
        client = found and found.internal_kv_get_gcs_client()
        if client:  # all four or none: what one process puts, another reads
            for method, names in GcsStore.METHODS.items():
                inspect.signature(getattr(client, method)).bind(**dict.fromkeys(names))
    except (AttributeError, TypeError, ValueError):
        calls = (f"{method}({', '.join(names)})" for method, names in GcsStore.METHODS.items())
        do_without(f"GcsClient.{' and '.join(calls)}", consequence)
        return None
    return client
