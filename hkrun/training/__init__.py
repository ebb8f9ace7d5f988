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
from hkrun.training.epochs import Averages, Diverged, find_divergence
from hkrun.training.images import (
    STUDENT_DRAWS,
    TEACHER_DRAWS,
    Batch,
    Draws,
    Errors,
    EvaluationSet,
    Images,
    NotFiniteError,
    ResidentEvaluationSet,
    ResidentTrainingSet,
    StreamedEvaluationSet,
    StreamedTrainingSet,
    TrainingSet,
)
from hkrun.training.precision import autocast, resolve_dtype
from hkrun.training.transfers import move

__all__ = [
    "STUDENT_DRAWS",
    "TEACHER_DRAWS",
    "Averages",
    "Batch",
    "Context",
    "Diverged",
    "Draws",
    "Errors",
    "EvaluationSet",
    "GradientSum",
    "Images",
    "NotFiniteError",
    "PeerLostError",
    "ResidentEvaluationSet",
    "ResidentTrainingSet",
    "SingleProcess",
    "StreamedEvaluationSet",
    "StreamedTrainingSet",
    "TrainingSet",
    "autocast",
    "find_divergence",
    "gather",
    "gather_rows",
    "move",
    "own_part",
    "resolve_dtype",
    "share_from_first",
    "sum_over_workers",
]
