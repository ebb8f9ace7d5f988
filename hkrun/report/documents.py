"""The report as files: HTML that needs nothing beside it, Markdown, and the figures."""

import base64
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace

import jinja2
import matplotlib.figure
from markupsafe import Markup, escape

from hkrun import figures, stats
from hkrun.config import Value, cell_id, cell_values
from hkrun.report import tables
from hkrun.report.summary import Summary
from hkrun.report.wording import count, describe_teacher, digits, duration, write_findings
from hkrun.store import Store

_MARKDOWN = re.compile(r"([\\`*<>|\[\]$#~])")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure of the report: its file's name without ending, what it shows, and its two forms."""

    name: str
    caption: str
    svg: bytes
    png: bytes

    @property
    def uri(self) -> str:
        """The figure as an address that holds it."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg).decode()


def write_report(summary: Summary, store: Store) -> dict[str, str]:
    """Writes the report into the sweep's folder of the store, beside what else is there.

    Returns:
        Where each file is, by name: a path on a local store, else a URI.
    """
    files = render_report(summary)
    folder = store.sweep_folder(summary.sweep.name, summary.sweep.dataset)
    store.commit(folder, files, keep=[name for name in store.names(folder) if name not in files])
    place = str(store.local_path / folder) if store.local_path else f"{store.place}/{folder}"
    return {name: f"{place}/{name}" for name in files}


def render_report(summary: Summary) -> dict[str, bytes]:
    """The report's files by name: report.html, report.md, and each figure as .png and .svg.

    The same summary gives the same bytes.
    """
    drawn = _draw(summary)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hkrun.report"),
        autoescape=jinja2.select_autoescape(enabled_extensions=("html",)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["typeset"] = _typeset
    environment.filters["plain"] = lambda text: _MARKDOWN.sub(r"\\\1", " ".join(str(text).split()))
    content = _gather(summary) | {"figures": drawn}
    files = {
        name: environment.get_template(name).render(content).encode() for name in ("report.html", "report.md")
    }
    for figure in drawn.values():
        files |= {f"{figure.name}.png": figure.png, f"{figure.name}.svg": figure.svg}
    return files


def _typeset(text: str) -> Markup:
    """Text for HTML: escaped, with sub- and superscripts in the names of losses."""

    def symbol(match: re.Match[str]) -> str:
        letter, below, above = match.groups()
        return f"<i>{letter}</i><sub>{below}</sub>" + (f"<sup>{above}</sup>" if above else "")

    return Markup(figures.SYMBOL.sub(symbol, str(escape(text))))  # noqa: S704  escaped first


def _draw(summary: Summary) -> Mapping[str, Figure]:
    sweep = summary.sweep
    curves = [
        figures.CellCurves(name=cell.name, error_pct=cell.error_pct, diverged=cell.diverged_curves)
        for cell in summary.cells
    ]
    defined = [curve for curve, cell in zip(curves, summary.cells, strict=True) if cell.stability]
    drawn = {
        "errors": _encode(
            "error-curves",
            "Test error over training, mean over the finished runs. Where there are bands, they reach one "
            f"standard deviation to either side. Right: the last {sweep.window} epochs, over which S is "
            "taken. A thin line that ends in a cross is a diverged run; it is in no mean.",
            figures.draw_errors(curves, window=sweep.window),
        )
    }
    if defined:
        drawn["ranges"] = _encode(
            "ranges",
            "What S measures: the range of the test error over runs at each epoch of the window. S is the "
            "variance of this line; the band reaches the square root of S to either side of its mean "
            "(dashed). A line that is high but flat has a small S.",
            figures.draw_ranges(defined, window=sweep.window, ddof=sweep.ddof),
        )
    if summary.comparisons:
        drawn["differences"] = _encode(
            "differences",
            f"Error of the last epoch minus that of {sweep.reference}, paired by seed: each seed a dot, the "
            "mean a diamond in its 95 % interval.",
            figures.draw_differences(
                [
                    figures.PairedDifferences(
                        name=item.cell, by_seed=item.by_seed, mean=item.difference, ci95=item.ci95
                    )
                    for item in summary.comparisons
                ],
                reference=sweep.reference or "",
            ),
        )
    return drawn


def _encode(name: str, caption: str, figure: matplotlib.figure.Figure) -> Figure:
    return Figure(
        name=name,
        caption=caption,
        svg=figures.encode(figure, "svg"),
        png=figures.encode(figure, "png"),
    )


def _gather(summary: Summary) -> dict[str, object]:
    """What the templates show, as text and tables."""
    sweep = summary.sweep
    shared, own = tables.tabulate_configuration(summary)
    finished = sum(len(cell.seeds) for cell in summary.cells)
    spent = sum(record.timings.get("total", 0.0) for record in summary.records)
    quantum = summary.quantum_pct
    return {
        "title": sweep.title,
        "question": sweep.question,
        "facts": [
            f"data set {sweep.dataset}",
            *_shared_facts(summary),
            count(len(sweep.cells), "cell"),
            count(len(sweep.seeds), "seed"),
            f"{finished} of {count(len(sweep.cells) * len(sweep.seeds), 'run')} finished",
            f"{duration(spent)} of training, summed over runs",
        ],
        "findings": list(write_findings(summary)),
        "warnings": summary.warnings,
        "errors": tables.tabulate_errors(summary),
        "stability": tables.tabulate_stability(summary),
        "published": tables.tabulate_published(summary),
        "published_title": summary.published.title if summary.published else "",
        "claims": tables.tabulate_claims(summary),
        "runs": tables.tabulate_runs(summary),
        "unfinished": tables.tabulate_unfinished(summary),
        "shared": shared,
        "own": own,
        "time": tables.tabulate_time(summary),
        "conditions": tables.tabulate_conditions(summary),
        "teachers": [describe_teacher(teacher) for teacher in summary.teachers],
        "quantum": digits(quantum) if quantum is not None else "",
        "test_images": round(100 / quantum) if quantum is not None else 0,
        "reference": sweep.reference or "",
        "window": sweep.window,
        "ddof": sweep.ddof,
        "level_pct": f"{100 * stats.LEVEL:.0f}",
        "permutations": f"{stats.PERMUTATIONS:,}",
        "command": _command(summary),
        "source": sweep.source,
    }


def _shared_facts(summary: Summary) -> list[str]:
    """The student and its epochs, where they are those of all cells."""
    students = {(cell.cell.student.network, cell.cell.student.epochs) for cell in summary.cells}
    if len(students) > 1:
        return []
    ((network, epochs),) = students
    return [f"student {network}", count(epochs, "epoch")]


def _command(summary: Summary) -> str:
    sweep = summary.sweep
    cell, own = sweep.cells[0].cell, sweep.recipe.cell
    if sweep.name == f"run-{cell_id(replace(cell, dataset_sha256=''))}":  # of `hkrun run`, not of a file
        values, standard = cell_values(cell), cell_values(own)
        changed = [f"{key}={_toml(value)}" for key, value in values.items() if value != standard[key]]
        call = shlex.join(["hkrun", "run", *changed])
    else:
        call = shlex.join(["hkrun", "sweep", sweep.name])
    count_only = sweep.seeds == tuple(range(len(sweep.seeds)))
    chosen = str(len(sweep.seeds)) if count_only else ",".join(map(str, sweep.seeds))
    return f"{call} --dataset {sweep.dataset} --seeds {chosen}"


def _toml(value: Value) -> str:
    return value if isinstance(value, str) and value else json.dumps(value)
