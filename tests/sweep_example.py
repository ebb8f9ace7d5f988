"""A finished sweep in a store, in the real format: made from closed forms and a generator, not trained."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from hkrun.config import canonical_json, cell_from_values, cell_id
from hkrun.spaces import NamedCell, Recipe, Sweep
from hkrun.store import Record, Store

STARTED_AT = 1_760_000_000.0
SECONDS_PER_EPOCH = 1.5
# Name, weights of L_adv and L_is, error at the end in percent, how much it jitters.
CELLS = (
    ("L_b", 0.0, 0.0, 3.2, 0.35),
    ("L_b + L_is", 0.0, 0.1, 2.9, 0.25),
    ("L_b + L_adv", 0.1, 0.0, 2.8, 0.30),
    ("L_b + L_adv + L_is", 0.1, 0.1, 2.5, 0.12),
)


def make_sweep(*, num_cells: int = 4, num_seeds: int = 3, epochs: int = 12, name: str = "stability") -> Sweep:
    """The cells of the paper's table 5."""
    cells = tuple(
        NamedCell(
            name=title,
            cell=cell_from_values(
                {
                    "dataset": "digits",
                    "loss.lambda_2": adversarial,
                    "loss.lambda_3": knowledge,
                    "student.epochs": epochs,
                }
            ),
        )
        for title, adversarial, knowledge, _, _ in CELLS[:num_cells]
    )
    recipe = Recipe(dataset="digits", window=5, cell=cells[0].cell, evidence={})
    return Sweep(
        name=name,
        title="Convergence stability",
        question="Does intermediate supervision make training steadier?",
        dataset="digits",
        seeds=tuple(range(num_seeds)),
        reference="L_b",
        cells=cells,
        window=max(2, epochs // 4),
        ddof=0,
        published=("table5",),
        recipe=recipe,
        source="search_spaces/stability.toml",
    )


def make_curves(name: str, seed: int, *, epochs: int) -> pa.Table:
    """The curves of one run, one row per epoch."""
    _, adversarial, knowledge, final, jitter = next(cell for cell in CELLS if cell[0] == name)
    generator = np.random.default_rng([seed, len(name)])
    epoch = np.arange(1, epochs + 1)
    noise = jitter * generator.standard_normal(epochs) * (1 + 4 * np.exp(-epoch / (0.2 * epochs)))
    error = np.maximum(final + 60 * np.exp(-epoch / (0.08 * epochs)) + noise, 0.1)
    columns = {
        "epoch": epoch.astype(np.int32),
        "error_pct": error,
        "loss_total": error / 10,
        "loss_backbone": error / 20,
        "learning_rate": np.where(epoch < 0.8 * epochs, 0.1, 0.01),
        "seconds": np.full(epochs, SECONDS_PER_EPOCH),
    }
    columns |= {"loss_adversarial": 0.7 + error / 100} if adversarial else {}
    columns |= {"loss_knowledge": error / 30} if knowledge else {}
    return pa.table(columns)


def make_record(cell_id: str, seed: int, curves: pa.Table) -> Record:
    """The record of a finished run with these curves."""
    errors = curves["error_pct"].to_pylist()
    return Record(
        cell_id=cell_id,
        seed=seed,
        status="finished",
        epochs=len(errors),
        error_last_pct=errors[-1],
        error_best_pct=min(errors),
        device="cpu",
        threads=1,
        started_at=STARTED_AT + 100 * seed,
        versions={"torch": "2.15.0"},
        timings={"total": SECONDS_PER_EPOCH * len(errors) + 0.5},
    )


def put_run(store: Store, cell: NamedCell, seed: int, **changes: object) -> Record:
    """Puts a run into the store, its record changed as told; `curves=None` leaves them out."""
    epochs = cell.cell.student.epochs
    curves = make_curves(cell.name, seed, epochs=epochs)
    record = make_record(cell_id(cell.cell), seed, curves)
    kept = changes.pop("curves", curves)
    record = dataclasses.replace(record, **changes)  # type: ignore[arg-type]
    store.put_run(record, curves=kept, student=None)  # type: ignore[arg-type]
    return record


def fill_store(store: Store, sweep: Sweep) -> None:
    """Puts every run of a sweep into the store."""
    for cell in sweep.cells:
        store.put_cell(cell_id(cell.cell), canonical_json(cell.cell))
        for seed in sweep.seeds:
            put_run(store, cell, seed)


def make_summaries(store: Store, sweep: Sweep) -> Mapping[str, Mapping[str, float | None]]:
    """Summary metrics of the cells; the stability is a placeholder that differs by cell."""
    summaries: dict[str, dict[str, float | None]] = {}
    for number, cell in enumerate(sweep.cells):
        records = store.records(cell_id(cell.cell))
        last = [record.error_last_pct for record in records if record.error_last_pct is not None]
        best = [record.error_best_pct for record in records if record.error_best_pct is not None]
        summaries[cell_id(cell.cell)] = {
            "error_last": float(np.mean(last)),
            "error_best": float(np.mean(best)),
            "stability": 0.01 * (number + 1),
            "s2": 0.02 * (number + 1),
            "mean_range": None,
        }
    return summaries
