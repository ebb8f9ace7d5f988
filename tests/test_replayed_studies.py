"""Replays of sequential studies decide as the functions do that a study in progress asks."""

import numpy as np
import pytest
from replayed_studies import replay

from hkrun.stats import holm
from hkrun.stats.sequential import plan_looks, sequential_difference, sequential_equivalence


@pytest.mark.parametrize("shift", [0.0, 1.6])
def test_a_replay_ends_where_holms_correction_of_the_sequential_p_does(shift: float) -> None:
    looks, margins = plan_looks(9), np.array([1.0, 1.5])
    studies = np.random.default_rng(1).normal([shift, 0.2], 0.9, (12, 9, 2))
    found = replay(studies, margins, looks)
    assert len(np.unique(found.pairs)) > 1
    for number, study in enumerate(studies):
        ends = [None, None]
        for pairs in looks:
            columns = study[:pairs].T
            of_difference = holm([sequential_difference(column, looks).p for column in columns])
            of_equivalence = holm(
                [
                    sequential_equivalence(column, looks, margin=margin).p
                    for column, margin in zip(columns, margins, strict=True)
                ]
            )
            for question, ps in enumerate(zip(of_difference, of_equivalence, strict=True)):
                if ends[question] is None and (min(ps) <= 0.05 or pairs == looks[-1]):
                    different = ps[0] <= 0.05
                    ends[question] = pairs, different, ps[1] <= 0.05 and not different
        expected = [
            (
                found.pairs[number, question],
                found.different[number, question],
                found.equivalent[number, question],
            )
            for question in range(2)
        ]
        assert ends == expected
