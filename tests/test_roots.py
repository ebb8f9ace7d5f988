"""Roots of functions of one number, against ones that are known and SciPy's."""

import math

import pytest
import scipy.optimize

from hkrun.stats import roots
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


@pytest.mark.parametrize("sign", [1, -1], ids=["rises", "falls"])
@pytest.mark.parametrize("ends", [(1.0, 4.0), (4.0, 1.0), (1.0, 1.0)], ids=str)
@pytest.mark.parametrize("root", [1.0, 4.0])
def test_a_root_at_an_end_is_that_end_and_nothing_else_is_asked(root, ends, sign):
    asked = []
    if root in ends:
        assert find_root(lambda x: asked.append(x) or sign * (x - root), *ends) == root
        assert set(asked) <= set(ends)
    else:
        with pytest.raises(ValueError, match="no root between 1 and 1"):
            find_root(lambda x: sign * (x - root), *ends)


@pytest.mark.parametrize("sign", [1, -1], ids=["rises", "falls"])
def test_ends_of_all_of_float64_take_less_than_the_most_steps(sign):
    assert find_root(lambda x: sign * (1.0 if x > 1 / 3 else -1.0), -1e308, 0.7e308) == pytest.approx(1 / 3)


@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_a_value_that_is_no_number_ends_the_search(place):
    with pytest.raises(ValueError, match=r"no root between 0 and 1: .* (is NaN|nan)"):
        find_root(lambda x: math.nan if x == place else x - 0.4, 0.0, 1.0)


def test_the_search_ends_after_its_most_steps(monkeypatch):
    monkeypatch.setattr(roots, "_MOST_STEPS", 3)
    with pytest.raises(ValueError, match="no root between 0 and 1 after 3 steps"):
        find_root(lambda x: 1.0 if x > 1 / 3 else -1.0, 0.0, 1.0)


def test_two_ends_of_one_sign_whose_product_underflows_are_refused():
    with pytest.raises(ValueError, match="no root between"):
        find_root(lambda x: 1e-200, 0.0, 1.0)


def test_a_smooth_function_is_asked_about_as_often_as_scipy_asks():
    def count(find):
        calls = []
        find(lambda x: calls.append(x) or math.tanh(x - 0.3), -10.0, 10.0)
        return len(calls)

    assert count(find_root) <= count(scipy.optimize.brentq) + 5


def test_two_ends_of_one_sign_are_refused():
    with pytest.raises(ValueError, match="no root between"):
        find_root(lambda x: x * x + 1, -1.0, 1.0)
