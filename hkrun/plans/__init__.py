"""What a sweep still has to run, given what the store holds, and what that will cost.

plans.py     what a plan is
planning.py  the comparison of a sweep with the store
packs.py     how many runs train together
rounds.py    in which rounds seeds come until all is decided
teacher_tables.py  which teachers have a table, and when it is filled
estimate.py  how long it will take
workers.py   how many processes train one task together
kept.py      what the store keeps of a sweep that was started
finding.py   the same, by what the user calls it
begun.py     how far what has not come to its end is kept
executions.py  and of where its time went
looks.py     and of when its verdicts were read
startup.py   what comes on top of training, by those
limits.py    which cells too large a step will lose
power.py     what its seeds can decide
round_power.py  what rounds of them can, and how many it takes
precision.py  whether bfloat16 would be quicker
"""

from hkrun.plans.begun import Begun, find_begun
from hkrun.plans.estimate import Estimate, estimate_costs, estimate_time
from hkrun.plans.executions import EXECUTIONS_FILE, OVERHEADS, Execution, load_executions, save_executions
from hkrun.plans.finding import find_plan, find_plans
from hkrun.plans.kept import (
    PLAN_FILE,
    STOPPED_FILE,
    StoppedRun,
    StoredPlan,
    checkpoint_epoch,
    kept_sizes,
    load_stopped,
    reached_epochs,
    save_plan,
    save_stopped,
    stored_plan,
    stored_plans,
)
from hkrun.plans.limits import (
    REHEARSAL_SEEDS,
    LimitWarning,
    Rehearsal,
    find_weight_key,
    foresee_limits,
    load_rehearsal,
    save_rehearsal,
    stability_limit,
)
from hkrun.plans.looks import (
    LOOKS_FILE,
    Looks,
    SequentialPlan,
    load_looks,
    record_look,
    record_look_of_before,
    save_looks,
)
from hkrun.plans.packs import (
    PackingFacts,
    choose_sizes,
    choose_teacher_sizes,
    why_alone,
    why_teachers_alone,
)
from hkrun.plans.planning import OtherCode, find_teachers, list_teachers, make_plan
from hkrun.plans.plans import (
    NO_SHORTCUTS,
    Pack,
    Plan,
    PlannedCell,
    PlannedTeacher,
    Shortcuts,
)
from hkrun.plans.power import Power, describe_power, foresee_power
from hkrun.plans.precision import PrecisionAdvice, advise_precision
from hkrun.plans.round_power import RoundsForecast, describe_rounds, foresee_rounds
from hkrun.plans.rounds import Look, expect_questions, find_allowed, form_rounds
from hkrun.plans.startup import Startup, find_startup
from hkrun.plans.teacher_tables import PlannedTable, describe_tables
from hkrun.plans.workers import ALONE, AUTO, Span, Workers, check_elastic
