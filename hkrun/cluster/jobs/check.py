"""The job that runs before the real one, and asks every node whether it can do the work. A program.

`python -m hkrun.cluster.jobs.check NEEDS` joins the cluster that it runs on, asks its nodes, and prints one
line with their answers for `submitting`. NEEDS is a `nodes.reports.Needs` as JSON. The exit status is 0 with
any answer, also a bad one.
"""

import dataclasses
import json
import logging
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hkrun.cluster.nodes.reports import Needs

MARK = "HKRUN-CHECK "


def main(argument: str) -> None:
    """Prints the answer."""
    from hkrun.cluster.nodes.reports import Needs
    from hkrun.errors import HkrunError

    try:
        answer = _ask(Needs(**json.loads(argument)))
    except HkrunError as error:
        answer = {"exit_code": error.exit_code, "problems": error.problems}
    sys.stdout.write(f"\n{MARK}{json.dumps(answer)}\n")


def _ask(needs: "Needs") -> dict[str, object]:
    import ray

    from hkrun.cluster.nodes.checks import check_nodes
    from hkrun.cluster.nodes.reports import note_versions

    ray.init(address=os.environ.get("RAY_ADDRESS", "auto"), log_to_driver=False, logging_level=logging.ERROR)
    reports = check_nodes(needs)
    return {
        "exit_code": 0,
        "nodes": [dataclasses.asdict(report) for report in reports],
        "notes": note_versions(reports, needs),
    }


if __name__ == "__main__":
    main(sys.argv[1])
