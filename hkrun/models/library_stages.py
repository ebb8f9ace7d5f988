"""Where the stages of a library's network end, found by running it once and watching its modules.

A module that lowers the resolution, and none of whose parts lowers it further, divides the network. What lies
between two of them and has a convolution is a stage. Before the stages comes the stem: the first convolution,
or the block that it is in. Of more than four stages the last four are taken, as many as ResNets have, and
what enters the first of them is the stem's output.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from torch import Tensor, nn

from hkrun.errors import InputError

_MOST_STAGES = 4
PROBED_SIDE = 224


class Tap(NamedTuple):
    """A value in a network: the input or the output of a module, when it is called for the n-th time.

    Where the network changes the value in place later on, as DenseNets do, it is `copied` before.
    """

    path: str
    is_input: bool
    call: int
    copied: bool = False


class Call(NamedTuple):
    """A call of a module: its n-th, and when it began and ended."""

    path: str
    module: Any
    number: int
    begin: int
    end: int
    input: Any
    output: Any
    versions: tuple[int | None, int | None]  # torch's counts of their changes in place

    @property
    def levels(self) -> tuple[int | None, int | None]:
        """How often the sides of its input and of its output were halved; None where they are no maps."""
        return _level(self.input), _level(self.output)

    @property
    def reduces(self) -> bool:
        """Whether a map goes in and a smaller one comes out."""
        before, after = self.levels
        return before is not None and after is not None and after > before

    def holds(self, other: "Call") -> bool:
        """Whether the other call was a part of this one."""
        return self.begin < other.begin and other.end < self.end


class Value(NamedTuple):
    """A value of the watched run, and where it is."""

    tap: Tap
    value: Tensor


class Stage(NamedTuple):
    """What enters a stage, and what leaves it."""

    entry: Value
    exit: Value


def watch(network: nn.Module, images: Tensor) -> tuple[list[Call], Any]:
    """Runs a network in training; returns its modules' calls, by their ends, and its output."""
    clock = itertools.count()
    begun: list[tuple[int, int | None]] = []
    calls: list[Call] = []
    counts: dict[str, int] = {}

    def note(path: str, module: nn.Module, inputs: Sequence[object], output: object) -> None:
        number = counts.get(path, 0)
        counts[path] = number + 1
        first = inputs[0] if inputs else None
        begin, version = begun.pop()
        versions = version, _version(output)
        calls.append(Call(path, module, number, begin, next(clock), first, output, versions))

    for path, module in network.named_modules():
        if path:
            module.register_forward_pre_hook(
                lambda _, inputs: begun.append((next(clock), _version(*inputs[:1])))
            )
            module.register_forward_hook(functools.partial(note, path))
    return calls, network.train()(images)


def _version(value: object = None) -> int | None:
    return value._version if isinstance(value, Tensor) else None


def _level(value: object) -> int | None:
    if not isinstance(value, Tensor) or value.dim() != 4 or not value.shape[2] == value.shape[3] > 1:
        return None
    return round(math.log2(PROBED_SIDE / value.shape[2]))


def find_stages(name: str, calls: Sequence[Call]) -> list[Stage]:
    """Divides a network where the resolution falls.

    Args:
        name: What messages call the network.
        calls: Of its modules, as `watch` returns them.

    Returns:
        The last four stages at most; none where the resolution does not fall.

    Raises:
        InputError: Branches of different resolutions run side by side.
    """
    divisions = _find_divisions(calls)
    convolutions = [
        call for call in calls if isinstance(call.module, nn.Conv2d) and _level(call.output) is not None
    ]
    maps = [call for call in calls if _level(call.output) is not None]
    if not divisions:
        return []
    if any(_is_beside(call, division) for call in convolutions for division in divisions):
        raise InputError(
            f"{name}: its branches of different resolutions run side by side; "
            "networks of one main path are supported"
        )
    ends = [(_enter(call), call.begin) for call in divisions]
    ends.append((_leave(maps[-1]), maps[-1].end))
    # What comes before the first division has no entry but the images.
    parts: list[tuple[Stage | None, list[Call]]] = []
    parts.append((None, [each for each in convolutions if each.begin < divisions[0].begin]))
    for division, (leaving, end) in zip(divisions, ends[1:], strict=True):
        learns = any(each is division or division.holds(each) for each in convolutions)
        entry = _enter(division) if learns else _leave(division)
        inside = [each for each in convolutions if division.begin <= each.begin < end]
        rest = [each for each in inside if each.begin > division.end]
        if learns and rest and not any(learned for _, learned in parts):
            # The first convolution lowers the resolution, and a stage follows at this resolution.
            parts.append((None, [each for each in inside if each.begin <= division.end]))
            entry, inside = _leave(division), rest
        parts.append((Stage(entry, leaving), inside))
    learned = [stage for stage, found in parts if found]
    return [stage for stage in learned[1:] if stage is not None][-_MOST_STAGES:]


def _find_divisions(calls: Sequence[Call]) -> list[Call]:
    """The outermost modules that lower the resolution once, in the order of their calls."""
    level = [call for call in calls if None not in call.levels and call.levels[0] == call.levels[1]]
    reducing = [call for call in calls if call.reduces and not any(other.holds(call) for other in level)]
    once = [
        call
        for call in reducing
        if len({call.levels, *(other.levels for other in reducing if call.holds(other))}) == 1
    ]
    outermost = [call for call in once if not any(other.holds(call) for other in once)]
    divisions: list[Call] = []
    for call in sorted(outermost, key=lambda call: call.begin):
        if not divisions or cast("int", call.levels[1]) > cast("int", divisions[-1].levels[1]):
            divisions.append(call)
    return divisions


def _is_beside(call: Call, division: Call) -> bool:
    """Whether a module works at a higher resolution than what entered a division before it.

    At the same one it may: NASNet's cells also read the cell before the last.
    """
    level = _level(call.input)
    return call.begin > division.end and level is not None and level < cast("int", division.levels[0])


def _enter(call: Call) -> Value:
    copied = call.input._version != call.versions[0]
    return Value(Tap(call.path, True, call.number, copied), call.input)


def _leave(call: Call) -> Value:
    copied = call.output._version != call.versions[1]
    return Value(Tap(call.path, False, call.number, copied), call.output)
