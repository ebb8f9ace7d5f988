"""Error curves as one complete matrix per cell, or every reason why not."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hkrun.curve_files.numbering import listed, numbered, quoted, quoted_list, spans
from hkrun.curve_files.quantities import Quantity, Told, find_rising, tell_quantity, to_error_pct
from hkrun.curve_files.rows import read_number
from hkrun.curve_files.sources import Run, Source, refuse
from hkrun.errors import InputError

ONLY_CELL = "all"
_LEAST_WINDOW = 2  # the variance of one epoch is 0 whatever happened
_NOTHING_TOLD = Told()


@dataclass(frozen=True, kw_only=True)
class Curves:
    """The complete error curves of one cell.

    Attributes:
        error_pct: Test error in percent, float64 [runs, epochs].
        seeds: The seed of each row, ascending.
        epochs: The epoch of each column, ascending: without a gap, or steps of equal distance.
    """

    error_pct: NDArray[np.float64]
    seeds: tuple[int, ...]
    epochs: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ReadAs:
    """What a source was taken for.

    Attributes:
        every: How many steps each epoch has, by cells; 1 where epochs are counted.
    """

    source: Source
    quantity: Quantity
    every: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class CurveSet:
    """The curves of all sources.

    Attributes:
        cells: The curves by cell, in the order of the sources.
        read_as: What each source was taken for.
        doubts: What is doubtful about the values, a sentence each.
    """

    cells: dict[str, Curves]
    read_as: tuple[ReadAs, ...]
    doubts: tuple[str, ...]


def assemble(
    sources: Sequence[Source], *, window: int, cut: int | None = None, told: Told = _NOTHING_TOLD
) -> CurveSet:
    """Makes complete matrices of errors in percent of what sources hold.

    A cell without a name is called "all"; where there are several sources, like its file or folder.

    Args:
        sources: Where the runs are.
        window: Number of last epochs that S is taken over.
        cut: The last epoch that counts; without it all curves must end together.
        told: What the values are, where the sources are not to tell.

    Raises:
        InputError: Curves that S is not defined for or that cannot be compared: values missing, given twice,
            no numbers or outside 0..100, gaps, one run, fewer epochs than the window, different ends; a cell
            in two sources; or values of which it cannot be told whether they are errors or accuracies,
            fractions or percent.
    """
    grouped = [_group(source, several=len(sources) > 1, cut=cut) for source in sources]
    problems = _find_problems(sources, grouped, window=window)
    if problems:
        raise InputError("\n".join(problems))
    _check_ends([cell for cells in grouped for cell in cells.items()], window=window, cut=cut)
    found: dict[str, Curves] = {}
    read_as, doubts = [], []
    for source, cells in zip(sources, grouped, strict=True):
        matrices = {name: cell.matrix() for name, cell in cells.items()}
        quantity, refused, doubtful = tell_quantity(source.value, matrices, told=told, window=window)
        refuse(source.place, refused)
        assert quantity is not None
        errors = {name: (seeds, to_error_pct(values, quantity)) for name, (seeds, values) in matrices.items()}
        for name, (seeds, error_pct) in errors.items():
            found[name] = Curves(error_pct=error_pct, seeds=seeds, epochs=cells[name].epochs)
        every = {cell.epochs[1] - cell.epochs[0] for cell in cells.values()}
        read_as.append(ReadAs(source=source, quantity=quantity, every=tuple(sorted(every))))
        doubtful += [*find_rising(errors, quantity), *source.doubts]
        doubts += [f"{source.place}: {doubt}" for doubt in doubtful]
    return CurveSet(cells=found, read_as=tuple(read_as), doubts=tuple(doubts))


def _group(source: Source, *, several: bool, cut: int | None) -> dict[str, "_CellRuns"]:
    """The runs of a source by cell, without what is after the cut."""
    path = Path(source.place)
    unnamed = (path.name if path.is_dir() else path.stem) if several else ONLY_CELL
    members: defaultdict[str, list[Run]] = defaultdict(list)
    for run in source.runs:
        members[unnamed if run.cell is None else run.cell].append(run)
    is_named = any(run.cell is not None for run in source.runs)
    return {
        name: _CellRuns(runs, axis=source.axis, is_named=is_named, cut=cut) for name, runs in members.items()
    }


def _find_problems(
    sources: Sequence[Source], grouped: Sequence[Mapping[str, "_CellRuns"]], *, window: int
) -> list[str]:
    """All that keeps S from being defined, each with its source and cell."""
    shortest = min((cell.shortest for cells in grouped for cell in cells.values()), default=0)
    problems = []
    place_of: dict[str, str] = {}
    for source, cells in zip(sources, grouped, strict=True):
        if not cells:
            problems.append(f"{source.place}: there are no runs")
        for name, cell in cells.items():
            if place_of.setdefault(name, source.place) != source.place:
                problems.append(f"{source.place}: cell {name!r} is in {place_of[name]} too")
            found = cell.problems(window=window, shortest=shortest)
            problems += [f"{source.place}: cell {name!r}: {problem}" for problem in found]
    return [*problems, *_find_short(sources, grouped, window=window)]


def _find_short(
    sources: Sequence[Source], grouped: Sequence[Mapping[str, "_CellRuns"]], *, window: int
) -> list[str]:
    """Cells of fewer epochs than the window, those of the same epochs in one problem; and what suits all."""
    cells = [
        (source.place, name, cell)
        for source, named in zip(sources, grouped, strict=True)
        for name, cell in named.items()
        if cell.epochs
    ]
    alike: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for place, name, cell in cells:
        if len(cell.epochs) < window:
            alike[cell.describe_epochs()].append((place, name))
    least = min((len(cell.epochs) for _, _, cell in cells), default=0)
    hint = f"; --window {least} takes all" if least >= _LEAST_WINDOW else ""
    problems = []
    for epochs, named in alike.items():
        places = listed(list(dict.fromkeys(place for place, _ in named)), ", ")
        names = quoted_list(name for _, name in named)
        cell_names = f"{'cells' if len(named) > 1 else 'cell'} {names}"
        problems.append(f"{places}: {cell_names}: {epochs}, fewer than the window of {window}{hint}")
    return problems


def _check_ends(cells: Sequence[tuple[str, "_CellRuns"]], *, window: int, cut: int | None) -> None:
    """Refuses curves of different ends: their last epochs are not the same part of the training."""
    shortest = min(cell.epochs[-1] for _, cell in cells)
    others = [f"{cell.epochs[-1]} in {name!r}" for name, cell in cells if cell.epochs[-1] != cut]
    if cut is not None and others:
        raise InputError(
            f"--cut {cut}: curves end at epoch {listed(others, ', ')}; --cut {shortest} suits all"
        )
    windows = {name: cell.window(window) for name, cell in cells}
    if len(set(windows.values())) > 1:
        told = listed([f"{span[0]}-{span[1]} of {name!r}" for name, span in windows.items() if span], ", ")
        after_cut = {cell.window(window, cut=shortest) for _, cell in cells}
        helps = len(after_cut) == 1 and None not in after_cut
        hint = f"; --cut {shortest} ends all curves there" if helps else ""
        raise InputError(f"the last {window} epochs are not the same: {told}{hint}")


class _CellRuns:
    """The runs of one cell, and how often each seed has each epoch."""

    def __init__(self, runs: Sequence[Run], *, axis: str, is_named: bool, cut: int | None) -> None:
        self._axis, self._is_named, self._cut = axis, is_named, cut
        points = [
            (run.seed, epoch, value)
            for run in runs
            for epoch, value in zip(run.epochs, run.values, strict=True)
            if cut is None or epoch <= cut
        ]
        seeds, epochs = (np.array([point[part] for point in points], dtype=np.int64) for part in (0, 1))
        self._values = [value for _, _, value in points]
        self._numbers = np.array([read_number(value) for value in self._values])
        self._seeds, self._row = np.unique(seeds, return_inverse=True)
        self._epochs, self._column = np.unique(epochs, return_inverse=True)
        self._count = np.zeros((len(self._seeds), len(self._epochs)), dtype=np.int64)
        np.add.at(self._count, (self._row, self._column), 1)

    @property
    def shortest(self) -> int:
        """The last epoch of the run that ends first."""
        if not len(self._epochs):
            return 0
        last = len(self._epochs) - 1 - np.argmax(self._count[:, ::-1] > 0, axis=1)
        return int(self._epochs[last].min())

    def window(self, window: int, *, cut: int | None = None) -> tuple[int, int] | None:
        """The first and the last epoch of the window; None where there are too few."""
        epochs = self._epochs if cut is None else self._epochs[self._epochs <= cut]
        return (int(epochs[-window]), int(epochs[-1])) if len(epochs) >= window else None

    def problems(self, *, window: int, shortest: int) -> list[str]:
        """Why S over the window is not defined for these runs, each reason one line."""
        if not len(self._seeds):
            return ["it has no values" if self._cut is None else f"it has no values up to --cut {self._cut}"]
        cut = None if self.window(window, cut=shortest) is None else shortest
        found = [*self._find_wrong_values(), *self._find_missing(cut), *self._find_gaps()]
        if len(self._seeds) == 1:
            found.append(
                f"seed {self._seeds[0]} is the only run; S is taken across runs and needs at least 2"
            )
        return found

    def describe_epochs(self) -> str:
        """Which epochs any run has, and how many: epochs 1-9: 9 in all."""
        return f"{numbered(self._axis, self._epochs.tolist())}: {len(self._epochs)} in all"

    def _find_wrong_values(self) -> list[str]:
        finite = np.isfinite(self._numbers)
        outside = finite & ((self._numbers < 0) | (self._numbers > 100))
        return [
            f"{self._places(self._row[wrong], self._column[wrong])}: {what} "
            f"{quoted(self._values[int(np.argmax(wrong))])}"
            for wrong, what in (
                (~finite, "missing or no number, such as"),
                (outside, "outside 0..100, such as"),
            )
            if wrong.any()
        ]

    def _find_missing(self, cut: int | None) -> list[str]:
        found = []
        if (self._count > 1).any():
            hint = "" if self._is_named else "; --cell tells cells apart"
            found.append(f"{self._places(*np.nonzero(self._count > 1))}: more than one value{hint}")
        if (self._count == 0).any():
            rows, columns = np.nonzero(self._count == 0)
            at_the_end = cut is not None and bool((self._epochs[columns] > cut).all())
            hint = f", or end all with --cut {cut}" if at_the_end else ""
            places = self._places(rows, columns)
            found.append(f"{places}: no value; complete the run or leave it out whole{hint}")
        return found

    def _find_gaps(self) -> list[str]:
        """Epochs that no run has; steps may be as many per epoch as they like, if always as many."""
        distances = np.diff(self._epochs)
        if self._axis == "step":
            if len(set(distances.tolist())) <= 1:
                return []
            odd = int(np.argmax(distances != distances[0]))
            three = ", ".join(map(str, self._epochs[odd - 1 : odd + 2].tolist()))
            return [f"steps {three}: not equally far apart, as epochs are"]
        before = np.flatnonzero(distances > 1)
        gaps = [(int(self._epochs[i]) + 1, int(self._epochs[i + 1]) - 1) for i in before]
        return [f"{spans('epoch', gaps)}: no run has a value"] if gaps else []

    @property
    def epochs(self) -> tuple[int, ...]:
        """The epochs that any run has, ascending."""
        return tuple(self._epochs.tolist())

    def matrix(self) -> tuple[tuple[int, ...], NDArray[np.float64]]:
        """The seeds, ascending, and the values [runs, epochs] as they are, where there are no problems."""
        values = np.empty(self._count.shape)
        values[self._row, self._column] = self._numbers
        return tuple(self._seeds.tolist()), values

    def _places(self, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> str:
        """`seeds 3-4, epochs 7-9; seed 6, epoch 1`: seeds with the same epochs together."""
        by_seed: defaultdict[int, set[int]] = defaultdict(set)
        for seed, epoch in zip(self._seeds[rows].tolist(), self._epochs[columns].tolist(), strict=True):
            by_seed[seed].add(epoch)
        by_epochs: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
        for seed, epochs in sorted(by_seed.items()):
            by_epochs[tuple(sorted(epochs))].append(seed)
        places = [
            f"{numbered('seed', seeds)}, {numbered(self._axis, epochs)}"
            for epochs, seeds in by_epochs.items()
        ]
        return listed(places, "; ")
