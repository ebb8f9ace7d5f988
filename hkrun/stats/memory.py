"""Statistics that are asked for again with the same numbers are remembered, within a block.

A report compares the same two cells for a table of its own, for one of the paper's, for a claim and for its
answer, and is written again while most of its runs stay as they were. What a statistic gives follows from its
arguments alone, and from its generator's state: so a digest of these stands for it, whatever asks.
"""

import base64
import contextlib
import dataclasses
import functools
import hashlib
import inspect
import json
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np

P = ParamSpec("P")
R = TypeVar("R")
_TYPES: dict[str, type] = {}  # of results, by name


class Memory:
    """What statistics gave, by a digest of what they were asked.

    Attributes:
        given: Each as JSON can hold it.
        used: The digests of those that were asked for and had an answer.
    """

    def __init__(self) -> None:
        self.given: dict[str, Any] = {}
        self.used: set[str] = set()

    def dump(self) -> str:
        """Those that were asked for, as text."""
        return json.dumps({key: self.given[key] for key in sorted(self.used)})

    def load(self, text: str) -> None:
        """Adds those of a text.

        Raises:
            ValueError: It is no text of `dump`.
        """
        found = json.loads(text)
        if not isinstance(found, dict):
            raise ValueError("no statistics by digest")
        self.given |= found


_memory: ContextVar[Memory | None] = ContextVar("memory", default=None)


@contextlib.contextmanager
def remembering(memory: Memory) -> Iterator[None]:
    """Within the block, statistics that the memory has are taken from it, and the others are added."""
    token = _memory.set(memory)
    try:
        yield
    finally:
        _memory.reset(token)


def remembered(*types: type) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Makes a function of arrays and numbers one that can be remembered.

    Args:
        types: The dataclasses in what it returns, besides arrays, numbers, texts and tuples of these.
    """
    _TYPES.update({kind.__name__: kind for kind in types})

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def asked(*args: P.args, **kwargs: P.kwargs) -> R:
            memory = _memory.get()
            if memory is None:
                return function(*args, **kwargs)
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            generator = bound.arguments.get("generator")
            try:
                key = _digest(function.__name__, bound.arguments)
            except (TypeError, ValueError):  # the function says what is wrong with an argument
                return function(*args, **kwargs)
            with contextlib.suppress(AttributeError, KeyError, TypeError, ValueError):
                result, state = memory.given[key]
                found = cast("R", _decode(result))
                if generator is not None:
                    generator.bit_generator.state = state
                memory.used.add(key)
                return found
            given = function(*args, **kwargs)
            state = None if generator is None else generator.bit_generator.state
            memory.given[key] = [_encode(given), state]
            memory.used.add(key)
            return given

        return asked

    return decorate


def _digest(name: str, arguments: dict[str, Any]) -> str:
    digest = hashlib.sha256(name.encode())
    for argument, value in arguments.items():
        digest.update(f"\0{argument} ".encode())
        if isinstance(value, np.random.Generator):
            digest.update(json.dumps(value.bit_generator.state).encode())
        elif value is None or isinstance(value, str | int | float):
            digest.update(repr(value).encode())
        else:
            array = np.ascontiguousarray(value, dtype=np.float64)
            digest.update(f"{array.shape}".encode())
            digest.update(array.data)
    return digest.hexdigest()


def _encode(value: object) -> Any:
    """JSON with every bit of the numbers: repr of a float gives it back."""
    if dataclasses.is_dataclass(value):
        fields = {spec.name: _encode(getattr(value, spec.name)) for spec in dataclasses.fields(value)}
        return {type(value).__name__: fields}
    if isinstance(value, np.ndarray):
        return {"float64": base64.b64encode(np.ascontiguousarray(value, dtype="<f8").data).decode()}
    return [_encode(each) for each in value] if isinstance(value, tuple) else value


def _decode(value: Any) -> object:
    if isinstance(value, list):
        return tuple(map(_decode, value))
    if not isinstance(value, dict):
        return value
    ((name, inner),) = value.items()
    if name == "float64":
        return np.frombuffer(base64.b64decode(inner), dtype="<f8")
    return _TYPES[name](**{field: _decode(each) for field, each in inner.items()})
