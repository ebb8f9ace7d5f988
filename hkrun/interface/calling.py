"""Plans and runs studies."""

from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Literal

from hkrun.cli.invocation import Invocation
from hkrun.errors import ClusterLostError, InputError, Interrupted
from hkrun.interface.planned import Plan
from hkrun.interface.progress import Wish, watch
from hkrun.interface.studies import Store, Study
from hkrun.plans import Shortcuts, StoredPlan, Workers
from hkrun.spaces import load_sweep
from hkrun.stopwatch import Stopwatch
from hkrun.sweep import Options, Phase, make_ready, plan_study, resolve, run_study
from hkrun.sweep import Study as ResolvedStudy

Space = str | PathLike[str] | Mapping[str, object]
Place = str | PathLike[str] | Store


def plan(
    space: Space,
    *,
    seeds: int | Sequence[int] | None = None,
    dataset: str | None = None,
    epochs: int | None = None,
    overrides: Mapping[str, object] | None = None,
    store: Place | None = None,
    data: str | PathLike[str] | None = None,
    workers: int | str = "auto",
    pack: int | Literal["auto"] | None = None,
    name: str | None = None,
    other_code: Literal["ask", "again", "trust"] = "ask",
    until: Literal["decided"] | None = None,
    max_seeds: int | None = None,
) -> Plan:
    """What `run` with the same arguments would do. Nothing is written, fetched or trained.

    Args:
        space: What to run: the name of a search space, the path of a .toml file, or a dict with the keys of
            one (docs/search-spaces.md).
        seeds: A number of seeds, 0 to N - 1, or which; those of the search space without it.
        dataset: The data set, whose recipe comes with it.
        epochs: Epochs of the student; the schedule scales with them.
        overrides: Keys of cells and what they become in all of them, such as {"loss.mu": 0.5}; keys may be
            nested, {"loss": {"mu": 0.5}}.
        store: Where records are: a folder, a URI, or a store that was opened; HKRUN_STORE or ./hkrun-store.
        data: Where data sets lie that are not embedded.
        workers: How many processes train one run together: a number, "MIN:MAX" or "auto".
        pack: How many seeds of a cell train together; "auto" for the fastest, as measured. Without it as the
            study was begun, else as the recipe says.
        name: What the study is called in the store; as the search space and what was changed without it.
        other_code: What becomes of results of other training code: "again" makes them anew, "trust" uses
            them, "ask" refuses where there are any.
        until: "decided" for seeds in rounds, of each cell only until what is asked of it is decided
            (docs/sequential.md).
        max_seeds: With `until`, the most seeds of a cell; those of the search space without it.

    Raises:
        NotFoundError: There is no such search space.
        InputError: The arguments or the search space are wrong; all problems, a line each.
        ResourceError: It does not fit the machine.
        DataError: The data set is missing or damaged, and is none that is fetched.
        StoreError: The store cannot be read.
    """
    changes = {"seeds": seeds, "dataset": dataset, "epochs": epochs, "overrides": overrides or {}}
    settings = {"workers": workers, "pack": pack, "name": name, "other_code": other_code}
    settings |= {"until": until, "max_seeds": max_seeds}
    return Plan(resolve(_plan(space, changes, _locate(store, data), settings), dry=True))


