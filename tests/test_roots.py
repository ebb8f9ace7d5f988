"""Roots of functions of one number, against ones that are known and SciPy's."""

import math

import pytest
import scipy.optimize

from hkrun.stats.roots import find_root


@pytest.mark.parametrize(
    ("function", "ends", "root"),
    [
        (lambda x: x - 1, (0.0, 3.0), 1.0),
        (lambda x: 1 - x, (0.0, 3.0), 1.0),
        (lambda x: x**3, (-1.0, 2.0), 0.0),
        (lambda x: math.exp(x) - 1e6, (-50.0, 50.0), math.log(1e6)),
        (lambda x: 1.0 if x > 1 / 3 else -1.0, (0.0, 1.0), 1 / 3),
        (lambda x: math.erfc(x - 1e4) - 0.02, (0.0, 3e4), 1e4 + 1.6449763571331872),
    ],
    ids=["rises", "falls", "flat at its root", "bent", "a jump", "flat but for a step far out"],
)
def test_a_root_is_found_to_twelve_digits_whatever_the_shape(function, ends, root):
    assert find_root(function, *ends) == pytest.approx(root, rel=1e-12, abs=1e-12)


def test_a_root_at_an_end_is_found():
    assert find_root(lambda x: x - 1, 1.0, 4.0) == pytest.approx(1, abs=1e-12)
    assert find_root(lambda x: x - 4, 1.0, 4.0) == pytest.approx(4, abs=1e-12)


def test_a_smooth_function_is_asked_about_as_often_as_scipy_asks():
    def count(find):
        calls = []
        find(lambda x: calls.append(x) or math.tanh(x - 0.3), -10.0, 10.0)
        return len(calls)

    assert count(find_root) <= count(scipy.optimize.brentq) + 5


def test_two_ends_of_one_sign_are_refused():
    with pytest.raises(ValueError, match="no root between"):
        find_root(lambda x: x * x + 1, -1.0, 1.0)
