import hashlib

import pytest

from hkrun.seeding import Purpose, derive


@pytest.mark.parametrize(
    ("seed", "purpose", "index", "expected"),
    [
        (0, Purpose.STUDENT, 0, 94920157230445234),
        (7, Purpose.ORDER, 12, 6164490442799547193),
        (0, Purpose.TEACHER, 0, 2767410273807688004),
    ],
)
def test_derived_seeds_never_change(seed, purpose, index, expected):
    """Every stored run was made with these: another value would make every result irreproducible."""
    assert derive(seed, purpose, index) == expected


def test_a_derived_seed_is_63_bits_of_the_sha256_of_its_arguments():
    first_bytes = hashlib.sha256(b"hkrun:discriminator:123456789012:3").digest()[:8]
    assert derive(123456789012, Purpose.DISCRIMINATOR, 3) == int.from_bytes(first_bytes, "big") // 2


def test_streams_of_different_seeds_purposes_and_indices_share_no_value():
    values = [
        derive(seed, purpose, index) for seed in range(50) for purpose in Purpose for index in range(20)
    ]
    assert len(set(values)) == len(values)
    assert all(0 <= value < 2**63 for value in values)


def test_a_teacher_shares_nothing_with_a_run_of_the_same_seed():
    teachers = {purpose for purpose in Purpose if purpose.startswith("teacher")}
    runs = set(Purpose) - teachers
    assert (len(teachers), len(runs)) == (5, 8)
    assert not {derive(0, purpose) for purpose in teachers} & {derive(0, purpose) for purpose in runs}


def test_arguments_cannot_run_into_each_other():
    """Seed 1 with index 12 and seed 11 with index 2 would, were they just written one after the other."""
    assert derive(1, Purpose.ORDER, 12) != derive(11, Purpose.ORDER, 2)
