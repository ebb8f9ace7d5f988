"""MLflow: a mirror of what the store holds, written by the driver alone.

    connection.py  where MLflow is, a quiet client for it
    database.py    its SQLite file: made whole or not at all, put aside where it is damaged
    experiments.py which experiment is a sweep's: by the store's mark, else by its runs
    points.py      which points of its curves a run has there
    content.py     what MLflow is to hold of a sweep, as plain data
    runs.py        the MLflow runs of one sweep's experiment: found by tags, made once, replaced when outdated
    tables.py      the same as rows, where MLflow is a SQLite file or PostgreSQL
    mirror.py      a sweep's cells, seeds, summaries and report into its experiment, each thing once
    background.py  the same while the sweep runs, in a thread that never holds training up
    receipt.py     a note in the store that MLflow has it all, so that nothing new needs no MLflow
    view.py        the saved comparison view and the links to it
    removing.py    the experiments of studies that go
    metric_curves.py  curves of a metric, from the runs of any experiment
    server.py      MLflow's own UI on loopback
    supervisor.py  the process that ends that server with hkrun

The store is the truth: what MLflow lacks, because it was away or never asked, `sync` puts there later.
MLflow takes seconds to import, so only the functions that talk to it do.
"""

from hkrun.tracking.background import Mirror
from hkrun.tracking.connection import check_listens, given_uri, is_server, resolve_uri
from hkrun.tracking.metric_curves import read_metric_curves
from hkrun.tracking.mirror import Mirrored, sync
from hkrun.tracking.removing import MirroredStudy, experiment_key, find_mirrored, remove_mirrored
from hkrun.tracking.server import Site, find_ui, serve, ui
from hkrun.tracking.view import Links, find_mirror
