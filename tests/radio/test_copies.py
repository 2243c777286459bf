"""Copies that add up at a known SNR, against exact distributions and packets drawn one by one."""

import numpy as np
import pytest

from airtune.radio.copies import copies_failure, copies_safe_packets
from airtune.radio.delivery import (
    error,
    expected_passes,
    expected_transmissions,
    failure,
    likely_tries,
    residual_loss,
    safe_packets,
    sample_arq,
)

# Failures of one, two ... copies together: a usual link, a short code, a deep fade.
LAWS = {
    "usual": [0.08, 1e-5, 0.0],
    "short": [0.45, 0.02, 1e-4],
    "faded": [1.0, 1.0, 0.97, 0.4, 0.01, 0.0],
}


def repeats(failures, packets):
    """Return the exact distribution of the repeats of so many packets together."""
    tails = np.array([1.0, *failures, 0.0])
    one = tails[:-1] - tails[1:]  # Pr(n repeats) = f_n - f_(n+1)
    size = 1 << int(np.ceil(np.log2(packets * one.size + 1)))
    return np.clip(np.fft.irfft(np.fft.rfft(one, size) ** packets, size), 0.0, 1.0)


def test_by_hand():
    failures = [0.4, 0.1, 0.0]
    assert copies_failure([0, 1, 2, 3, 9], failures).tolist() == [1.0, 0.4, 0.1, 0.0, 0.0]
    # Of ten packets four come to a second try, and one of these four to a third.
    assert [error(n, failures, "copies") for n in (1, 2, 3, 4)] == pytest.approx(
        [0.4, 0.25, 0.0, 0.0]
    )
    assert expected_transmissions(failures, None, "copies") == pytest.approx(1.5)
    assert expected_transmissions(failures, 2, "copies") == pytest.approx(1.4)
    assert expected_transmissions(failures, 1, "copies") == pytest.approx(1.0)
    assert residual_loss(failures, 2, "copies") == pytest.approx(0.1)
    assert residual_loss([failures, failures], None, "copies").tolist() == [0.0, 0.0]
    # 0.001 of 0.1 is 100 packets too many for two tries; f_3 = 0.
    assert likely_tries(5.0, [failures, [1e-4, 0.0, 0.0]], None, "copies").tolist() == [3.0, 1.0]
    assert likely_tries(5.0, failures, 2, "copies") == 2.0


def test_failures_of_many_links_are_those_of_each():
    both = np.array([[0.4, 0.1, 0.0], [1.0, 0.9, 0.2]])
    assert failure(2, both, "copies").tolist() == [0.1, 0.9]
    assert failure([1, 3], both, "copies").tolist() == [0.4, 0.2]
    assert error(2, both, "copies") == pytest.approx([0.25, 0.9])


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("limit", [None, 3])
def test_sampled_fates_have_the_means_of_the_formulas(name, limit):
    failures, packets, draws = np.array(LAWS[name]), 50, 1000
    rng = np.random.default_rng(0)
    fates = [sample_arq(packets, failures, limit, rng, "copies") for _ in range(draws)]
    tries = np.array([fate.transmissions for fate in fates])
    error = 5 * tries.std() / np.sqrt(draws) + 1e-9
    mean = packets * expected_transmissions(failures, limit, "copies")
    assert tries.mean() == pytest.approx(mean, abs=error)
    passes = np.array([fate.tries for fate in fates])
    error = 5 * passes.std() / np.sqrt(draws) + 1e-9
    expected = expected_passes(packets, failures, limit, "copies")
    assert passes.mean() == pytest.approx(expected, abs=error)
    lost = 1 - (1 - residual_loss(failures, limit, "copies")) ** packets
    assert np.mean([fate.lost for fate in fates]) == pytest.approx(lost, abs=5 * 0.5 / draws**0.5)


@pytest.mark.parametrize("name", LAWS)
def test_a_packet_ends_where_its_copies_reach_what_it_needs(name):
    # Each packet draws the SNR that it needs, with Pr(need > n snr) = f_n; copies are added up.
    failures = np.array(LAWS[name])
    chance = np.random.default_rng(1).random(100_000)
    needed = 1 + (chance[:, None] < failures).sum(1)
    rng = np.random.default_rng(2)
    drawn = sample_arq(100_000, failures, None, rng, "copies").transmissions
    spread = needed.std() * np.sqrt(2 * 100_000)
    assert drawn == pytest.approx(needed.sum(), abs=5 * spread + 1)


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("tries", [1, 2, 5, 10, 100, 1000, 20_000])
def test_safe_packets_against_the_exact_quantile(name, tries):
    failures = np.array(LAWS[name])
    found = int(safe_packets(float(tries), failures, None, "copies"))

    def fits(packets):
        spare = tries - packets
        return spare >= 0 and repeats(failures, packets)[: spare + 1].sum() >= 0.999 - 1e-9

    assert found == 0 or fits(found)
    # A few packets are given away, and a little more where the spread is large.
    more = int(np.ceil(3 + 0.002 * tries))
    assert not fits(found + more)


def test_copies_that_help_never_promise_less_than_none():
    for name in ("usual", "short"):
        tries = np.arange(2000.0)
        together = safe_packets(tries, np.tile(LAWS[name], (2000, 1)), None, "copies")
        alone = safe_packets(tries, np.full(2000, LAWS[name][0]))
        assert (together >= alone).all()
        assert together[-1] > 1.005 * alone[-1]


def test_a_link_without_a_chance_delivers_nothing():
    assert safe_packets([0.0, 1.0, 1e6], 1.0).tolist() == [0.0, 0.0, 0.0]
    assert safe_packets([0.0, 1.0, 1e6], np.ones((3, 4)), None, "copies").tolist() == [
        0.0,
        0.0,
        2e5,
    ]


def test_rare_failures_cost_no_packet():
    # One packet in a thousand messages: whatever is sent at once fits.
    assert safe_packets([1.0, 7.0], [[1e-5], [1e-5]], None, "copies").tolist() == [1.0, 7.0]
    assert safe_packets(10.5, [0.0], None, "copies") == 10.5
    # Two tries hold one packet that needs a third once in 10,000 times.
    assert copies_safe_packets(2.0, [0.4, 1e-4], 1e-3) == 1.0
    assert copies_safe_packets(0.0, [0.4, 1e-4], 1e-3) == 0.0
