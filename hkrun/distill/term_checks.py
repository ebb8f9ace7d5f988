"""Losses of the user's own: tried on a few images before anything trains."""

import copy
import inspect
import re
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from hkrun.config import Cell, get_value
from hkrun.errors import InputError
from hkrun.models import DistilledNetwork, Output, build_attention, build_network, initialise
from hkrun.models.stacked import Stacked
from hkrun.objective import DataSizes, Objective
from hkrun.terms import TAP, TERMS, Term
from hkrun.user_parts import load_part

_BATCH = 4  # images that a loss is tried on
_PACKAGE, _TORCH = str(Path(__file__).parents[1]), str(Path(torch.__file__).parent)
# What one run alone and the same run in a pack may differ by, in float32; a loss may be small.
_RELATIVE, _ABSOLUTE = 1e-3, 1e-9
_ROUNDING = 1e-4  # of a mean over a batch and over its halves, of the largest of them


def try_terms(cell: Cell, sizes: DataSizes, image_shape: tuple[int, int, int], *, packed: bool) -> None:
    """Evaluates the terms of a cell that are not built in, between its student and its teacher.

    Args:
        cell: The configuration.
        sizes: Of the data.
        image_shape: Channels, height and width of the images.
        packed: Whether its runs may train together.

    Raises:
        InputError: Every way in which a term is not what docs/own-parts.md asks for, one per line.
    """
    own = [_own_terms(cell, stage) for stage in range(len(cell.stage_terms))]
    named = [(name, term) for terms in own for name, term in terms.items()]
    problems = [line for each in named for line in compare_signature(_describe(cell, *each), each[1])]
    if not problems:
        trials = [_Trial(cell, stage, sizes, image_shape) for stage, terms in enumerate(own) if terms]
        problems = [line for trial in trials for line in trial.find_problems(packed=packed)]
    if problems:
        raise InputError("\n".join(dict.fromkeys(problems)))


def _own_terms(cell: Cell, stage: int) -> dict[str, Term]:
    return {name: term for name, term in cell.stage_terms[stage].items() if term not in TERMS.values()}


def _describe(cell: Cell, name: str, term: Term) -> str:
    """What messages call a term: as the user named it."""
    form = dict(cell.declared).get("knowledge.form")
    return str(cell.knowledge.form) if term == form else f"{cell.method}: term {name!r}"


def compare_signature(title: str, term: Term) -> Iterator[str]:
    """What a function takes otherwise than its term declares: the parts and the keys, and no others.

    Args:
        title: What messages call the term.
        term: The term.
    """
    function = load_part(str(term.function))
    if term.learns and not (inspect.isclass(function) and issubclass(function, nn.Module)):
        yield f"{title}: learns = True, so {term.function} must be a class of torch.nn.Module"
        return
    parts = [*term.student, *term.teacher]
    read = [*parts, *(["labels"] if term.labels else []), *(["index"] if term.index else [])]
    keys = [key.rpartition(".")[2] for key in term.key_names if key != TAP]
    drawn = ["generator"] if term.random else []
    if not term.learns:
        calls = [(function, read, [*keys, *drawn])]
    else:
        built = [*keys, *(["num_images"] if term.num_images else [])]
        forward: Callable[..., Any] = function.forward  # type: ignore[attr-defined]
        calls = [(function, parts, built), (forward, ["self", *read], drawn)]
    for called, places, names in calls:
        try:
            inspect.signature(called).bind(*places, **dict.fromkeys(names))
        except TypeError as error:
            takes = ", ".join(part for part in [*places, *(f"{key}=" for key in names)] if part != "self")
            yield f"{title}: {called.__qualname__} must take ({takes}), as its term declares: {error}"


# What terms read: the outputs of student and teacher, the labels and the indices of the images.
_Batch = tuple[Output, Output, Tensor, Tensor]