def run(
    space: Space,
    *,
    seeds: int | Sequence[int] | None = None,
    dataset: str | None = None,
    epochs: int | None = None,
    overrides: Mapping[str, object] | None = None,
    store: Place | None = None,
    data: str | PathLike[str] | None = None,
    workers: int | str = "auto",
    pack: int | Literal["auto"] | None = None,
    name: str | None = None,
    other_code: Literal["ask", "again", "trust"] = "ask",
    until: Literal["decided"] | None = None,
    max_seeds: int | None = None,
    fail_fast: bool = False,
    progress: Wish = True,
) -> Study:
    """Trains what a study lacks, writes its report, brings MLflow up to date, and returns the study.

    Runs that the store has are not repeated, so the same call goes on after an interruption. Failed and
    diverged runs raise nothing: `study.results()` counts them and `study.runs()` says why.

    Args:
        space: What to run: the name of a search space, the path of a .toml file, or a dict with the keys of
            one.
        seeds: A number of seeds, or which; those of the search space without it.
        dataset: The data set, whose recipe comes with it.
        epochs: Epochs of the student; the schedule scales with them.
        overrides: Keys of cells and what they become in all of them.
        store: Where records are, and are made: a folder, a URI, or a store that was opened.
        data: Where data sets lie that are not embedded.
        workers: How many processes train one run together.
        pack: How many seeds of a cell train together.
        name: What the study is called in the store.
        other_code: What becomes of results of other training code.
        until: "decided" for seeds in rounds, until what is asked is decided.
        max_seeds: With `until`, the most seeds of a cell; for all so far see `plan`.
        fail_fast: Whether the first run that fails stops the others.
        progress: True for the display of the command line, in a notebook as an output of the cell; False for
            none; or a function, which is called with a `ProgressEvent`, in this thread.

    Raises:
        KeyboardInterrupt: Ctrl-C, the kernel's interrupt or SIGTERM. What is finished is kept.
        TrainingError: No teacher could be trained, or `fail_fast` and a run failed.
        ClusterLostError: Ray is gone. What is finished is kept.
        HkrunError: As `plan`, and where store, data or cluster fail on the way.
    """
    stopwatch = Stopwatch("planning")
    changes = {"seeds": seeds, "dataset": dataset, "epochs": epochs, "overrides": overrides or {}}
    settings = {"workers": workers, "pack": pack, "name": name, "other_code": other_code}
    settings |= {"until": until, "max_seeds": max_seeds}
    settings["fail_fast"] = fail_fast
    study = resolve(_plan(space, changes, _locate(store, data), settings))
    notes = [study.note, study.coming_back, study.other_code, *(warning.sentence for warning in study.limits)]
    try:
        with watch(progress, title=study.sweep.heading, notes=[note for note in notes if note]) as observer:
            if study.machine is not None:
                observer.entered(Phase.CHECKING)
            study = make_ready(study)
            outcome = run_study(study, observer, stopwatch)
    except ClusterLostError:
        raise
    except Interrupted as interrupt:
        raise KeyboardInterrupt(interrupt.message) from interrupt
    stored = StoredPlan(
        sweep=study.sweep,
        workers=study.options.workers,
        sizes=outcome.plan.sizes,
        until_decided=study.options.shortcuts.until_decided,
    )
    return Study(stored, study.opened, outcome.summary)


def _locate(store: Place | None, data: str | PathLike[str] | None) -> Invocation:
    """The places of a call, as those of a command.

    Raises:
        InputError: One is a URI that has lost a slash.
    """
    places = Invocation()
    if store is not None:
        places.store_uri = store.uri if isinstance(store, Store) else fspath(store)
    if data is not None:
        places.data_dir = fspath(data) if "://" in fspath(data) else Path(data)
    places.check_places()
    return places


def _plan(
    space: Space, changes: Mapping[str, object], places: Invocation, settings: Mapping[str, object]
) -> ResolvedStudy:
    given = space if isinstance(space, Mapping) else fspath(space)
    settings = dict(settings)
    until, max_seeds = settings.pop("until"), settings.pop("max_seeds")
    changes = _limit(changes, until, max_seeds)
    sweep = load_sweep(given, **changes)  # type: ignore[arg-type]
    workers = Workers.parse(str(settings["workers"]))
    pack = settings["pack"]
    if pack not in (None, "auto") and (type(pack) is not int or pack < 1):
        raise InputError(f"pack: {pack!r} is neither a number from 1 nor 'auto'")
    if settings["other_code"] not in ("ask", "again", "trust"):
        raise InputError(f"other_code: {settings['other_code']!r} is none of 'ask', 'again' and 'trust'")
    options = Options(
        store=places.absolute_store,
        data_dir=places.data_dir,
        shortcuts=Shortcuts(until_decided=until is not None),
        seeds_asked=changes["seeds"] is not None,
        **{**settings, "workers": workers},  # type: ignore[arg-type]
    )
    return plan_study(sweep, places.find_store(), options)


def _limit(changes: Mapping[str, object], until: object, max_seeds: object) -> Mapping[str, object]:
    """The changes with as many seeds as there may be.

    Raises:
        InputError: `until` is none of its values, or does not go with the seeds.
    """
    if until not in (None, "decided"):
        raise InputError(f"until: {until!r} is neither 'decided' nor None")
    if max_seeds is None:
        return changes
    if until is None or changes["seeds"] is not None:
        raise InputError("max_seeds: goes with until='decided', and in place of seeds")
    if type(max_seeds) is not int or max_seeds < 1:
        raise InputError(f"max_seeds: {max_seeds!r} is no number from 1")
    return {**changes, "seeds": max_seeds}
