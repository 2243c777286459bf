"""Acknowledged mode against single packets that are sent until they arrive, and by hand."""

import numpy as np
import pytest
from pydantic import ValidationError

from airtune.radio.acknowledged import renewed_cumulants
from airtune.radio.air import Air
from airtune.radio.cell import Cell
from airtune.radio.config import CellConfig
from airtune.radio.delivery import (
    expected_passes,
    expected_transmissions,
    failure,
    likely_tries,
    residual_loss,
    safe_packets,
    sample_arq,
)
from airtune.radio.grant import Grant
from airtune.radio.harq import chase_failures
from airtune.radio.rate import rate_bps
from airtune.scheduling.allocate import allocate

AM = "acknowledged"
ERRORS = np.array([0.0, 0.01, 0.3, 0.6, 0.95])
# Failures of one, two ... copies together: a usual link, a short code, a deep fade.
COPIES = {
    "usual": [0.08, 1e-5, 0.0],
    "short": [0.45, 0.02, 1e-4],
    "faded": [1.0, 1.0, 0.97, 0.4, 0.01, 0.0],
}


def tries_of_packets(q, cycle, packets, seed=0):
    """Return each packet's tries: exponential fades that add up to -ln(1 - q), N at a time."""
    rng, threshold = np.random.default_rng(seed), -np.log1p(-q)
    tries, pending = np.zeros(packets, dtype=int), np.arange(packets)
    while pending.size:
        added = rng.exponential(1.0, (pending.size, cycle)).cumsum(1)
        passed = added[:, -1] >= threshold
        tries[pending] += np.where(passed, 1 + (added < threshold).sum(1), cycle)
        pending = pending[~passed]
    return tries


def exact_tries(q, cycle, longest):
    """Return Pr(a packet takes n tries) for n = 0 .. longest, from failures of n tries."""
    fails = failure(np.arange(longest + 1), q, "chase", cycle)
    return np.concatenate([[0.0], fails[:-1] - fails[1:]])


def overrun(chances, packets, tries):
    """Return the chance that so many packets take more tries, by convolving one after another."""
    total, left = np.zeros(tries + 1), packets
    total[0], power = 1.0, chances[: tries + 1]
    while left:
        total = np.convolve(total, power)[: tries + 1] if left & 1 else total
        power, left = np.convolve(power, power)[: tries + 1], left >> 1
    return 1.0 - total.sum()


