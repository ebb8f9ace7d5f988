"""A plan, as it is looked at."""

import io
from typing import TYPE_CHECKING

from hkrun.interface.html import escape, table

if TYPE_CHECKING:
    from hkrun import sweep


class Plan:
    """What `hkrun.run` with the same arguments would train, and for how long.

    Attributes:
        name: What the study is called in the store.
        dataset: The data set.
        runs: Runs that the study has, each configuration counted once.
        done: Those with a result, which are used.
        to_run: Those that would be made.
        seconds: How long that takes, estimated; None where nothing is known.
    """

    def __init__(self, study: "sweep.Study") -> None:
        self._study = study
        self.name, self.dataset = study.sweep.name, study.sweep.dataset
        self.runs, self.done, self.to_run = study.plan.num_runs, study.plan.num_done, study.plan.num_to_run
        self.seconds = study.estimate.seconds

    def document(self) -> dict[str, object]:
        """All of it, as `hkrun sweep --dry-run --json` prints it."""
        return self._study.document()

    def __repr__(self) -> str:
        from hkrun.cli.console import PlainConsole
        from hkrun.cli.planned import plan_lines, print_cells

        console = PlainConsole(file=(text := io.StringIO()), width=100)
        print_cells(console, self._study)
        for line in plan_lines(self._study):
            console.print(line, soft_wrap=True)
        return text.getvalue().strip("\n")

    def _repr_html_(self) -> str:
        from hkrun.cli.planned import FIGURES, list_cells, plan_lines
        from hkrun.spaces import name_cells

        names = name_cells(self._study.sweep.cells)
        rows = [
            (identity, *names.fields[name], *figures)
            for name, (identity, figures) in list_cells(self._study.plan).items()
        ]
        cells = table(("id", *names.headings, *FIGURES), rows, words=1 + len(names.headings))
        lines = [*filter(None, [names.explanation]), *plan_lines(self._study)]
        heading = self._study.sweep.heading
        return f"<p><b>{escape(heading)}</b></p>{cells}<p>{'<br>'.join(map(escape, lines))}</p>"
