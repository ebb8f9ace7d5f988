"""What the HKSANC paper published: its figures, and its claims as comparisons that a report can judge."""

import dataclasses
import functools
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from hkrun.spaces import Sweep


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """One row of a published table.

    Attributes:
        name: The row's name, the same as the cell's in the sweep that reproduces it.
        figures: One per column of the table; None where the paper gives none.
        source: "own", or "cited" where the authors most likely copied it from an earlier paper.
        is_teacher: Whether it is the other rows' teacher, and so no cell of its own.
        network: What it was measured on there, where that is another network than here; else empty.
    """

    name: str
    figures: tuple[float | None, ...]
    source: str
    is_teacher: bool
    network: str


@dataclass(frozen=True, kw_only=True)
class PublishedTable:
    """One table of the paper.

    Attributes:
        measure: "error" in percent, or "stability" in (percentage points) squared.
        reference: Name of the row that the others are compared with.
    """

    title: str
    measure: str
    columns: tuple[str, ...]
    reference: str
    rows: tuple[PublishedRow, ...]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement of the paper.

    Attributes:
        table: The table or figure it is about; "text" where it stands in none.
        kind: "error", "stability", "error-gain" or "equivalence"; "s2" of one on stability that is judged on
            S2 in place of the S that the paper published.
        statement: The statement in words.
        pairs: Names of rows, (better, worse): the statement says that the better one's figure is lower. In an
            "error-gain" each is "A over B", the error of A minus that of B. "ROW on DATASET" is that row on
            another data set than the sweep's.
        epochs: Which error counts. "last": of the last epoch; "all": the mean over all epochs; "after drop":
            over those after the first drop of the learning rate; "after drop, minus before": that minus the
            mean over those before it.
        datasets: Those that it compares, where its rows are of several.
        keys: Of an "equivalence": the keys whose values are said not to matter.
        between: The lowest and the highest of these values.
        one_sided: Whether it says only that no other value is better than the default.
    """

    id: str
    table: str
    kind: str
    statement: str
    pairs: tuple[tuple[str, str], ...]
    epochs: str = "last"
    datasets: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    between: tuple[float, float] = (0.0, math.inf)
    one_sided: bool = False

    @property
    def judged_on(self) -> str:
        """The figure that its verdict is about."""
        return {"stability": "S", "s2": "S2"}.get(self.kind, "error")

    @property
    def family(self) -> str:
        """What its tests are corrected together with: those of its table, or itself alone."""
        return self.id if self.table == "text" else self.table


@dataclass(frozen=True, kw_only=True)
class Published:
    """All that the paper published, by table."""

    tables: Mapping[str, PublishedTable]
    claims: tuple[Claim, ...]

    def claims_on(self, sweep: Sweep) -> list[Claim]:
        """Those of the sweep's tables, and those that it names."""
        return [claim for claim in self.claims if claim.table in sweep.published or claim.id in sweep.claims]

    def claims_on_s2(self, sweep: Sweep) -> list[Claim]:
        """Those of them on stability, to be judged on S2."""
        return [
            dataclasses.replace(claim, kind="s2")
            for claim in self.claims_on(sweep)
            if claim.kind == "stability"
        ]

    def measure_of(self, sweep: Sweep) -> str:
        """What a sweep's question is about: what its file says, else the measure of its first table."""
        tables = [self.tables[name].measure for name in sweep.published if name in self.tables]
        return sweep.measure or next(iter(tables), "error")


@functools.cache
def load_published() -> Published:
    """Reads the figures and claims that hkrun ships."""
    document = tomllib.loads(resources.files("hkrun").joinpath("published.toml").read_text(encoding="utf-8"))
    claims = document.pop("claims")
    tables = {name: _read_table(table) for name, table in document.items() if "rows" in table}
    return Published(tables=tables, claims=tuple(_read_claim(claim) for claim in claims))


def _read_table(table: Mapping[str, Any]) -> PublishedTable:
    rows = [
        PublishedRow(
            name=row["name"],
            figures=tuple(None if figure == "-" else float(figure) for figure in row[table["measure"]]),
            source=row["source"],
            is_teacher=row.get("role") == "teacher",
            network=row.get("network", ""),
        )
        for row in table["rows"]
    ]
    return PublishedTable(
        title=table["title"],
        measure=table["measure"],
        columns=tuple(table["columns"]),
        reference=table["reference"],
        rows=tuple(rows),
    )


def _read_claim(claim: Mapping[str, Any]) -> Claim:
    better, worse = claim.get("better", []), claim.get("worse", [])
    if isinstance(better, list) and isinstance(worse, list):
        pairs = tuple(zip(better, worse, strict=True))  # each with its own counterpart
    else:
        pairs = tuple((one, other) for one in _listed(better) for other in _listed(worse))
    low, high = claim.get("between", (0.0, math.inf))
    return Claim(
        id=claim["id"],
        table=claim["table"],
        kind=claim["kind"],
        statement=claim["statement"],
        pairs=pairs,
        epochs=claim.get("epochs", "last"),
        datasets=tuple(claim.get("datasets", ())),
        keys=tuple(claim.get("keys", ())),
        between=(low, high),
        one_sided=claim.get("one_sided", False),
    )


def _listed(names: str | list[str]) -> list[str]:
    return [names] if isinstance(names, str) else names
