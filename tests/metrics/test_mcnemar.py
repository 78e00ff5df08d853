"""McNemar's test against sums by hand, and paired differences."""

import math

import numpy as np
import pytest

from lstm_jax.metrics import mcnemar, paired_difference


def answers(both, first_only, second_only, neither):
    first = [True] * (both + first_only) + [False] * (second_only + neither)
    second = [True] * both + [False] * first_only + [True] * second_only
    second += [False] * neither
    order = np.random.default_rng(0).permutation(len(first))
    return np.array(first)[order], np.array(second)[order]


def exact(b, c):
    """Two-sided binomial test at 1/2: the tail doubled, at most 1."""
    n = b + c
    tail = sum(math.comb(n, k) for k in range(min(b, c) + 1)) / 2**n
    return min(1, 2 * tail)


@pytest.mark.parametrize("b, c", [(0, 1), (1, 9), (12, 12), (0, 24), (5, 15)])
def test_few_discordant_pairs_are_tested_exactly(b, c):
    found = mcnemar(*answers(50, b, c, 7))
    assert (found.first_only, found.second_only) == (b, c)
    assert found.statistic is None
    assert found.p == pytest.approx(exact(b, c), rel=1e-12)


@pytest.mark.parametrize("b, c", [(13, 12), (40, 20), (20, 40), (100, 0)])
def test_many_are_tested_by_chi_squared_with_correction(b, c):
    found = mcnemar(*answers(10, b, c, 3))
    chi2 = (abs(b - c) - 1) ** 2 / (b + c)
    assert found.statistic == pytest.approx(chi2)
    # of one degree of freedom: the two tails of a normal distribution
    assert found.p == pytest.approx(math.erfc(math.sqrt(chi2 / 2)), rel=1e-9)
    assert found.p == pytest.approx(exact(b, c), abs=0.02)  # it approximates that


def test_equal_answers_and_other_examples():
    same = np.array([True, False, True])
    assert mcnemar(same, same) == (0, 0, None, 1.0)
    with pytest.raises(ValueError, match=r"\(3,\) and \(2,\).*same examples"):
        mcnemar(same, same[:2])


def test_a_paired_difference_knows_the_pairs():
    rng = np.random.default_rng(0)
    hard = 10 * rng.random(400)  # what both find hard
    first, second = hard + 0.3 + 0.1 * rng.normal(size=400), hard
    value, low, high = paired_difference(first, second)
    assert value == pytest.approx((first - second).mean())
    # 1.96 standard errors; 1,000 draws tell a percentile to about 5 %
    error = (first - second).std() / 20
    assert high - value == pytest.approx(1.96 * error, rel=0.15)
    assert value - low == pytest.approx(1.96 * error, rel=0.15)
    back = paired_difference(second, first)
    np.testing.assert_allclose(back, (-value, -high, -low))