def exact_copies(failures, cycle, longest):
    """Return Pr(a packet takes n tries) where so many copies fail together, N at a time."""
    listed = np.array([1.0, *failures, *np.zeros(cycle)])
    n = np.arange(longest + 1)
    fails = listed[cycle] ** (n // cycle) * listed[n % cycle]
    return np.concatenate([[0.0], fails[:-1] - fails[1:]])


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_without_combining_a_limit_changes_no_transmissions(limit):
    unlimited = expected_transmissions(ERRORS, None)
    assert np.array_equal(expected_transmissions(ERRORS, limit, "none", AM), unlimited)
    # The renewal argument: the tries of a cycle over the chance that it delivers.
    renewed = expected_transmissions(ERRORS, limit) / (1 - residual_loss(ERRORS, limit))
    assert renewed == pytest.approx(unlimited, rel=1e-12)
    assert np.array_equal(
        expected_passes(50, ERRORS, limit, "none", AM), expected_passes(50, ERRORS, None)
    )
    draws = [
        sample_arq(80, 0.4, most, np.random.default_rng(7), "none", layer)
        for most, layer in ((limit, AM), (None, "unacknowledged"))
    ]
    assert draws[0] == draws[1] and not draws[0].lost


def test_two_tries_by_hand():
    # q = 1 - e^-1: x = 1, F_1 = 0.63212, F_2 = 1 - 2/e = 0.26424. A cycle takes 1.63212 tries and
    # delivers with 0.73576: 2.21828 tries. With one try a cycle nothing adds up: 1 / (1 - q) = e.
    q = 1 - np.exp(-1)
    assert expected_transmissions(q, 2, "chase", AM) == pytest.approx(2.21828, abs=1e-5)
    assert expected_transmissions(q, 1, "chase", AM) == pytest.approx(np.e)
    assert expected_transmissions(q, None, "chase", AM) == pytest.approx(2.0)
    # 1, F_1, F_2, F_2 F_1, F_2^2, F_2^2 F_1
    fails = [1, 0.632121, 0.264241, 0.167032, 0.069823, 0.044137]
    assert failure(np.arange(6), q, "chase", 2) == pytest.approx(fails, abs=1e-6)
    assert residual_loss(q, 2, "chase", AM) == 0.0
    assert residual_loss(q, 2, "chase") == pytest.approx(0.264241, abs=1e-6)


@pytest.mark.parametrize("limit", [1, 2, 3, 8, 300])
def test_the_mean_is_that_of_a_cycle_over_the_chance_that_it_delivers(limit):
    cycle = expected_transmissions(ERRORS, limit, "chase")
    delivers = 1 - residual_loss(ERRORS, limit, "chase")
    found = expected_transmissions(ERRORS, limit, "chase", AM)
    assert found == pytest.approx(cycle / delivers, rel=1e-12)
    # Forgetting costs tries: between no combining and combining without an end.
    assert (found <= expected_transmissions(ERRORS, None) * (1 + 1e-12)).all()
    assert (found >= expected_transmissions(ERRORS, None, "chase") * (1 - 1e-12)).all()


@pytest.mark.parametrize(("q", "limit"), [(0.3, 2), (0.7, 3), (0.9, 4), (0.6, 1)])
def test_cumulants_and_failures_are_those_of_fades_that_add_up(q, limit):
    packets = 200_000
    tries = tries_of_packets(q, limit, packets)
    for most in range(1, 2 * limit + 2):
        chance = float(failure(most, q, "chase", limit))
        error = 4 * np.sqrt(chance * (1 - chance) / packets)
        assert np.mean(tries > most) == pytest.approx(chance, abs=error)
    mean, variance, third = renewed_cumulants(chase_failures(q, limit), limit)
    assert tries.mean() == pytest.approx(1 + mean, abs=4 * tries.std() / np.sqrt(packets))
    chances, n = exact_tries(q, limit, 4000), np.arange(4001)
    for order, cumulant in ((2, variance), (3, third)):
        assert chances @ (n - 1 - mean) ** order == pytest.approx(cumulant, rel=1e-9)


@pytest.mark.parametrize(("q", "limit"), [(0.3, 1), (0.6, 2), (0.8, 3)])
@pytest.mark.parametrize("combining", ["none", "chase"])
def test_sampled_messages_have_the_means_of_the_formulas(q, limit, combining):
    rng = np.random.default_rng(1)
    draws = [sample_arq(60, q, limit, rng, combining, AM) for _ in range(2000)]
    assert not any(draw.lost for draw in draws)
    totals = np.array([draw.transmissions for draw in draws])
    mean = 60 * float(expected_transmissions(q, limit, combining, AM))
    assert totals.mean() == pytest.approx(mean, abs=4 * totals.std() / np.sqrt(2000))
    passes = np.array([draw.tries for draw in draws])
    expected = float(expected_passes(60, q, limit, combining, AM))
    assert passes.mean() == pytest.approx(expected, abs=4 * passes.std() / np.sqrt(2000))
    if combining == "chase":
        _, variance, _ = renewed_cumulants(chase_failures(q, limit), limit)
        assert totals.var() == pytest.approx(60 * variance, rel=0.15)


def test_copies_at_a_known_snr_by_hand():
    # A cycle of two takes 1.4 tries and delivers with 0.9; then 1, F_1, F_2, F_2 F_1, F_2^2.
    failures = [0.4, 0.1, 0.0]
    assert expected_transmissions(failures, 2, "copies", AM) == pytest.approx(1.4 / 0.9)
    fails = [1, 0.4, 0.1, 0.04, 0.01, 0.004]
    assert failure(np.arange(6), failures, "copies", 2) == pytest.approx(fails)
    assert residual_loss(failures, 2, "copies", AM) == 0.0
    # Three tries always deliver, and with one there is nothing to add up.
    for end in (3, 7, None):
        assert expected_transmissions(failures, end, "copies", AM) == pytest.approx(1.5)
    assert expected_transmissions(failures, 1, "copies", AM) == pytest.approx(1 / 0.6)


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_the_laws_renew_themselves_alike(limit):
    # Copies that fail together as faded ones do are those: one law written as the other.
    q = ERRORS[1:]
    listed = chase_failures(q, limit)
    for find in (
        lambda *how: expected_transmissions(*how, AM),
        lambda *how: expected_passes(50, *how, AM),
        lambda *how: likely_tries(50.0, *how, AM),
    ):
        assert np.array_equal(find(listed, limit, "copies"), find(q, limit, "chase"))
    for one, fails in zip(q, listed, strict=True):
        draws = [
            sample_arq(80, errors, limit, np.random.default_rng(7), law, AM)
            for errors, law in ((one, "chase"), (fails, "copies"))
        ]
        assert draws[0] == draws[1] and not draws[0].lost


@pytest.mark.parametrize("limit", [1, 2, 3, 8])
@pytest.mark.parametrize("name", COPIES)
def test_safe_packets_of_copies_are_those_of_the_exact_distribution(name, limit):
    failures = COPIES[name]
    chances = exact_copies(failures, limit, 1000)
    for tries in (5, 20, 100, 1000):
        packets = int(safe_packets(float(tries), failures, limit, "copies", AM))
        assert overrun(chances, packets, tries) <= 1.05e-3
        assert overrun(chances, packets + 3, tries) > 1e-3 or packets + 3 > tries
    many = safe_packets([10.5, 3.0], [[0.0, 0.0], [1e-5, 0.0]], limit, "copies", AM)
    assert many.tolist() == [10.5, 3.0]


@pytest.mark.parametrize("name", COPIES)
def test_sampled_copies_have_the_means_of_the_formulas(name):
    failures, limit = np.array(COPIES[name]), 4
    rng = np.random.default_rng(2)
    draws = [sample_arq(60, failures, limit, rng, "copies", AM) for _ in range(300)]
    assert not any(draw.lost for draw in draws)
    n = np.arange(4001)
    exact = exact_copies(failures, limit, 4000) @ n
    assert expected_transmissions(failures, limit, "copies", AM) == pytest.approx(exact, rel=1e-9)
    totals = np.array([draw.transmissions for draw in draws])
    assert totals.mean() == pytest.approx(60 * exact, abs=5 * totals.std() / np.sqrt(300))
    passes = np.array([draw.tries for draw in draws])
    expected = float(expected_passes(60, failures, limit, "copies", AM))
    assert passes.mean() == pytest.approx(expected, abs=5 * passes.std() / np.sqrt(300))
    depth = float(likely_tries(60.0, failures, limit, "copies", AM))
    assert 60 * failure(depth, failures, "copies", limit) <= 1e-3
    assert 60 * failure(depth - 1, failures, "copies", limit) > 1e-3


@pytest.mark.parametrize("q", [0.001, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95])
@pytest.mark.parametrize("limit", [1, 2, 3, 4, 8])
def test_safe_packets_are_those_of_the_exact_distribution(q, limit):
    chances = exact_tries(q, limit, 1000)
    for tries in (5, 20, 100, 1000):
        packets = int(safe_packets(float(tries), q, limit, "chase", AM))
        assert overrun(chances, packets, tries) <= 1.05e-3
        assert overrun(chances, packets + 3, tries) > 1e-3 or packets + 3 > tries
    assert safe_packets([10.5, 0.0], [0.0, q], limit, "chase", AM).tolist() == [10.5, 0.0]


def test_likely_tries_are_the_first_that_fail_once_in_a_thousand_messages():
    for q in (1e-6, 0.1, 0.5, 0.9, 0.99):
        for limit in (1, 2, 5):
            for packets in (1.0, 40.0, 8000.0):
                depth = float(likely_tries(packets, q, limit, "chase", AM))
                assert packets * failure(depth, q, "chase", limit) <= 1e-3 * (1 + 1e-9)
                before = packets * failure(depth - 1, q, "chase", limit)
                assert depth == 1.0 or before > 1e-3 * (1 - 1e-9)
    # Without combining the limit is no end either.
    assert likely_tries(200.0, 0.2, 2, "none", AM) == likely_tries(200.0, 0.2, None)


def upload(megabits, **changes):
    config = CellConfig(packet_error=0.3, retransmission_delay_s=0.01, **changes)
    links = Cell(config, 200, seed=0).links(0)
    sent = []
    for client in np.argsort(-links.snr_hz)[:100]:
        rate = float(rate_bps(1e6, links.planned_snr_hz[client], config.rate))
        grant = Grant(int(client), np.inf, config.power_w, 1e6, rate)
        trip = Air(config, 5).uplink(int(megabits * 1e6), links, grant)
        sent.append((trip, megabits * 1e6 / rate))
    return sent


@pytest.mark.parametrize("combining", ["none", "chase"])
def test_an_adapter_of_67_mbit_arrives_whole_and_takes_longer(combining):
    # 7931 packets, of which one exhausts two tries for sure.
    cut = upload(67, max_transmissions=2, combining=combining)
    assert {trip.status for trip, _ in cut} == {"lost"}
    whole = upload(67, max_transmissions=2, combining=combining, link_layer=AM)
    assert {trip.status for trip, _ in whole} == {"delivered"}
    tries = float(expected_transmissions(0.3, 2, combining, AM))
    passes = float(expected_passes(7931, 0.3, 2, combining, AM))
    ratio = [trip.seconds / (once * tries + 0.01 * (passes - 1)) for trip, once in whole]
    assert np.mean(ratio) == pytest.approx(1.0, abs=0.003)


@pytest.mark.parametrize("combining", ["none", "chase"])
def test_a_full_grant_arrives_by_the_deadline(combining):
    config = CellConfig(
        packet_error=0.4, combining=combining, link_layer=AM, max_transmissions=2, deadline_s=1.0
    )
    cell, air = Cell(config, 40, seed=0), Air(config, seed=0)
    taken = []
    for round in range(10):
        links = cell.links(round)
        plan = allocate(links, np.arange(40), 1e6, 1e4, 0.2, config)
        trips = [air.uplink(int(g.bits), links, g) for g in plan.grants.values()]
        assert all(trip.arrived for trip in trips)
        taken += [trip.seconds for trip in trips]
    assert len(taken) > 100
    assert np.mean(np.array(taken) > 0.8) <= 0.01
    assert np.mean(taken) > 0.55


def test_the_key():
    assert CellConfig().link_layer == "unacknowledged"
    with pytest.raises(ValidationError, match="'unacknowledged' or 'acknowledged'"):
        CellConfig(link_layer="am")
