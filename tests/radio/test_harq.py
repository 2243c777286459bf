"""Chase combining against exponential fades that are added up one by one."""

import numpy as np
import pytest
from scipy.special import pdtr

from airtune.radio.air import Air
from airtune.radio.cell import Cell
from airtune.radio.config import CellConfig
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
from airtune.radio.grant import Grant
from airtune.radio.packet_errors import packet_error_rate
from airtune.radio.rate import rate_bps
from airtune.scheduling.allocate import allocate

SNR_DB = np.array([0.0, 5.0, 10.0, 15.0, 20.0])
waterfall = packet_error_rate("waterfall", 10 ** (SNR_DB / 10))


def added_up(threshold, mean_snr, packets, seed=0):
    """Return how many Rayleigh fades each packet needs until its SNRs add up to a threshold."""
    rng = np.random.default_rng(seed)
    return 1 + (rng.exponential(mean_snr, (packets, 60)).cumsum(1) < threshold).sum(1)


@pytest.mark.parametrize("mean_snr", [0.5, 2.0, 10.0])
def test_failures_are_those_of_fades_that_add_up(mean_snr):
    threshold, packets = 10**0.0023, 200_000
    q = packet_error_rate("waterfall", mean_snr)
    needed = added_up(threshold, mean_snr, packets)
    for tries in range(5):
        chance = float(failure(tries, q, "chase"))
        error = 4 * np.sqrt(chance * (1 - chance) / packets) + 1e-6
        assert np.mean(needed > tries) == pytest.approx(chance, abs=error)
    assert needed.mean() == pytest.approx(expected_transmissions(q, None, "chase"), rel=0.01)
    capped = np.minimum(needed, 3).mean()
    assert capped == pytest.approx(expected_transmissions(q, 3, "chase"), rel=0.01)


def test_four_tries_by_hand():
    # x = 1.00531 / snr: 1 + x without a limit. At 0 dB, Pr(Poisson(1.00531) >= 4) = 0.01930, and
    # 1 + 0.63406 + 0.26621 + 0.08131 tries of four.
    x = 1.00531 / 10 ** (SNR_DB / 10)
    assert expected_transmissions(waterfall, None, "chase") == pytest.approx(1 + x, rel=1e-5)
    poisson = np.exp(-x[0]) * np.array([1, x[0], x[0] ** 2 / 2, x[0] ** 3 / 6])
    tails = 1 - poisson.cumsum()
    assert failure(np.arange(1, 5), waterfall[0], "chase") == pytest.approx(tails, rel=1e-4)
    assert residual_loss(waterfall[0], 4, "chase") == pytest.approx(tails[3], rel=1e-4)
    mean = 1 + tails[:3].sum()
    assert expected_transmissions(waterfall[0], 4, "chase") == pytest.approx(mean, rel=1e-4)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 30])
def test_the_closed_form_is_the_sum_of_failures(limit):
    q = np.array([0.0, 0.01, 0.3, 0.9, 0.999])
    summed = failure(np.arange(limit)[:, None], q, "chase").sum(0)
    assert expected_transmissions(q, limit, "chase") == pytest.approx(summed, rel=1e-10)
    assert residual_loss(q, None, "chase").tolist() == [0.0] * 5


def test_a_try_has_that_many_times_the_snr():
    # To first order the chance of failing again is the error rate of n times the SNR.
    for tries in (1, 2, 3, 4):
        again = packet_error_rate("waterfall", tries * 1000.0)
        assert error(tries, packet_error_rate("waterfall", 1000.0), "chase") == pytest.approx(
            again, rel=1e-3
        )
    # Beyond that, copies never do worse than tries that forget.
    tries = np.arange(1, 9)[:, None]
    assert (failure(tries, waterfall, "chase") <= failure(tries, waterfall) * (1 + 1e-9)).all()
    assert error(500, 0.1, "chase") == 0.0


@pytest.mark.parametrize(("q", "limit"), [(0.6, None), (0.6, 3), (0.1, 4)])
def test_sampled_fates_have_the_means_of_the_formulas(q, limit):
    rng = np.random.default_rng(1)
    draws = [sample_arq(40, q, limit, rng, "chase") for _ in range(4000)]
    totals = np.array([draw.transmissions for draw in draws])
    mean = 40 * expected_transmissions(q, limit, "chase")
    assert totals.mean() == pytest.approx(mean, abs=4 * totals.std() / np.sqrt(4000))
    lost = 1 - (1 - float(residual_loss(q, limit, "chase"))) ** 40
    assert np.mean([draw.lost for draw in draws]) == pytest.approx(
        lost, abs=4 * np.sqrt(lost * (1 - lost) / 4000) + 1e-3
    )
    passes = np.array([draw.tries for draw in draws])
    expected = float(expected_passes(40, q, limit, "chase"))
    assert passes.mean() == pytest.approx(expected, abs=4 * passes.std() / np.sqrt(4000) + 1e-4)


