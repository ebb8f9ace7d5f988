"""What both stages of training share: images, the schedule, the figures of an epoch, and work in step."""

from hkrun.training.context import (
    Context,
    GradientSum,
    PeerLostError,
    SingleProcess,
    gather,
    gather_rows,
    own_part,
    share_from_first,
    sum_over_workers,
)
from hkrun.training.epochs import Averages, Diverged, find_behind, find_divergence
from hkrun.training.images import (
    STUDENT_DRAWS,
    TEACHER_DRAWS,
    Batch,
    Errors,
    EvaluationSet,
    Images,
    ResidentEvaluationSet,
    ResidentTrainingSet,
    StreamedEvaluationSet,
    StreamedTrainingSet,
    TrainingSet,
)
from hkrun.training.precision import autocast, resolve_dtype
from hkrun.training.transfers import move
