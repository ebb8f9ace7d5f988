"""Seeds: (seed, purpose, index) -> an independent 64-bit number.

A run's seed never feeds a generator directly. Each purpose draws from its own stream, so that switching one
part off (the discriminator, say) leaves every other stream as it was, and seed k means the same
initialisation, data order and augmentation in every cell: comparisons between cells are paired.
"""

import hashlib
from enum import StrEnum


class Purpose(StrEnum):
    """What a stream of random numbers is for."""

    STUDENT = "student"  # initial weights of the student's backbone
    ATTENTION = "attention"  # initial weights of its attention sub-network
    DISCRIMINATOR = "discriminator"  # initial weights of the discriminator
    OBJECTIVE = "objective"  # initial weights of what a loss term learns, one stream per stage
    TERMS = "terms"  # what loss terms draw, one stream per epoch and worker
    DROPOUT = "dropout"  # what the discriminator does not see of the student's features, one stream per epoch
    ORDER = "order"  # the order of the training images, one stream per epoch
    AUGMENTATION = "augmentation"  # the view of each training image, one stream per epoch
    # The teacher's streams are apart from the runs': teacher seed 0 shares nothing with run seed 0.
    TEACHER = "teacher"
    TEACHER_ATTENTION = "teacher-attention"
    TEACHER_CLASSIFIER = "teacher-classifier"
    TEACHER_ORDER = "teacher-order"
    TEACHER_AUGMENTATION = "teacher-augmentation"


def derive(seed: int, purpose: Purpose, index: int = 0) -> int:
    """Derives the number that seeds one generator.

    Args:
        seed: The seed of the run, or of the teacher.
        purpose: What the generator is for.
        index: Which one of a series, such as the epoch.

    Returns:
        An integer in [0, 2**63), from the first eight bytes of a SHA-256: streams of different arguments are
        unrelated, and the result is the same on every machine and version.
    """
    digest = hashlib.sha256(f"hkrun:{purpose}:{seed}:{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