def test_repeats_of_many_packets_are_poisson():
    rng, x = np.random.default_rng(2), -np.log(0.5)
    repeats = np.array(
        [sample_arq(100, 0.5, None, rng, "chase").transmissions for _ in range(4000)]
    )
    repeats -= 100
    for bound in (55, 65, 70, 75, 85):
        chance = pdtr(bound, 100 * x)
        assert np.mean(repeats <= bound) == pytest.approx(
            chance, abs=4 * np.sqrt(chance * (1 - chance) / 4000) + 1e-3
        )


def test_passes_without_combining():
    # One packet: the tries themselves. Two with q = 1/2: 8/3, the mean of the larger geometric.
    assert expected_passes(1, 0.3, None) == pytest.approx(1 / 0.7)
    assert expected_passes(2, 0.5, None) == pytest.approx(8 / 3)
    assert expected_passes([0, 5, 5], [0.5, 0.0, 0.9], 1).tolist() == [0, 1, 1]
    rng = np.random.default_rng(3)
    tries = np.array([sample_arq(200, 0.2, 4, rng).tries for _ in range(4000)])
    assert tries.mean() == pytest.approx(expected_passes(200, 0.2, 4), abs=0.04)


def test_planned_packets_and_passes_are_rarely_exceeded():
    rng = np.random.default_rng(4)
    packets = int(safe_packets(1000.0, 0.5, None, "chase"))
    assert 1000 / (1 + np.log(2)) * 0.9 < packets < 1000 / (1 + np.log(2))
    chance = 1 - pdtr(
        [1000 - packets, 999 - packets], [packets * np.log(2), (packets + 1) * np.log(2)]
    )
    assert chance[0] <= 1e-3 < chance[1]
    depth = likely_tries(packets, 0.5, None, "chase")
    draws = [sample_arq(packets, 0.5, None, rng, "chase") for _ in range(3000)]
    assert np.mean([draw.transmissions > 1000 for draw in draws]) < 0.003
    assert np.mean([draw.tries > depth for draw in draws]) < 0.004
    assert packets * failure(depth, 0.5, "chase") <= 1e-3
    assert packets * failure(depth - 1, 0.5, "chase") > 1e-3
    assert likely_tries([200.0, 200.0], [0.2, 0.0], 2, "chase").tolist() == [2.0, 1.0]
    assert safe_packets([10.5, 0.0, 1.0], [0.0, 0.3, 0.3], None, "chase").tolist() == [
        10.5,
        0.0,
        0.0,
    ]


@pytest.mark.parametrize("combining", ["none", "chase"])
def test_an_upload_of_many_blocks_takes_the_expected_time(combining):
    config = CellConfig(packet_error=0.3, combining=combining, retransmission_delay_s=0.01)
    links = Cell(config, 400, seed=0).links(0)
    near = np.argsort(-links.snr_hz)[:250]
    packets, seconds = 300, []
    for client in near:
        rate = float(rate_bps(1e6, links.planned_snr_hz[client], config.rate))
        grant = Grant(int(client), np.inf, config.power_w, 1e6, rate)
        sent = Air(config, 5).uplink(packets * config.packet_bits, links, grant)
        assert sent.arrived
        seconds.append((sent.seconds, packets * config.packet_bits / rate))
    took, once = np.array(seconds).T
    delay = 0.01 * (float(expected_passes(packets, 0.3, None, combining)) - 1)
    expected = once * float(expected_transmissions(0.3, None, combining)) + delay
    assert (took / expected).mean() == pytest.approx(1.0, abs=0.008)


def test_combining_lets_a_plan_promise_more():
    sizes = {}
    for combining in ("none", "chase"):
        config = CellConfig(
            packet_error=0.4, combining=combining, deadline_s=1.0, retransmission_delay_s=0.0
        )
        links = Cell(config, 20, seed=0).links(0)
        plan = allocate(links, np.arange(20), 1e7, 0.0, 0.0, config)
        sizes[combining] = np.array([grant.bits for grant in plan.grants.values()])
        air = Air(config, 0)
        sent = [air.uplink(int(g.bits), links, g) for g in plan.grants.values() if g.bits]
        assert sent and max(each.seconds for each in sent) <= 1.0
    # 1 / 0.6 tries a packet against 1 - ln 0.6, less what safety takes.
    gain = sizes["chase"].sum() / sizes["none"].sum()
    assert gain == pytest.approx((1 / 0.6) / (1 - np.log(0.6)), rel=0.05)


def test_the_key():
    assert CellConfig().combining == "none"
    with pytest.raises(ValueError, match="'none' or 'chase'"):
        CellConfig(combining="ir")
