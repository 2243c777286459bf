"""U's weights from equations that are known to hold, and its choice on terms made by hand."""

import numpy as np
import pytest

from airtune.planning.surrogate import Seen, Terms, Weights, choose, fit, normalised

RANKS = [1, 2, 4, 8, 16]
# Less is out of reach of a larger rank, and more of it is not sent.
PHI = [0.5, 0.3, 0.1, 0.02, 0.0]
DROPPED = [0.0, 0.1, 0.3, 0.7, 0.9]
COVARIANCE = [0.1, 0.12, 0.2, 0.25, 0.3]
TERMS = [Terms(*each) for each in zip(PHI, DROPPED, COVARIANCE, strict=True)]


def drops(c, gains=(0.5, 0.2)):
    """Two rounds in which the model holds to the digit."""
    return [
        Seen(number, gain - float(np.dot(c, terms)), terms)
        for number, gain in enumerate(gains)
        for each in TERMS
        for terms in (each, each._replace(dropped=0.0))
    ]


def test_weights_of_drops_that_obey_the_bound_are_found_again():
    weights = fit(drops((0.3, 0.2, 0.05)))
    assert weights.how == "fitted"
    assert weights.c == pytest.approx((0.3, 0.2, 0.05), rel=1e-6)


def test_a_term_that_seems_to_help_weighs_nothing():
    weights = fit(drops((0.3, 0.2, -0.05)))
    assert weights.c.covariance == 0.0
    assert weights.c.phi > 0.0


def test_drops_that_determine_no_weights_give_none():
    assert fit(drops((0.0, 0.0, 0.0))) is None  # ranks do not differ
    only = [
        each._replace(terms=each.terms._replace(dropped=0.0, covariance=0.0))
        for each in drops((0.0, 0.0, 0.0))
    ]
    helping = [each._replace(drop=each.drop + 0.3 * each.terms.phi) for each in only]
    assert fit(helping) is None
    assert fit(drops((0.3, 0.2, 0.05))[:4]) is None  # as many unknowns as equations
    alike = [each._replace(terms=Terms(0.5, 0.2, 0.1)) for each in drops((0.3, 0.2, 0.05))]
    assert fit(alike) is None


def test_a_term_that_is_zero_throughout_is_left_out():
    seen = [
        each._replace(terms=each.terms._replace(dropped=0.0)) for each in drops((0.3, 0.0, 0.1))
    ]
    assert fit(seen).c == pytest.approx((0.3, 0.0, 0.1), rel=1e-6)


def test_normalised_terms_are_one_at_rank_8():
    weights = normalised(RANKS, TERMS)
    assert weights.value(TERMS[3]) == pytest.approx(3.0)
    assert weights.c == pytest.approx((1 / 0.02, 1 / 0.7, 1 / 0.25))


def test_without_rank_8_the_middle_counts_and_zeros_there_do_not_divide():
    ranks, terms = [1, 2, 4], [Terms(0.5, 0.0, 0.0), Terms(0.2, 0.0, 0.0), Terms(0.0, 0.3, 0.0)]
    assert normalised(ranks, terms).c == pytest.approx((5.0, 1 / 0.3, 0.0))


@pytest.mark.parametrize(("c", "chosen"), [((1, 0, 0), 16), ((0, 1, 0), 1), ((1, 0.5, 0), 4)])
def test_the_choice_is_the_least_u(c, chosen):
    weights = Weights(Terms(*c), "fitted")
    # By hand for (1, 0.5, 0): 0.5, 0.35, 0.25, 0.37, 0.45.
    assert choose(RANKS, [weights.value(each) for each in TERMS]) == chosen


def test_of_equal_ranks_the_smallest_is_chosen():
    assert choose([2, 4, 8], [0.2, 0.1, 0.1]) == 4