class _Trial:
    """One stage of a cell between two networks in their initial state."""

    def __init__(self, cell: Cell, stage: int, sizes: DataSizes, image_shape: tuple[int, int, int]) -> None:
        self._cell, self._stage, self._sizes = cell, stage, sizes
        self._terms = _own_terms(cell, stage)
        self._image_shape = image_shape

    def find_problems(self, *, packed: bool) -> list[str]:
        """What is wrong with each term, one line each."""
        try:
            objective = self._build()
        except (Exception, SystemExit) as error:  # a stranger's code may raise anything
            first = _describe(self._cell, *next(iter(self._terms.items())))
            return [_failed(first, "cannot be built", error)]
        batch = self._run()
        problems = self._find_random_buffers()
        for name, term in self._terms.items():
            title, state = _describe(self._cell, name, term), torch.get_rng_state()
            try:
                loss = objective.evaluate(name, *batch)
            except (Exception, SystemExit) as error:
                problems.append(_failed(title, "fails", error))
                continue
            found = _check_value(loss) or _check_gradients(objective, name, term, loss, batch[0])
            if not torch.equal(state, torch.get_rng_state()):
                found.append("draws from torch's global generator; with random=True it gets one of its own")
            elif not found:
                found += self._find_hidden_state(name, batch)
                found += self._find_compared_images(name, batch)
            problems += [f"{title}: {problem}" for problem in found]
        if not problems and packed:
            problems += self._find_unmapped([batch, self._run(1)])
        return problems

    def _find_random_buffers(self) -> list[str]:
        """Buffers that begin otherwise in each process: they are set from torch's global generator."""
        built = []
        for seed in (1, 2):
            with torch.random.fork_rng(devices=()):
                torch.manual_seed(seed)
                built.append(self._build())
        problems = []
        for name, term in self._terms.items():
            first, second = (dict(objective.learned(name).named_buffers()) for objective in built)
            problems += [
                f"{_describe(self._cell, name, term)}: its buffer {place} is drawn from "
                "torch's global generator; a method reset_random(generator) draws it from the run's seed"
                for place, values in first.items()
                if not torch.equal(values, second[place])
            ]
        return problems

    def _find_hidden_state(self, name: str, batch: _Batch) -> list[str]:
        """What a term keeps outside its buffers: no checkpoint holds it."""
        objective = self._build()
        state = copy.deepcopy(objective.state_dict())
        losses = []
        for _ in range(2):
            objective.load_state_dict(state)
            objective.generator = torch.Generator().manual_seed(0)
            losses.append(objective.evaluate(name, *batch).detach())
        if torch.allclose(losses[0], losses[1], rtol=_RELATIVE, atol=_ABSOLUTE):
            return []
        first, second = (f"{loss:g}" for loss in losses)
        return [f"gives {first}, then {second} for one batch: what it keeps must be in buffers"]

    def _find_compared_images(self, name: str, batch: _Batch) -> list[str]:
        """Whether several workers, each with a part of the batch, would train on another loss than one."""
        term = self._terms[name]
        if term.over_batch or term.random:
            return []
        halves = (slice(_BATCH // 2), slice(_BATCH // 2, _BATCH))
        state = self._build().state_dict()

        def measure(rows: slice) -> Tensor:
            objective = self._build()
            objective.load_state_dict(state)
            return objective.evaluate(name, *_rows(batch, rows)).detach()

        try:
            parts = torch.stack([measure(half) for half in halves])
        except (Exception, SystemExit) as error:
            return [
                f"fails on a part of a batch: {type(error).__name__}: {_first_line(error)}; {_OVER_BATCH}"
            ]
        whole, mean = measure(slice(None)), parts.mean()
        if (whole - mean).abs() <= _ROUNDING * torch.stack([whole, *parts]).abs().max():
            return []
        return [f"gives {whole:g} for a batch and {mean:g} as the mean over its halves; {_OVER_BATCH}"]

    def _build(self, seed: int = 0) -> Objective:
        objective = Objective(self._cell, self._stage, self._sizes)
        initialise(objective, torch.Generator().manual_seed(seed))
        objective.generator = torch.Generator().manual_seed(0)
        return objective.to(torch.float32)

    def _run(self, number: int = 0) -> _Batch:
        """What the terms read of a batch of images; the student's outputs have gradients of their own."""
        generator = torch.Generator().manual_seed(number)
        images = torch.randn(_BATCH, *self._image_shape, generator=generator)
        student, teacher = (self._run_network(side, images) for side in ("student", "teacher"))
        place = torch.arange(_BATCH) + number * _BATCH
        labels, index = place % self._sizes.num_classes, place % self._sizes.num_images
        return _with_gradients(student), teacher, labels, index

    def _run_network(self, side: str, images: Tensor) -> Output:
        cell = self._cell
        backbone = build_network(
            str(get_value(cell, f"{side}.network")),
            num_classes=self._sizes.num_classes,
            in_channels=images.shape[1],
        )
        network = DistilledNetwork(backbone, build_attention(cell, backbone) if cell.squeezes else None)
        initialise(network, torch.Generator().manual_seed(len(side)))
        with torch.no_grad():
            output: Output = network(images)
        return output

    def _find_unmapped(self, batches: Sequence[_Batch]) -> list[str]:
        """The terms that `torch.vmap` cannot map over the runs of a pack, or maps to something else.

        Each run has parameters and a batch of its own, so that runs that mix are seen.
        """
        problems = []
        for name, term in self._terms.items():
            if term.random or not term.packs:
                continue
            alone = [self._build(seed).evaluate(name, *batch).detach() for seed, batch in enumerate(batches)]
            stacked = Stacked([self._build(seed) for seed in range(len(batches))])

            def one(objective: Objective, *args: Any, name: str = name) -> Tensor:
                return objective.evaluate(name, *args)

            args = tree_map(_stack, *batches)
            title = _describe(self._cell, name, term)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # an operation that vmap maps one by one is only slow
                    values = stacked.each(one, *args).detach()
            except (Exception, SystemExit) as error:
                problems.append(_unmapped(title, error))
                continue
            if not torch.allclose(values, torch.stack(alone), rtol=_RELATIVE, atol=_ABSOLUTE):
                apart, together = (" and ".join(f"{value:g}" for value in each) for each in (alone, values))
                problems.append(f"{title}: two runs give {apart} alone, and {together} in a pack: {_PACKS}")
        return problems


_PACKS = "packs=False in its Term trains its runs one at a time, and so does --pack 1"


_OVER_BATCH = "a loss that is no mean over images (a sum?) needs over_batch=True in its Term"


def _rows(batch: Any, rows: slice) -> Any:
    return tree_map(lambda part: part[rows] if isinstance(part, Tensor) else part, batch)


def _stack(*values: Any) -> Any:
    return torch.stack(values) if isinstance(values[0], Tensor) else values[0]


def _with_gradients(output: Output) -> Output:
    shaped: Output = tree_map(
        lambda part: part.requires_grad_() if isinstance(part, Tensor) else part, output
    )
    return shaped


def _check_value(loss: object) -> list[str]:
    if not isinstance(loss, Tensor):
        return [f"must give a tensor of one number; it gives a {type(loss).__name__}"]
    if loss.shape != ():
        return [f"must give one number for the batch, a tensor of shape (); it has shape {tuple(loss.shape)}"]
    if not torch.isfinite(loss):
        return [f"is {float(loss.detach())} on {_BATCH} images of random numbers"]
    if not loss.requires_grad:
        return ["has no gradient: it is computed without the student, or through detach() or item()"]
    return []


def _check_gradients(objective: Objective, name: str, term: Term, loss: Tensor, student: Output) -> list[str]:
    """Whether gradients reach the student and all that the term learns, and are finite."""
    read = {part: _tensors(student, part) for part in term.student}
    learned = dict(objective.learned(name).named_parameters())
    inputs = [*(tensor for tensors in read.values() for tensor in tensors), *learned.values()]
    gradients = torch.autograd.grad(loss, inputs, allow_unused=True)
    of_student = gradients[: len(gradients) - len(learned)]
    of_learned = dict(zip(learned, gradients[len(of_student) :], strict=True))
    problems = []
    if all(gradient is None or not gradient.any() for gradient in of_student):
        problems.append(f"no gradient reaches the student's {', '.join(term.student)}")
    problems += [
        f"no gradient reaches its parameter {place}" for place, got in of_learned.items() if got is None
    ]
    if any(gradient is not None and not torch.isfinite(gradient).all() for gradient in gradients):
        problems.append(f"its gradient is not finite on {_BATCH} images of random numbers")
    return problems


def _tensors(output: Output, part: str) -> Sequence[Tensor]:
    if part in ("stages", "attention_maps"):
        return output.stages
    if part == "stem_and_stages":
        return (output.stem, *output.stages)
    return (getattr(output, part),)


def _failed(title: str, what: str, error: Exception | SystemExit) -> str:
    return f"{title}: {what}: {type(error).__name__}: {_first_line(error)}{_place(error)}"


def _unmapped(title: str, error: Exception | SystemExit) -> str:
    operation = re.search(r"aten::\w+|\.\w+\(\)|`\w+`", str(error))
    named = f"{operation[0]}: " if operation else ""
    told = f"{named}{_first_line(error)}{_place(error)}"
    return f"{title}: cannot be mapped over the runs of a pack: {told}; {_PACKS}"


def _first_line(error: BaseException) -> str:
    return re.split(r"(?<=[a-z)])\. |\n", " ".join(str(error).split()))[0].rstrip(".")


def _place(error: BaseException) -> str:
    """Where it happened in the user's module."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith((_PACKAGE, _TORCH, "<"))]
    return f" ({Path(own[-1].filename).name}:{own[-1].lineno}: {own[-1].line})" if own else ""
