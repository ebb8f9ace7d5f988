"""The MLflow runs of one sweep's experiment: found by their tags, made once, replaced when outdated.

MLflow can add metrics to a run but not take any away. So a run whose content has changed (a failed run that
was repeated, a cell that got more seeds) is deleted, restorably, and made anew; one whose content is the same
is left alone, or finished where an earlier attempt broke off.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hkrun.tracking.experiments import search_runs
from hkrun.tracking.points import Point, write_content

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

PARENT_TAG = "mlflow.parentRunId"
PARAMETERS_PER_BATCH = 100
PARAMETER_LENGTH = 6000
TAG_LENGTH = 5000
RUN_NAME_LENGTH = 250
FORMAT = 1  # part of every digest: a change in what is mirrored renews what an older hkrun wrote


@dataclass
class MirroredRun:
    """An MLflow run of ours: the parent of a cell, or with a seed one of its children.

    Attributes:
        digest: Digest of what it holds or is about to hold; None where that is still open.
        closed: Whether everything of that digest has been written.
        report: Digest of the report files it carries.
    """

    run_id: str
    seed: int | None
    digest: str | None
    closed: bool
    parent_id: str | None = None
    report: str | None = None


def digest(content: object) -> str:
    """16 hex digits that stand for plain data."""
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class CellRuns:
    """The runs of one cell in one experiment: the parent, and a child per seed."""

    def __init__(
        self, client: "MlflowClient", experiment_id: str, cell_id: str, *, progress: Callable[[], None]
    ) -> None:
        self._client = client
        self._experiment_id = experiment_id
        self._cell_id = cell_id
        self._progress = progress
        self._found: dict[int | None, list[MirroredRun]] = {}
        for run in search_runs(client, [experiment_id], f"tags.`hkrun.cell_id` = '{cell_id}'"):
            tags = run.data.tags
            known = MirroredRun(
                run_id=run.info.run_id,
                seed=int(tags["hkrun.seed"]) if "hkrun.seed" in tags else None,
                digest=tags.get("hkrun.digest"),
                closed=run.info.status in ("FINISHED", "FAILED"),
                parent_id=tags.get(PARENT_TAG),
                report=tags.get("hkrun.report"),
            )
            self._found.setdefault(known.seed, []).append(known)

    def children(self) -> list[MirroredRun]:
        """The runs of seeds, by seed."""
        return [run for seed, runs in self._found.items() if seed is not None for run in runs]

    def settle(self, seed: int | None, wanted: str | None) -> MirroredRun | None:
        """The one run to go on with; every other one that stands for the same is deleted.

        Args:
            seed: Which child, or None for the parent.
            wanted: Digest of what it is to hold; None to take the parent as it is.

        Returns:
            A run with that digest, a parent whose content is still open, or None where one must be made.
        """
        runs = self._found.pop(seed, [])
        fitting = [run for run in runs if wanted is None or run.digest in (wanted, None)]
        kept = min(fitting, key=lambda run: (not run.closed, run.run_id), default=None)
        for run in runs:
            if run is not kept:
                self._client.delete_run(run.run_id)
        if kept is not None:
            self._found[seed] = [kept]
        return kept

    def create(
        self, seed: int | None, *, name: str, started_at: float, tags: Mapping[str, str]
    ) -> MirroredRun:
        """Makes a run, still open; `tags` holds `hkrun.digest` and the parent's, where known."""
        own = {"hkrun.cell_id": self._cell_id, "hkrun.kind": "cell" if seed is None else "run"}
        if seed is not None:
            own["hkrun.seed"] = str(seed)
        kept = {key: _text(value, TAG_LENGTH) for key, value in {**tags, **own}.items() if value}
        run = self._client.create_run(
            self._experiment_id,
            start_time=round(started_at * 1000),
            tags=kept,
            run_name=_text(name, RUN_NAME_LENGTH),
        )
        made = MirroredRun(
            run_id=run.info.run_id,
            seed=seed,
            digest=tags.get("hkrun.digest"),
            closed=False,
            parent_id=tags.get(PARENT_TAG),
        )
        self._found[seed] = [made]
        return made

    def write(
        self,
        run: MirroredRun,
        *,
        parameters: Mapping[str, object],
        points: Sequence[Point],
        finished: bool,
        ended_at: float,
    ) -> None:
        """Writes the whole content of a run and closes it; what MLflow has of it is not written twice."""
        from mlflow.entities import Param

        listed = [Param(key, text) for key, value in parameters.items() if (text := _parameter(value))]
        assert len(listed) <= PARAMETERS_PER_BATCH
        write_content(self._client, run.run_id, listed, points, progress=self._progress)
        status = "FINISHED" if finished else "FAILED"
        self._client.set_terminated(run.run_id, status=status, end_time=round(ended_at * 1000))
        run.closed = True
        self._progress()


def _parameter(value: object) -> str:
    return _text(value if isinstance(value, str) else json.dumps(value), PARAMETER_LENGTH)


def _text(text: str, length: int) -> str:
    """What every database takes: PostgreSQL refuses what is too long, and the character NUL."""
    return text[:length].replace("\0", "\N{REPLACEMENT CHARACTER}")
