"""Errors are held as whole numbers of images where they are such, and read as what they were."""

import numpy as np
import pytest

from hkrun.report.error_curves import ErrorCurves

IMAGES = 1107


def make_numbers(runs=5, epochs=40):
    return np.random.default_rng(0).integers(0, IMAGES + 1, (runs, epochs))


FORMS = {
    "100 * n / N": lambda numbers: 100 * numbers / IMAGES,
    "100 * (n / N)": lambda numbers: 100 * (numbers / IMAGES),
    "100 - accuracy": lambda numbers: 100 - 100 * (1 - numbers / IMAGES),
    "float32": lambda numbers: (100 * numbers / IMAGES).astype(np.float32).astype(np.float64),
}


@pytest.mark.parametrize("form", FORMS)
def test_errors_of_any_rounding_come_back_to_the_bit_from_two_bytes_each(form):
    errors = FORMS[form](make_numbers())
    held = ErrorCurves.of(errors, num_images=IMAGES)
    assert held.held.nbytes == errors.nbytes // 4
    for place in (slice(None), (slice(None), -1), (slice(None), slice(-10, None)), (2, 3), [3, 1]):
        assert np.array_equal(held[place], errors[place])
    assert held.shape == errors.shape


def spoil(errors, value):
    errors[2, 3] = value
    return errors


SHARES = FORMS["100 * n / N"](make_numbers())
OTHERS = {
    "no shares": (np.random.default_rng(0).uniform(0, 100, (3, 20)), IMAGES),
    "two errors for one number": (
        spoil(np.full((5, 40), SHARES[0, 0]), np.nextafter(SHARES[0, 0], 0)),
        IMAGES,
    ),
    "more than all": (spoil(SHARES.copy(), 100.5), IMAGES),
    "below none": (spoil(SHARES.copy(), -1.0), IMAGES),
    "unknown number": (SHARES, None),
    "too many images": (SHARES, 2**16),
    "no run": (np.empty((0, 40)), IMAGES),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_errors_are_held_as_they_are(case):
    errors, num_images = OTHERS[case]
    held = ErrorCurves.of(errors, num_images=num_images)
    assert held.held is errors
    assert np.array_equal(held[:], errors)
