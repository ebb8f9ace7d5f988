"""The command line: verbs in, exit codes out.

    program.py      the entry point: signals, errors, exit codes
    verbs.py        how verbs and their help look
    invocation.py   the options that all verbs share, and where output goes
    running.py      sweep, run, teacher, resume: what is planned, what came out
    onward.py       what they say last: report, MLflow, the command to go on with
    planned.py      a plan in words
    options.py      their options
    submitting.py   submit
    jobs.py         logs, cancel, status --address
    browsing.py     spaces, new, ls
    removing.py     rm, gc
    results.py      report, status
    watching.py     status --watch
    comparing.py    compare
    curves.py       stability
    keys.py         keys
    mirroring.py    sync, ui
    stored.py       the sweeps of a store by name
    exporting.py    export
    data.py         data pack, data verify
    doctor.py       doctor
    display.py      the live view of a running sweep
    console.py      what it and all other output is printed to
    completion.py   completion, and what a shell asks at a TAB
    candidates.py   what arguments and options offer there
    version.py      hkrun --version
    cell_tables.py  tables whose rows have names, on terminals of any width
    streams.py      stdout and stderr in any encoding

Nothing heavy is imported before a verb needs it: `hkrun --help` must answer at once.
"""

from hkrun.cli.program import main
