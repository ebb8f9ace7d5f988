"""What looked wrong in a run that went through all the same."""

from collections.abc import Mapping, Sequence

from hkrun.records import ACCURACY, SPREAD, STUDENT_MEAN
from hkrun.training import Context, EvaluationSet, TrainingSet, gather

# A discriminator that is like this over the last tenth of the epochs gives the student nothing to learn from:
# it says the same whatever it sees (standard deviation of its probabilities), or it is never wrong.
CONSTANT_SPREAD = 1e-3
WINNING_ACCURACY = 0.99

MOST_NAMED = 10  # unusable images in an alarm; the log has them all


def find_discriminator_warnings(history: Sequence[Mapping[str, float | None]]) -> list[str]:
    """Says when the discriminator ended in a state that gives the student no gradient."""
    tail = history[-max(1, len(history) // 10) :]
    if not tail or ACCURACY not in tail[-1]:
        return []

    def mean(name: str) -> float:
        return sum(float(str(row[name])) for row in tail) / len(tail)

    belief, accuracy = mean(STUDENT_MEAN), mean(ACCURACY)
    alarms = []
    if mean(SPREAD) < CONSTANT_SPREAD:
        alarms.append(f"the discriminator is constant: it says {belief:.3f} to whatever it sees")
    if accuracy > WINNING_ACCURACY:
        alarms.append(f"the discriminator wins outright: it tells {100 * accuracy:.1f} % apart")
    return alarms


def find_damage_warnings(sets: Mapping[str, TrainingSet | EvaluationSet], context: Context) -> list[str]:
    """Names the images that could not be used, by part; every worker must call it, as each saw its own."""
    alarms = []
    for part, images in sets.items():
        names = sorted(set().union(*gather(set(images.unusable), context)))
        if names:
            shown = ", ".join(f"{part}/{name}" for name in names[:MOST_NAMED])
            rest = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
            alarms.append(f"{len(names)} unusable image(s) passed over: {shown}{rest}")
    return alarms
